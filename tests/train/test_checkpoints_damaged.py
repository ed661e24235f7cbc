"""Checkpoints that are damaged, made to harm, or another's: each is one clear line."""

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from peephole.errors import UserError
from peephole.tensors import Form
from tests.helpers.checkpoints import FILES, FORMS, STATE, newest, store, write
from tests.helpers.errors import raises


def seal(path: Path) -> None:
    """Make the digests right again, as who means harm would."""
    lines = [f"{sha256((path / name).read_bytes()).hexdigest()}  {name}\n" for name in FILES[:2]]
    (path / "SHA256SUMS").write_text("".join(lines))


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
