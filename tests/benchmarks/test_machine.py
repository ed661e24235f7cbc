"""What a line says of the conditions."""

import os
import platform
import subprocess
from pathlib import Path

import pytest
import torch

import peephole
from benchmarks import machine


def test_machine_tells_the_processor_and_no_name_or_path() -> None:
    told = machine.machine()
    assert set(told) == {"cpu", "cores", "instructions", "kernels", "system"}
    assert told["cores"] >= 1
    assert told["cpu"]
    values = [str(value) for value in told.values()]
    assert platform.node() not in values
    assert not any(os.sep in value.split()[0] for value in values)


def test_no_kernels_are_told_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise RuntimeError("the extension is missing")

    monkeypatch.setattr(machine.cpu, "instruction_set", missing)
    assert machine.machine()["kernels"] is None
    monkeypatch.setattr(machine.cpu, "instruction_set", lambda: "avx2")
    assert machine.machine()["kernels"] == "avx2"


def test_the_product_is_square_and_its_work_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MM_SIZE", 50)
    assert machine.mm()().shape == (50, 50)
    assert machine.mm_gflop() == pytest.approx(2 * 50**3 / 1e9)


def test_versions() -> None:
    assert machine.versions() == {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "peephole": peephole.__version__,
    }


class TestCommit:
    @pytest.fixture
    def checkout(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A repository with one commit."""
        monkeypatch.setattr(machine, "ROOT", tmp_path)
        (tmp_path / "a.txt").write_text("a")
        self.git(tmp_path, "init", "--quiet")
        self.git(tmp_path, "add", "a.txt")
        self.git(tmp_path, "commit", "--quiet", "--message", "a")
        return tmp_path

    def git(self, folder: Path, *words: str) -> str:
        author = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", *author, *words], cwd=folder, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def test_clean(self, checkout: Path) -> None:
        head = self.git(checkout, "rev-parse", "HEAD")
        assert machine.commit() == {"commit": head, "dirty": False}

    @pytest.mark.parametrize("name", ["a.txt", "new.txt"])
    def test_a_changed_or_a_new_file_is_dirt(self, checkout: Path, name: str) -> None:
        (checkout / name).write_text("b")
        assert machine.commit()["dirty"] is True

    def test_results_are_no_dirt(self, checkout: Path) -> None:
        results = checkout / "benchmarks" / "results"
        results.mkdir(parents=True)
        (results / "layers.jsonl").write_text("{}\n")
        assert machine.commit()["dirty"] is False

    def test_no_checkout(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "ROOT", tmp_path)
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        assert machine.commit() == {"commit": None, "dirty": None}

    def test_no_git(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        assert machine.commit() == {"commit": None, "dirty": None}
