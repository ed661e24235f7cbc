"""The GRU as a function over a ragged batch."""

from typing import Any

from jaxtyping import Float, Int, Shaped
from torch import Tensor

from peephole.offsets import Layout
from peephole.ops.checks import check_recurrence, check_shape, check_zoneout
from peephole.ops.serve import serve


def gru(
    gates_x: Float[Tensor, "N GH"],
    offsets: Int[Tensor, "B_plus_1"],
    weight_hh: Float[Tensor, "GH H"],
    *,
    bias_hn: Float[Tensor, "H"] | None = None,
    weight_ln_hh: Float[Tensor, "GH"] | None = None,
    h0: Float[Tensor, "B H"] | None = None,
    recurrent_mask: Float[Tensor, "B H"] | None = None,
    zoneout_h: Shaped[Tensor, "N H"] | float | None = None,
    reverse: bool = False,
    return_states: bool = False,
    backend: str = "auto",
) -> tuple[Any, ...]:
    """Gated recurrent unit: Cho et al. 2014, in the form of ``torch.nn.GRU``.

    The equations themselves are in ``peephole/ops/reference/gru.py``.

    Args:
        gates_x: the input's part of the gates' sums, W_x x + b, with all biases but ``bias_hn``;
            gates in the order r, z, n.
        offsets: where each of the B sequences begins and ends, as in ``peephole.Ragged``.
        weight_hh: the recurrent weights, gates in the same order.
        bias_hn: the bias of n's recurrent part, which the reset gate scales; none if None.
        weight_ln_hh: normalize W_h h, r and z together and n by itself, and scale it by this
            (Ba et al. 2016, equations 25 to 27).
        h0: the initial output; zeros if None.
        recurrent_mask: multiplies h(t-1) where the gates look at it, the same in all steps of a
            sequence (Gal & Ghahramani 2016); what z keeps of h is not masked.
        zoneout_h: share of the old h that stays (Krueger et al. 2017): a mask with a row for
            each row of ``gates_x``, or one number from 0 to 1.
        reverse: run each sequence from its own last step to its first. The output stays in the
            order of the input.
        return_states: give all gates too.
        backend: "auto", "cpu" or "reference".

    Returns:
        The output h at every step, and each sequence's final h: its initial one where it is
        empty. With ``return_states`` a third: the gates after their nonlinearities ``[N, 3H]``.

    Raises:
        ValueError: as ``peephole.ops.lstm``.
    """
    B, H, _ = check_recurrence(
        gates_x,
        offsets,
        weight_hh,
        3,
        bias_hn=bias_hn,
        weight_ln_hh=weight_ln_hh,
        h0=h0,
        recurrent_mask=recurrent_mask,
    )
    check_shape("bias_hn", bias_hn, (H,))
    check_shape("weight_ln_hh", weight_ln_hh, (3 * H,))
    check_shape("h0", h0, (B, H))
    check_shape("recurrent_mask", recurrent_mask, (B, H))
    check_zoneout("zoneout_h", zoneout_h, gates_x, (gates_x.shape[0], H))
    y, (h_n,), states = serve(
        "gru",
        backend,
        gates_x,
        Layout(offsets),
        {
            "weight_hh": weight_hh,
            "bias_hn": bias_hn,
            "weight_ln_hh": weight_ln_hh,
            "h0": h0,
            "recurrent_mask": recurrent_mask,
        },
        {"h0": H},
        zoneout_h=zoneout_h,
        reverse=reverse,
        return_states=return_states,
    )
    return (y, h_n, *states)
