"""What the tests of checkpoints share."""

import os
from pathlib import Path

import pytest

from tests.helpers.checkpoints import write


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing takes nearly all the time of the tests here; who looks at it puts it back."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The newer of two checkpoints, to be damaged."""
    return write(tmp_path, 3, 9)
