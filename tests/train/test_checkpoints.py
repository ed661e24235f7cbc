"""Checkpoints: what was written comes back to the bit, and what is needed is kept."""

import json
import math
import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from peephole.errors import UserError
from peephole.train.checkpoints import Checkpoint
from tests.helpers.checkpoints import (
    FILES,
    FORMS,
    STATE,
    TENSORS,
    Settings,
    State,
    entries,
    newest,
    store,
    updates,
    write,
)
from tests.helpers.errors import raises


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
