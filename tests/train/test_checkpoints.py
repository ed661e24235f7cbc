"""Checkpoints: what was written comes back to the bit, and what is damaged is told."""

import errno
import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from peephole import folders
from peephole.errors import UserError
from peephole.tensors import Form
from peephole.train.checkpoints import Checkpoint, Checkpoints
from tests.helpers.errors import raises

FILES = ("tensors.safetensors", "state.json", "SHA256SUMS")


@dataclass(frozen=True)
class Settings:
    rate: float
    name: str


@dataclass(frozen=True)
class State:
    update: int
    best: dict[str, float] | None
    numbers: tuple[float, ...]
    settings: Settings


STATE = State(3, {"loss": 0.1}, (1.0, 2.5), Settings(0.01, "adam"))
TENSORS = {
    "model.weight": torch.linspace(-1, 1, 60).reshape(5, 12),
    "model.half": torch.linspace(-1, 1, 3).bfloat16(),
    "optimizer.step": torch.tensor(7),
    "state.h": torch.zeros(0, 4, dtype=torch.float64),
    "state.mask": torch.tensor([True, False, True]),
}
FORMS = {name: Form.of(tensor) for name, tensor in TENSORS.items()}


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing takes nearly all the time of these tests; the one that looks at it puts it back."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def store(run: Path, keep: int = 2) -> Checkpoints[State]:
    return Checkpoints(run, State, keep)


def write(run: Path, *updates: int, best: int | None = None, keep: int = 2) -> Path:
    path = run
    for update in updates:
        state = replace(STATE, update=update)
        path = store(run, keep).write(update, TENSORS, state, best=best)
    return path


def updates(run: Path) -> list[int]:
    """Those that are there, by their names."""
    return sorted(int(path.name.removeprefix("update-")) for path in entries(run))


def entries(run: Path) -> Iterable[Path]:
    return (run / "checkpoints").iterdir()


def newest(run: Path) -> tuple[int | None, list[str]]:
    checkpoint, damaged = store(run).newest()
    return None if checkpoint is None else checkpoint.update, damaged


def seal(path: Path) -> None:
    """Make the digests right again, as who means harm would."""
    lines = [f"{sha256((path / name).read_bytes()).hexdigest()}  {name}\n" for name in FILES[:2]]
    (path / "SHA256SUMS").write_text("".join(lines))


