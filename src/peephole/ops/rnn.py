"""The simple recurrent network as a function over a ragged batch."""

from jaxtyping import Float, Int
from torch import Tensor

from peephole.ops.checks import check_recurrence, check_shape, zeros_if_none
from peephole.ops.dispatch import pick


def rnn(
    gates_x: Float[Tensor, "N H"],
    offsets: Int[Tensor, "B_plus_1"],
    weight_hh: Float[Tensor, "H H"],
    *,
    nonlinearity: str = "tanh",
    h0: Float[Tensor, "B H"] | None = None,
    reverse: bool = False,
    backend: str = "auto",
) -> tuple[Float[Tensor, "N H"], Float[Tensor, "B H"]]:
    """Simple recurrent network: Elman 1990.

    The equation itself is in ``peephole/ops/reference/rnn.py``.

    Args:
        gates_x: the input's part of the sum, W_x x + b, biases included.
        offsets: where each of the B sequences begins and ends, as in ``peephole.Ragged``.
        weight_hh: the recurrent weights.
        nonlinearity: "tanh" or "relu".
        h0: the initial output; zeros if None.
        reverse: run each sequence from its own last step to its first. The output stays in the
            order of the input.
        backend: "auto" or "reference".

    Returns:
        The output h at every step, and each sequence's final h: its initial one where it is
        empty.

    Raises:
        ValueError: an unknown nonlinearity, and as ``peephole.ops.lstm``.
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity={nonlinearity!r}; there are tanh and relu")
    B, H = check_recurrence(gates_x, offsets, weight_hh, 1, h0=h0)
    check_shape("h0", h0, (B, H))
    y, h_n = pick(backend).rnn(
        gates_x,
        offsets,
        weight_hh,
        nonlinearity=nonlinearity,
        h0=zeros_if_none(h0, gates_x, (B, H)),
        reverse=reverse,
    )
    return y, h_n
