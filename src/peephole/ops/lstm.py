"""The LSTM as a function over a ragged batch."""

from jaxtyping import Float, Int
from torch import Tensor

from peephole.ops.checks import check_recurrence, check_shape, zeros_if_none
from peephole.ops.dispatch import pick


def lstm(
    gates_x: Float[Tensor, "N GH"],
    offsets: Int[Tensor, "B_plus_1"],
    weight_hh: Float[Tensor, "GH H"],
    *,
    weight_ch: Float[Tensor, "K H"] | None = None,
    h0: Float[Tensor, "B H"] | None = None,
    c0: Float[Tensor, "B H"] | None = None,
    reverse: bool = False,
    backend: str = "auto",
) -> tuple[Float[Tensor, "N H"], tuple[Float[Tensor, "B H"], Float[Tensor, "B H"]]]:
    """Long short-term memory with or without peepholes: Graves 2013, equations 7 to 11.

    The equations themselves are in ``peephole/ops/reference/lstm.py``.

    Args:
        gates_x: the input's part of the gates' sums, W_x x + b, biases included; gates in the
            order i, f, g, o.
        offsets: where each of the B sequences begins and ends, as in ``peephole.Ragged``.
        weight_hh: the recurrent weights, gates in the same order, as in ``torch.nn.LSTM``.
        weight_ch: the peepholes, gates in the order i, f, o: ``[3, H]`` for diagonal ones,
            ``[3 * H, H]`` for full matrices, None for none. i and f look at c(t-1), o at c(t).
        h0: the initial output; zeros if None.
        c0: the initial cell; zeros if None.
        reverse: run each sequence from its own last step to its first. The output stays in the
            order of the input.
        backend: "auto" or "reference".

    Returns:
        The output h at every step, and each sequence's final (h, c): its initial state where it
        is empty.

    Raises:
        ValueError: shapes, dtypes or devices that do not agree, offsets that do not cut
            ``gates_x`` into sequences, or an unknown backend.
    """
    B, H = check_recurrence(gates_x, offsets, weight_hh, 4, weight_ch=weight_ch, h0=h0, c0=c0)
    check_shape("weight_ch", weight_ch, (3, H), (3 * H, H))
    check_shape("h0", h0, (B, H))
    check_shape("c0", c0, (B, H))
    y, state = pick(backend).lstm(
        gates_x,
        offsets,
        weight_hh,
        weight_ch=weight_ch,
        h0=zeros_if_none(h0, gates_x, (B, H)),
        c0=zeros_if_none(c0, gates_x, (B, H)),
        reverse=reverse,
    )
    return y, state