class TestThereAndBack:
    def test_tensors_and_state(self, tmp_path: Path) -> None:
        path = store(tmp_path).write(3, TENSORS, STATE, best=2)
        assert path == tmp_path / "checkpoints" / "update-000000003"
        assert sorted(file.name for file in path.iterdir()) == sorted(FILES)
        checkpoint = store(tmp_path).read(3)
        assert checkpoint == Checkpoint(path, 3, 2, STATE, FORMS)
        found = checkpoint.tensors(FORMS)
        assert found.keys() == TENSORS.keys()
        for name, tensor in TENSORS.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)

    def test_a_file_is_as_others_read_it(self, tmp_path: Path) -> None:
        path = write(tmp_path, 3)
        found = load_file(path / "tensors.safetensors")
        for name, tensor in TENSORS.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)
        assert json.loads((path / "state.json").read_text())["state"]["update"] == 3
        checked = subprocess.run(
            ["sha256sum", "--check", "--strict", "SHA256SUMS"],
            cwd=path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert checked.stdout == "tensors.safetensors: OK\nstate.json: OK\n"

    @given(
        st.lists(st.floats(), max_size=5),
        st.text(),
        st.none()
        | st.dictionaries(st.text().filter(lambda name: name != "not-finite"), st.floats()),
    )
    def test_numbers_to_the_bit(
        self, numbers: list[float], name: str, best: dict[str, float] | None
    ) -> None:
        state = State(0, best, tuple(numbers), Settings(0.1, name))
        with tempfile.TemporaryDirectory() as run:
            try:
                store(Path(run)).write(0, {}, state)
            except UnicodeEncodeError:
                assert any("\ud800" <= c <= "\udfff" for c in name + "".join(best or ()))
                return
            found = store(Path(run)).read(0).state
        # repr tells -0.0 from 0.0, and NaN is like itself.
        assert repr(found) == repr(state)

    def test_json_has_no_nan(self, tmp_path: Path) -> None:
        state = replace(STATE, numbers=(math.nan, math.inf, -math.inf))
        path = store(tmp_path).write(3, {}, state)

        def refuse(name: str) -> None:
            raise AssertionError(name)

        held = json.loads((path / "state.json").read_text(), parse_constant=refuse)
        assert held["state"]["numbers"] == [{"not-finite": name} for name in ("nan", "inf", "-inf")]

    def test_tensors_stand_on_their_own(self, tmp_path: Path) -> None:
        path = write(tmp_path, 3)
        found = store(tmp_path).read(3).tensors(FORMS)
        (path / "tensors.safetensors").write_bytes(b"\xff" * 1000)
        assert torch.equal(found["model.weight"], TENSORS["model.weight"])
        found["model.weight"].zero_()

    @pytest.mark.parametrize(
        ("tensors", "message"),
        [
            ({"a": torch.zeros(1).to("meta")}, "'a' is on the meta device, which a safetensors"),
            ({"a": torch.zeros(1, dtype=torch.complex64)}, "'a' is complex64, which a safetensors"),
            ({"a": torch.eye(2).to_sparse()}, "'a' is sparse_coo, which a safetensors"),
            ({"__metadata__": torch.zeros(1)}, "'__metadata__' is no tensor's name"),
        ],
    )
    def test_a_tensor_that_cannot_be_kept(
        self, tmp_path: Path, tensors: dict[str, torch.Tensor], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            store(tmp_path).write(3, tensors, STATE)
        assert not list(entries(tmp_path))

    @pytest.mark.parametrize(
        ("state", "message"),
        [
            (replace(STATE, update=2**63), "is too large"),
            (replace(STATE, best={"not-finite": 1.0}), "which stands for a number"),
            (replace(STATE, best={1: 1.0}), "its keys must be text"),  # type: ignore[dict-item]
        ],
    )
    def test_a_state_that_would_not_come_back(
        self, tmp_path: Path, state: State, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            store(tmp_path).write(3, TENSORS, state)
        assert not (tmp_path / "checkpoints").exists()

    @pytest.mark.parametrize(("update", "best"), [(-1, None), (3, 4), (3, -1), (10**18, None)])
    def test_updates_that_make_no_sense(
        self, tmp_path: Path, update: int, best: int | None
    ) -> None:
        with raises(f"update={update}, best={best}: they must be 0 <= best <= update"):
            store(tmp_path).write(update, {}, STATE, best=best)

    def test_keep_is_at_least_one(self, tmp_path: Path) -> None:
        with raises("keep: 0; it must be at least 1", UserError):
            store(tmp_path, keep=0)


class TestWhichAreKept:
    def test_none(self, tmp_path: Path) -> None:
        assert newest(tmp_path) == (None, [])
        with raises(f"{tmp_path} has no checkpoint of update 5; it has none", UserError):
            store(tmp_path).read(5)
        write(tmp_path, 3, 4)
        with raises(f"{tmp_path} has no checkpoint of update 5; it has 3, 4", UserError):
            store(tmp_path).read(5)

    def test_the_newest_and_the_best_they_name(self, tmp_path: Path) -> None:
        write(tmp_path, 1)
        write(tmp_path, 2, 3, 4, best=2)
        assert updates(tmp_path) == [2, 3, 4]
        write(tmp_path, 5, best=5)
        assert updates(tmp_path) == [2, 4, 5]
        write(tmp_path, 6, best=5)
        assert updates(tmp_path) == [5, 6]

    @given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=8), st.integers(1, 3))
    def test_the_law(self, steps: list[tuple[int, bool]], keep: int) -> None:
        update, best, named = 0, None, {}
        with tempfile.TemporaryDirectory() as run:
            for step, is_best in steps:
                update += step
                best = update if is_best else best
                named[update] = best
                store(Path(run), keep).write(update, {}, STATE, best=best)
                last = sorted(named)[-keep:]
                assert set(updates(Path(run))) == {*last, *(named[n] for n in last)} - {None}
                assert newest(Path(run)) == (update, [])

    def test_one_of_the_same_update_is_replaced(self, tmp_path: Path) -> None:
        write(tmp_path, 3)
        store(tmp_path).write(3, {}, replace(STATE, update=99))
        assert updates(tmp_path) == [3]
        assert store(tmp_path).read(3).state.update == 99
        assert store(tmp_path).read(3).forms == {}

    def test_those_of_a_course_that_was_given_up_go(self, tmp_path: Path) -> None:
        damaged = write(tmp_path, 10, 20)
        (damaged / "state.json").unlink()
        assert newest(tmp_path)[0] == 10
        write(tmp_path, 15, keep=1)
        assert updates(tmp_path) == [15]
        assert newest(tmp_path) == (15, [])

    def test_the_order_is_of_updates_whatever_the_clock_says(self, tmp_path: Path) -> None:
        write(tmp_path, 8, 9, 10, 11, keep=4)
        for k, path in enumerate(sorted(entries(tmp_path))):
            for file in (*path.iterdir(), path):
                os.utime(file, (10**9 - k, 10**9 - k))
        assert newest(tmp_path) == (11, [])
        write(tmp_path, 12)
        assert updates(tmp_path) == [11, 12]

    def test_more_digits_than_a_name_has(self, tmp_path: Path) -> None:
        write(tmp_path, 999_999_999, 1_000_000_000, 10**18 - 1)
        assert newest(tmp_path) == (10**18 - 1, [])
        assert updates(tmp_path) == [1_000_000_000, 10**18 - 1]

    def test_a_kept_one_that_is_damaged_names_none(self, tmp_path: Path) -> None:
        damaged = write(tmp_path, 1, 2, best=1)
        (damaged / "state.json").unlink()
        write(tmp_path, 3)
        assert updates(tmp_path) == [2, 3]
        assert newest(tmp_path) == (3, [])


class TestLeftOvers:
    """What a killed process leaves; ``test_checkpoints_killed`` makes it happen."""

    @pytest.mark.parametrize("what", ["making", "removed"])
    def test_are_ignored_and_removed_by_the_next_write(self, tmp_path: Path, what: str) -> None:
        path = write(tmp_path, 3)
        shutil.copytree(path, path.with_name(f".update-000000009.{what}"))
        assert newest(tmp_path) == (3, [])
        write(tmp_path, 4)
        assert [path.name for path in sorted(entries(tmp_path))] == [
            "update-000000003",
            "update-000000004",
        ]

    def test_one_that_was_to_be_replaced_still_counts(self, tmp_path: Path) -> None:
        path = write(tmp_path, 3)
        path.rename(path.with_name(".update-000000003.old"))
        shutil.copytree(path.with_name(".update-000000003.old"), path.with_name(".x"))
        assert newest(tmp_path) == (3, [])
        write(tmp_path, 4)
        assert newest(tmp_path) == (4, [])
        assert store(tmp_path).read(3).path == path
        assert (tmp_path / "checkpoints" / ".x").exists()

    def test_one_that_was_replaced_is_removed(self, tmp_path: Path) -> None:
        path = write(tmp_path, 3)
        shutil.copytree(path, old := path.with_name(".update-000000003.old"))
        assert store(tmp_path).newest()[0].path == path  # type: ignore[union-attr]
        write(tmp_path, 4)
        assert not old.exists()
        assert updates(tmp_path) == [3, 4]

    @pytest.mark.parametrize(
        "name", ["update-3", "update-00000000x", "update-0000000005", "notes", "update-" + "9" * 40]
    )
    def test_what_is_not_ours_is_left_alone(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        write(tmp_path, 3, 4, keep=1)
        assert newest(tmp_path) == (4, [])
        assert (tmp_path / "checkpoints" / name).exists()


def refused(run: Path, why: str) -> None:
    """The newest, update 9, is damaged for this reason; update 3 serves."""
    path = run / "checkpoints" / "update-000000009"
    update, damaged = newest(run)
    assert update == 3
    assert len(damaged) == 1
    assert damaged[0].startswith(f"{path} is damaged: ")
    assert why in damaged[0]
    assert "\n" not in damaged[0]
    assert len(damaged[0]) < 500
    with pytest.raises(UserError, match="is damaged") as caught:
        store(run).read(9)
    assert caught.value.message == damaged[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The newer of two checkpoints, to be damaged."""
    return write(tmp_path, 3, 9)


class TestDamage:
    @pytest.mark.parametrize("name", FILES)
    def test_cut_short_anywhere(self, path: Path, name: str) -> None:
        file = path / name
        data = file.read_bytes()
        places = {*range(0, len(data), 7), *range(12), len(data) - 1}
        if name == "tensors.safetensors":
            header = 8 + struct.unpack("<Q", data[:8])[0]
            places |= {header - 1, header, header + 1}
        for place in sorted(places):
            file.write_bytes(data[:place])
            refused(path.parents[1], name)

    @pytest.mark.parametrize("name", FILES)
    def test_a_flipped_bit_anywhere(self, path: Path, name: str) -> None:
        file = path / name
        data = file.read_bytes()
        chance = random.Random(0)
        for _ in range(150):
            flipped = bytearray(data)
            flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            file.write_bytes(flipped)
            refused(path.parents[1], "")

    @pytest.mark.parametrize("name", FILES)
    def test_longer(self, path: Path, name: str) -> None:
        with (path / name).open("ab") as file:
            file.write(b"\n")
        refused(path.parents[1], name)

    @pytest.mark.parametrize("name", FILES)
    def test_a_file_that_is_missing(self, path: Path, name: str) -> None:
        (path / name).unlink()
        refused(path.parents[1], f"cannot read {path / name}: No such file or directory")

    @pytest.mark.parametrize("name", FILES[:2])
    def test_a_file_of_another_checkpoint(self, path: Path, name: str) -> None:
        other = store(path.parents[1], keep=3).write(10, {"a": torch.ones(3)}, STATE)
        shutil.copy(other / name, path / name)
        shutil.rmtree(other)
        refused(path.parents[1], name)

    def test_another_checkpoint(self, path: Path) -> None:
        shutil.rmtree(path)
        shutil.copytree(path.with_name("update-000000003"), path)
        refused(path.parents[1], "state.json is of update 3")

    def test_none_is_whole(self, path: Path) -> None:
        for file in path.parent.glob("*/state.json"):
            file.unlink()
        update, damaged = newest(path.parents[1])
        assert update is None
        assert [line.split()[0][-3:] for line in damaged] == ["009", "003"]

    def test_a_file_more_is_none(self, path: Path) -> None:
        (path / "notes.txt").write_text("mine")
        assert newest(path.parents[1]) == (9, [])


def test_all_is_on_the_disk_before_it_is_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    rename = Path.rename

    def sync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        done.append(f"sync {path.relative_to(tmp_path)} with {path.stat().st_size > 0}")

    def move(path: Path, target: Path) -> Path:
        done.append(f"rename {path.name} {target.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", move)
    write(tmp_path, 3)
    making = "checkpoints/.update-000000003.making"
    assert done == [
        "sync . with True",
        *(f"sync {making}/{name} with True" for name in FILES),
        f"sync {making} with True",
        "rename .update-000000003.making update-000000003",
        "sync checkpoints with True",
    ]


# What a stranger may have made of a checkpoint, with digests that are right.


def header(path: Path, header: bytes, data: bytes = b"", length: int | None = None) -> None:
    size = struct.pack("<Q", len(header) if length is None else length)
    (path / "tensors.safetensors").write_bytes(size + header + data)


def one(shape: list[int], end: int, dtype: str = "F32") -> bytes:
    return json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}).encode()


def held(path: Path, **changes: Any) -> None:
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(state | changes))


CANNOT = "tensors.safetensors: "
HARM: list[tuple[Callable[[Path], object], str]] = [
    (lambda p: header(p, one([1 << 30], 1 << 32), b"1234"), CANNOT),
    (lambda p: header(p, one([1 << 30], 4), b"1234"), CANNOT),
    (lambda p: header(p, one([1 << 40, 1 << 40], 4), b"1234"), CANNOT),
    (lambda p: header(p, one([1], 4), b"12345678"), CANNOT),
    (lambda p: header(p, one([1], 4), b"1234", length=1 << 20), CANNOT),
    (lambda p: header(p, one([1], 4), b"1234", length=(1 << 64) - 1), CANNOT),
    (lambda p: header(p, b"\xff" * 9), CANNOT),
    (lambda p: header(p, b"[" * 100_000), CANNOT),
    (lambda p: header(p, one([1], 4, "X" * 10_000_000), b"1234"), CANNOT),
    (lambda p: held(p, state={}, more=1), "state.json has other names than format, update, best"),
    (lambda p: held(p, update=9.0), "state.json is of update 9.0"),
    (lambda p: held(p, update="x" * 10_000_000), "state.json is of update 'xxx"),
    (lambda p: held(p, best=10), "state.json names 10 as the best update"),
    (lambda p: held(p, best=True), "state.json names True as the best update"),
    (lambda p: held(p, state={"not-finite": "1"}), "{'not-finite': '1'} is no number"),
    (lambda p: held(p, state={"not-finite": []}), "{'not-finite': []} is no number"),
    (lambda p: held(p, state=float("nan")), "NaN is no number of JSON"),
    (lambda p: held(p, state=10**400), "is too large"),
    (lambda p: (p / "state.json").write_text("[" * 1_000_000), "is not JSON as peephole writes it"),
    (lambda p: (p / "state.json").write_text("[" * 200 + "]" * 200), "nested more than 100 deep"),
    (lambda p: (p / "state.json").write_text('{"a": 1, "a": 2}'), "it has 'a' twice"),
    (lambda p: (p / "state.json").write_bytes(b"\xff"), "can't decode"),
    (lambda p: os.truncate(p / "state.json", 1 << 30), "has 1,073,741,824 bytes; at most"),
    (lambda p: os.truncate(p / "tensors.safetensors", 1 << 40), "1,099,511,627,776 bytes; at most"),
]


@pytest.mark.parametrize(("damage", "why"), HARM)
def test_harm(path: Path, damage: Callable[[Path], object], why: str) -> None:
    damage(path)
    if sum(file.stat().st_size for file in path.iterdir()) < 1 << 28:
        seal(path)
    refused(path.parents[1], why)


@pytest.mark.parametrize("name", FILES)
def test_nothing_but_plain_files(path: Path, tmp_path: Path, name: str) -> None:
    moved = (path / name).rename(tmp_path / name)
    (path / name).symlink_to(moved)
    refused(tmp_path, f"{path / name} is a link; it must be a plain file")
    (path / name).unlink()
    # Opening one waits for a writer, for good.
    os.mkfifo(path / name)
    refused(tmp_path, f"{path / name} is no file; it must be a plain file")
    (path / name).unlink()
    (path / name).mkdir()
    refused(tmp_path, f"{path / name} is no file; it must be a plain file")
    (path / name).rmdir()
    (path / name).symlink_to("/dev/zero")
    refused(tmp_path, f"{path / name} is a link; it must be a plain file")


def test_a_checkpoint_that_is_no_folder(path: Path, tmp_path: Path) -> None:
    moved = path.rename(tmp_path / "moved")
    path.symlink_to(moved)
    refused(tmp_path, "it is a link")
    write(tmp_path, 9)
    assert newest(tmp_path) == (9, [])
    assert (moved / "state.json").exists()
    shutil.rmtree(path)
    os.mkfifo(path)
    refused(tmp_path, "it is no folder")
    write(tmp_path, 9)
    assert newest(tmp_path) == (9, [])


def test_checkpoints_that_lead_out_of_the_run(path: Path, tmp_path: Path) -> None:
    moved = path.parent.rename(tmp_path / "moved")
    path.parent.symlink_to(moved)
    message = f"{path.parent} is a link; it must be a plain folder"
    for use in (store(tmp_path).newest, lambda: write(tmp_path, 10)):
        with raises(message, UserError):
            use()
    assert len(list(moved.iterdir())) == 2
    path.parent.unlink()
    path.parent.write_text("x")
    with raises(f"{path.parent} is no folder; it must be a plain folder", UserError):
        store(tmp_path).newest()


# Whole, and not ours


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(format=2), ": format is 2; this reads 1"),
        (lambda s: s.update(format=True), ": format is True; this reads 1"),
        (lambda s: s.pop("format"), ": format is null; this reads 1"),
        (lambda s: s.update(state=[]), ": state is [], not an object"),
        (lambda s: s["state"].pop("best"), ": state lacks the entry 'best'"),
        (
            lambda s: s["state"].update(setings=1),
            ": state has an entry 'setings' that does not belong there; did you mean 'settings'?",
        ),
        (
            lambda s: s["state"]["settings"].update(rate="1"),
            ": state.settings.rate is '1', not float",
        ),
        (
            lambda s: s["state"].update(best={"loss": True}),
            ": state.best['loss'] is True, not float",
        ),
    ],
)
def test_another_state(path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    state = json.loads((path / "state.json").read_text())
    change(state)
    (path / "state.json").write_text(json.dumps(state))
    seal(path)
    # An older one is none instead: a run would quietly go back to it each time.
    for use in (store(path.parents[1]).newest, lambda: store(path.parents[1]).read(9)):
        with raises(f"{path / 'state.json'}{message}", UserError):
            use()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("model.weight"), "it has 'model.weight', which does not belong there"),
        (lambda f: f.update(a=Form("float32", (2,))), "it lacks 'a'"),
        (
            lambda f: f.update({"model.weight": Form("float32", (1 << 40,))}),
            "it has 'model.weight' as float32 [5, 12], which must be float32 [1099511627776]",
        ),
        (
            lambda f: f.update({"model.half": Form("float16", (3,))}),
            "it has 'model.half' as bfloat16 [3], which must be float16 [3]",
        ),
    ],
)
def test_other_tensors(path: Path, change: Callable[[dict[str, Form]], Any], message: str) -> None:
    wanted = dict(FORMS)
    change(wanted)
    checkpoint = store(path.parents[1]).read(9)
    with raises(
        f"{path / 'tensors.safetensors'} does not go with the run's settings: {message}", UserError
    ):
        checkpoint.tensors(wanted)


def test_a_dtype_that_nothing_here_writes(path: Path) -> None:
    save_file({"a": torch.zeros(2).to(torch.float8_e5m2)}, path / "tensors.safetensors")
    seal(path)
    checkpoint = store(path.parents[1]).read(9)
    assert checkpoint.forms == {"a": Form("F8_E5M2", (2,))}
    with pytest.raises(UserError, match="it has 'a' as F8_E5M2"):
        checkpoint.tensors({"a": Form("float16", (2,))})


# A disk that fills


def untouched(run: Path) -> None:
    assert sorted(path.name for path in entries(run)) == ["update-000000003", "update-000000009"]
    assert newest(run) == (9, [])


@pytest.mark.parametrize("update", [9, 10])
@pytest.mark.parametrize(
    ("name", "broken"),
    [*(("write_synced", k) for k in (1, 2, 3)), *(("sync_folder", k) for k in (1, 2))],
)
def test_no_space_at_any_point(
    path: Path, monkeypatch: pytest.MonkeyPatch, update: int, name: str, broken: int
) -> None:
    original, left = getattr(folders, name), broken

    def fail(*given: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*given)

    monkeypatch.setattr(f"peephole.train.checkpoints.{name}", fail)
    place = path.with_name(f"update-{update:09d}")
    with raises(
        f"cannot write {place}: No space left on device; the newest that is whole is of update 9",
        UserError,
    ):
        write(path.parents[1], update)
    assert left == 0
    untouched(path.parents[1])


@pytest.mark.parametrize("first", [True, False])
def test_a_file_that_grows_too_large(tmp_path: Path, first: bool) -> None:
    """The kernel itself refuses to write on, in the middle of the tensors."""
    if not first:
        write(tmp_path, 3, 9)
    code = f"""
import resource, torch
from pathlib import Path
from peephole.errors import UserError
from tests.train.test_checkpoints import STATE, store
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    store(Path({str(tmp_path)!r})).write(10, {{"a": torch.ones(1 << 20)}}, STATE)
except UserError as error:
    print(error)
"""
    done = python(code)
    left = "there is none" if first else "the newest that is whole is of update 9"
    assert done == (
        f"cannot write {tmp_path}/checkpoints/update-000000010: File too large; {left}\n"
    )
    if first:
        assert not list(entries(tmp_path))
    else:
        untouched(tmp_path)


def test_a_full_disk(tmp_path: Path) -> None:
    """A disk of a megabyte, where the system lets anybody mount one."""
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    disk = f"mount -t tmpfs -o size=1m none {tmp_path}"
    if not shutil.which("unshare") or subprocess.run([*mount, disk], check=False).returncode:
        pytest.skip("no user namespaces here")
    code = f"""
import torch
from pathlib import Path
from peephole.errors import UserError
from tests.train.test_checkpoints import *
run = Path({str(tmp_path)!r})
write(run, 3, 9)
for size in range(100_000, 300_000, 20_000):
    try:
        store(run).write(10, {{"a": torch.ones(size)}}, STATE)
        write(run, 9)
    except UserError as error:
        print(error)
        untouched(run)
    else:
        write(run, 3, 9)
"""
    file = tmp_path.with_name("full_disk.py")
    file.write_text(code)
    done = subprocess.run(
        [*mount, f"{disk} && exec {sys.executable} {file}"],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == {
        f"cannot write {tmp_path}/checkpoints/update-000000010: No space left on device; "
        "the newest that is whole is of update 9"
    }


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
