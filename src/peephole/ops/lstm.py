"""The LSTM as a function over a ragged batch."""

from typing import Any

from jaxtyping import Float, Int, Shaped
from torch import Tensor

from peephole.offsets import Layout
from peephole.ops.checks import check_recurrence, check_shape, check_zoneout
from peephole.ops.serve import serve


def lstm(
    gates_x: Float[Tensor, "N GH"],
    offsets: Int[Tensor, "B_plus_1"],
    weight_hh: Float[Tensor, "GH P"],
    *,
    weight_ch: Float[Tensor, "K H"] | None = None,
    weight_hr: Float[Tensor, "P H"] | None = None,
    weight_ln_hh: Float[Tensor, "GH"] | None = None,
    weight_ln_c: Float[Tensor, "H"] | None = None,
    bias_ln_c: Float[Tensor, "H"] | None = None,
    h0: Float[Tensor, "B P"] | None = None,
    c0: Float[Tensor, "B H"] | None = None,
    recurrent_mask: Float[Tensor, "B P"] | None = None,
    zoneout_h: Shaped[Tensor, "N P"] | float | None = None,
    zoneout_c: Shaped[Tensor, "N H"] | float | None = None,
    cell_clip: float | None = None,
    coupled: bool = False,
    reverse: bool = False,
    return_states: bool = False,
    backend: str = "auto",
) -> tuple[Any, ...]:
    """Long short-term memory with or without peepholes: Graves 2013, equations 7 to 11.

    The equations themselves are in ``peephole/ops/reference/lstm.py``. G is 4, or 3 if coupled;
    P is the width of h: H, but for a projection.

    Args:
        gates_x: the input's part of the gates' sums, W_x x + b, biases included; gates in the
            order i, f, g, o, or i, g, o if coupled.
        offsets: where each of the B sequences begins and ends, as in ``peephole.Ragged``.
        weight_hh: the recurrent weights, gates in the same order, as in ``torch.nn.LSTM``.
        weight_ch: the peepholes, gates in the order i, f, o, or i, o if coupled: ``[3, H]`` for
            diagonal ones, ``[3 * H, H]`` for full matrices, None for none. i and f look at
            c(t-1), o at c(t).
        weight_hr: the projection of h, as in ``torch.nn.LSTM`` (Sak et al. 2014).
        weight_ln_hh: normalize W_h h over all gates, and scale it by this (Ba et al. 2016,
            equation 20, its biases being among those of ``gates_x``).
        weight_ln_c: normalize c(t) where h(t) looks at it, and scale it by this (equation 22).
        bias_ln_c: added there.
        h0: the initial output; zeros if None.
        c0: the initial cell; zeros if None.
        recurrent_mask: multiplies h(t-1) where the gates look at it, the same in all steps of a
            sequence (Gal & Ghahramani 2016).
        zoneout_h: share of the old h that stays (Krueger et al. 2017): a mask with a row for
            each row of ``gates_x``, or one number from 0 to 1.
        zoneout_c: the same for the cell.
        cell_clip: the cell is held within plus and minus this.
        coupled: f = 1 - i (Greff et al. 2017).
        reverse: run each sequence from its own last step to its first. The output stays in the
            order of the input.
        return_states: give all gates and cells too.
        backend: "auto", "cpu" or "reference".

    Returns:
        The output h at every step ``[N, P]``, and each sequence's final (h ``[B, P]``,
        c ``[B, H]``): its initial state where it is empty. With ``return_states`` a third: the
        gates after their nonlinearities ``[N, G * H]``, and the cells ``[N, H]``.

    Raises:
        ValueError: shapes, dtypes or devices that do not agree, offsets that do not cut
            ``gates_x`` into sequences, a number out of range, or an unknown backend.
    """
    gates = 3 if coupled else 4
    B, H, P = check_recurrence(
        gates_x,
        offsets,
        weight_hh,
        gates,
        projected=weight_hr is not None,
        weight_ch=weight_ch,
        weight_hr=weight_hr,
        weight_ln_hh=weight_ln_hh,
        weight_ln_c=weight_ln_c,
        bias_ln_c=bias_ln_c,
        h0=h0,
        c0=c0,
        recurrent_mask=recurrent_mask,
    )
    N = gates_x.shape[0]
    check_shape("weight_ch", weight_ch, (gates - 1, H), ((gates - 1) * H, H))
    check_shape("weight_hr", weight_hr, (P, H))
    check_shape("weight_ln_hh", weight_ln_hh, (gates * H,))
    check_shape("weight_ln_c", weight_ln_c, (H,))
    check_shape("bias_ln_c", bias_ln_c, (H,))
    check_shape("h0", h0, (B, P))
    check_shape("c0", c0, (B, H))
    check_shape("recurrent_mask", recurrent_mask, (B, P))
    check_zoneout("zoneout_h", zoneout_h, gates_x, (N, P))
    check_zoneout("zoneout_c", zoneout_c, gates_x, (N, H))
    if bias_ln_c is not None and weight_ln_c is None:
        raise ValueError("bias_ln_c goes with weight_ln_c, which is None")
    if cell_clip is not None and not cell_clip > 0:
        raise ValueError(f"cell_clip={cell_clip}; it must be more than 0, or None")
    y, final, states = serve(
        "lstm",
        backend,
        gates_x,
        Layout(offsets),
        {
            "weight_hh": weight_hh,
            "weight_ch": weight_ch,
            "weight_hr": weight_hr,
            "weight_ln_hh": weight_ln_hh,
            "weight_ln_c": weight_ln_c,
            "bias_ln_c": bias_ln_c,
            "h0": h0,
            "c0": c0,
            "recurrent_mask": recurrent_mask,
        },
        {"h0": P, "c0": H},
        zoneout_h=zoneout_h,
        zoneout_c=zoneout_c,
        cell_clip=cell_clip,
        coupled=coupled,
        reverse=reverse,
        return_states=return_states,
    )
    return (y, final, states) if return_states else (y, final)
