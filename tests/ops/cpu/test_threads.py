"""Several Python threads at once, changing numbers of threads, and processes that forked."""

import os
import random
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.helpers.kernels import (
    KINDS,
    LADEN,
    assert_same_bits,
    draw,
    draw_upstream,
    outcome,
)
from tests.helpers.recurrences import Recurrence, Tensors

# Small ones, which keep the interpreter, and some that let go of it and use all threads.
SIZES = ((5, [3, 0, 1]), (40, [9] * 30), (33, [4, 50, 0, 20, 31]), (90, [12] * 25), (1, []))


class Job:
    """A call with what it gives when nothing else runs."""

    def __init__(self, recurrence: Recurrence, size: int, lengths: list[int]) -> None:
        self.recurrence = recurrence
        self.tensors = draw(recurrence, lengths, size, torch.float32)
        self.upstream = draw_upstream(recurrence, self.tensors)
        self.wanted = self.of_sequences(self.run())

    def run(self) -> Tensors:
        return outcome(self.recurrence, self.tensors, self.upstream)

    def of_sequences(self, found: Tensors) -> Tensors:
        """What does not depend on how many threads there are."""
        return {name: t for name, t in found.items() if not name.startswith(("d_w", "d_b"))}

    def check(self) -> None:
        assert_same_bits(self.of_sequences(self.run()), self.wanted)


@pytest.fixture
def jobs() -> list[Job]:
    recurrences = [*KINDS.values(), *LADEN.values()]
    return [
        Job(recurrence, *SIZES[k % len(SIZES)])
        for k, recurrence in enumerate(recurrences + recurrences[:7])
    ]


def test_several_at_once(jobs: list[Job]) -> None:
    order = jobs * 4
    random.Random(0).shuffle(order)
    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(job.check) for job in order]:
            done.result()


def test_several_at_once_while_the_number_of_threads_changes(jobs: list[Job]) -> None:
    before, done = torch.get_num_threads(), threading.Event()

    def change() -> None:
        number = random.Random(1)
        while not done.wait(0.001):
            torch.set_num_threads(number.randint(1, 4))

    changer = threading.Thread(target=change)
    changer.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            for checked in [pool.submit(job.check) for job in jobs * 3]:
                checked.result()
    finally:
        done.set()
        changer.join()
        torch.set_num_threads(before)


def test_backward_in_another_thread(jobs: list[Job]) -> None:
    job = jobs[0]
    outputs = job.recurrence(job.tensors, backend="cpu")
    loss = sum((o * d).sum() for o, d in zip(outputs, job.upstream.values(), strict=True))
    thread = threading.Thread(target=loss.backward)
    thread.start()
    thread.join()
    torch.testing.assert_close(job.tensors["gates_x"].grad, job.wanted["d_gates_x"])


HEADER = """
import os, sys, torch
from tests.helpers.kernels import KINDS, assert_same_bits, draw, draw_upstream, outcome
recurrence = KINDS["lstm-full"]
tensors = draw(recurrence, [20] * 40, 64, torch.float32)
upstream = draw_upstream(recurrence, tensors)
def run():
    found = outcome(recurrence, tensors, upstream)
    return {name: t for name, t in found.items() if not name.startswith("d_w")}
"""

# torch's own products wait forever for threads that the fork left behind.
FORKED = """
torch.set_num_threads(THREADS)
wanted = run()
child = os.fork()
if not child:
    torch.set_num_threads(1)
    torch.set_num_threads(CHILD_THREADS)
    try:
        assert_same_bits(run(), wanted)
    except BaseException as error:
        print(error, flush=True)
        os._exit(1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert_same_bits(run(), wanted)
"""

# The kernels alone, without torch's products: forward, where gates_x is given.
FORKED_KERNELS = """
torch.set_num_threads(THREADS)
tensors = {name: t.detach() for name, t in tensors.items()}
run = lambda: dict(enumerate(recurrence(tensors, backend="cpu")))
wanted = {k: t.numpy().tobytes() for k, t in run().items()}
child = os.fork()
if not child:
    os._exit(int({k: t.numpy().tobytes() for k, t in run().items()} != wanted))
assert os.waitpid(child, 0)[1] == 0
assert {k: t.numpy().tobytes() for k, t in run().items()} == wanted
"""

WORKERS = """
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return run()["y"]
if __name__ == "__main__":
    wanted = run()["y"]
    loader = torch.utils.data.DataLoader(Data(), batch_size=None, num_workers=2)
    for y in loader:
        assert torch.equal(y, wanted)
"""


def in_a_process(script: str, **values: int) -> None:
    for name, value in values.items():
        script = script.replace(name.upper(), str(value))
    environment = {**os.environ, "OMP_NUM_THREADS": "4"}
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(HEADER + script)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
class TestForks:
    def test_with_one_thread(self) -> None:
        in_a_process(FORKED, child_threads=1, threads=1)

    @pytest.mark.parametrize("threads", [1, 4])
    def test_the_kernels_alone(self, threads: int) -> None:
        in_a_process(FORKED_KERNELS, threads=threads)

    def test_in_workers_of_a_loader(self) -> None:
        in_a_process(WORKERS)
