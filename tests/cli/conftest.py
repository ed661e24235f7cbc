"""What several tests of the commands share."""

from collections.abc import Callable, Iterator

import pytest
import torch


@pytest.fixture
def attempt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Be the process that one torchrun starts, for the first time (0) or again."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))

    def begin(number: int) -> None:
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(number))

    begin(0)
    yield begin
    del store
