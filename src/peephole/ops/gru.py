"""The GRU as a function over a ragged batch."""

from jaxtyping import Float, Int
from torch import Tensor

from peephole.ops.checks import check_recurrence, check_shape, zeros_if_none
from peephole.ops.dispatch import pick


def gru(
    gates_x: Float[Tensor, "N GH"],
    offsets: Int[Tensor, "B_plus_1"],
    weight_hh: Float[Tensor, "GH H"],
    *,
    bias_hn: Float[Tensor, "H"] | None = None,
    h0: Float[Tensor, "B H"] | None = None,
    reverse: bool = False,
    backend: str = "auto",
) -> tuple[Float[Tensor, "N H"], Float[Tensor, "B H"]]:
    """Gated recurrent unit: Cho et al. 2014, in the form of ``torch.nn.GRU``.

    The equations themselves are in ``peephole/ops/reference/gru.py``.

    Args:
        gates_x: the input's part of the gates' sums, W_x x + b, with all biases but ``bias_hn``;
            gates in the order r, z, n.
        offsets: where each of the B sequences begins and ends, as in ``peephole.Ragged``.
        weight_hh: the recurrent weights, gates in the same order.
        bias_hn: the bias of n's recurrent part, which the reset gate scales; none if None.
        h0: the initial output; zeros if None.
        reverse: run each sequence from its own last step to its first. The output stays in the
            order of the input.
        backend: "auto" or "reference".

    Returns:
        The output h at every step, and each sequence's final h: its initial one where it is
        empty.

    Raises:
        ValueError: as ``peephole.ops.lstm``.
    """
    B, H = check_recurrence(gates_x, offsets, weight_hh, 3, bias_hn=bias_hn, h0=h0)
    check_shape("bias_hn", bias_hn, (H,))
    check_shape("h0", h0, (B, H))
    y, h_n = pick(backend).gru(
        gates_x,
        offsets,
        weight_hh,
        bias_hn=bias_hn,
        h0=zeros_if_none(h0, gates_x, (B, H)),
        reverse=reverse,
    )
    return y, h_n
