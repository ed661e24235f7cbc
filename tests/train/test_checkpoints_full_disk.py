"""A disk that fills leaves the older checkpoints whole, and nothing else."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from peephole import folders
from peephole.errors import UserError
from tests.helpers.checkpoints import entries, untouched, write
from tests.helpers.errors import raises


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
from tests.helpers.checkpoints import STATE, store
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
from tests.helpers.checkpoints import *
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
