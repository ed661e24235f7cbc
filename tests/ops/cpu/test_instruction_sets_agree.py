"""Every instruction set that this processor has: the core of this folder's tests, in a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from peephole.ops import cpu

ROOT = Path(__file__).parents[3]
HERE = "tests/ops/cpu"
# Sizes of vectors and of tiles are what differs.
CORE = (
    f"{HERE}/test_functions.py",
    f"{HERE}/test_sizes.py::test_every_hidden_size",
    f"{HERE}/test_sizes.py::test_every_hidden_size_in_float32",
    f"{HERE}/test_sizes.py::test_every_number_of_sequences",
    f"{HERE}/test_sizes.py::test_few_steps",
    f"{HERE}/test_against_reference.py::TestOptions::test_together",
    f"{HERE}/test_precision.py",
    f"{HERE}/test_bits.py::TestCompany::test_among_many",
    f"{HERE}/test_layers.py::TestInputs::test_every_width",
    f"{HERE}/test_layers.py::TestInputs::test_every_width_in_float32",
)
LEFT_OUT = "not bfloat16 and not dropped and not coupled and not (among_many and float64)"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
        cwd=ROOT,
        check=False,
    )


def run_tests(*tests: str, **environment: str) -> None:
    # Shapes in signatures have been checked in this process.
    environment["JAXTYPING_DISABLE"] = "1"
    ended = run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests, **environment)
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-5000:]
    assert " passed" in ended.stdout


def loaded(**environment: str) -> subprocess.CompletedProcess[str]:
    return run(
        "-c",
        "from peephole.ops import cpu; print(cpu.instruction_set(), cpu.instruction_sets())",
        **environment,
    )


# The one that is in use has been tested in this process.
@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in cpu.instruction_sets() if n != cpu.instruction_set()])
def test_each(name: str) -> None:
    assert loaded(PEEPHOLE_CPU=name).stdout.startswith(f"{name} (")
    run_tests(*CORE, "-k", LEFT_OUT, PEEPHOLE_CPU=name)


@pytest.mark.slow
def test_memory_of_their_own_is_not_read_before_it_is_written() -> None:
    # The C library fills what it gives out, here with numbers near the largest that there are.
    tests = (f"{HERE}/test_sizes.py", f"{HERE}/test_against_reference.py::TestOptions")
    run_tests(*tests, "-k", "few_steps or together", MALLOC_PERTURB_="128")


def test_the_best_is_taken() -> None:
    names = cpu.instruction_sets()
    assert len(names) == len(set(names)) > 0
    assert loaded(PEEPHOLE_CPU="").stdout == f"{names[0]} {names}\n"


@pytest.mark.parametrize("name", ["sse9", "AVX2", "avx", " avx2", "neon,avx2"])
def test_an_unknown_one_is_an_error_that_lists_what_there_is(name: str) -> None:
    ended = loaded(PEEPHOLE_CPU=name)
    assert ended.returncode != 0
    last = ended.stderr.strip().splitlines()[-1]
    names = ", ".join(cpu.instruction_sets())
    assert last == f"ImportError: PEEPHOLE_CPU={name}: this build and this processor have {names}"
