"""``peephole.ops.dispatch``: which way a batch takes, by device, dtype and size."""

from collections.abc import Iterator

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad

from peephole.ops.dispatch import BACKENDS, FEW, pick, torch_cannot, torch_form
from tests.helpers.errors import raises

KINDS = pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])


@pytest.fixture
def fake() -> Iterator[None]:
    """Devices that this machine need not have."""
    with FakeTensorMode():
        yield


def form(
    kind: str,
    waste: float,
    *,
    steps: int = 2000,
    hidden_size: int = 32,
    training: bool = True,
    projected: bool = False,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> str | None:
    x = torch.empty(steps, 3, dtype=dtype, device=device)
    return torch_form(
        kind, x, waste, hidden_size=hidden_size, projected=projected, training=training
    )


@KINDS
@pytest.mark.usefixtures("fake")
def test_cudnn_takes_a_packed_batch_and_mps_a_padded_one(kind: str) -> None:
    for training in (True, False):
        for waste in (1.0, 8.0):
            assert form(kind, waste, training=training, device="cuda") == "packed"
            assert form(kind, waste, training=training, device="mps") == "padded"


@KINDS
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("hidden_size", [16, 128, 512, 2048])
@pytest.mark.parametrize("steps", [FEW - 1, 2000, 100_000])
def test_a_batch_without_padding_goes_padded_and_one_of_mostly_padding_does_not(
    kind: str, training: bool, hidden_size: int, steps: int
) -> None:
    sizes = {"hidden_size": hidden_size, "steps": steps, "training": training}
    assert form(kind, 1.0, **sizes) == "padded"
    assert form(kind, 20.0, **sizes) != "padded"


@KINDS
def test_to_train_a_ragged_batch_the_reference_is_faster_than_packed(kind: str) -> None:
    assert form(kind, 20.0) is None
    assert form(kind, 20.0, training=False) == "packed"
    assert form(kind, 20.0, steps=FEW - 1) == ("packed" if kind == "gru" else None)


def test_one_dnn_bears_more_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only float32 and bfloat16 LSTMs without a projection run on it.
    for dtype in (torch.float32, torch.bfloat16):
        assert form("lstm", 1.9, dtype=dtype) == "padded"
    assert form("lstm", 1.9, dtype=torch.float64) is None
    assert form("lstm", 1.9, projected=True) is None
    assert form("gru", 1.9) is None
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert form("lstm", 1.9) is None


def test_torch_cannot_follow_a_transform() -> None:
    x = torch.zeros(2, 3)
    assert torch_cannot(x) is None
    why = []
    torch.vmap(lambda row: why.append(torch_cannot(row)) or row)(x)
    with forward_ad.dual_level():
        why.append(torch_cannot(x))
    assert (
        why == ["torch.func and forward-mode derivatives do not reach into torch's operators"] * 2
    )


def test_backends_of_the_ops() -> None:
    assert pick("auto") is pick("reference") is BACKENDS["reference"]
    with raises("backend='cpu'; there are auto, reference"):
        pick("cpu")
    with raises(
        "backend='torch' serves peephole.LSTM, GRU and RNN: torch's operators take a layer's input "
        "and not gates_x; here there are auto, reference"
    ):
        pick("torch")
