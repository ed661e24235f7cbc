"""The simple recurrent network as a function over a ragged batch."""

from jaxtyping import Float, Int, Shaped
from torch import Tensor

from peephole.offsets import Layout
from peephole.ops.checks import check_recurrence, check_shape, check_zoneout
from peephole.ops.serve import serve


def rnn(
    gates_x: Float[Tensor, "N H"],
    offsets: Int[Tensor, "B_plus_1"],
    weight_hh: Float[Tensor, "H H"],
    *,
    nonlinearity: str = "tanh",
    weight_ln_hh: Float[Tensor, "H"] | None = None,
    h0: Float[Tensor, "B H"] | None = None,
    recurrent_mask: Float[Tensor, "B H"] | None = None,
    zoneout_h: Shaped[Tensor, "N H"] | float | None = None,
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
        weight_ln_hh: normalize W_h h and scale it by this, as the gates of Ba et al. 2016,
            equation 20. (Their equation 4, for this network, normalizes the whole sum.)
        h0: the initial output; zeros if None.
        recurrent_mask: multiplies h(t-1), the same in all steps of a sequence (Gal & Ghahramani
            2016).
        zoneout_h: share of the old h that stays (Krueger et al. 2017): a mask with a row for
            each row of ``gates_x``, or one number from 0 to 1.
        reverse: run each sequence from its own last step to its first. The output stays in the
            order of the input.
        backend: "auto", "cpu" or "reference".

    Returns:
        The output h at every step, and each sequence's final h: its initial one where it is
        empty.

    Raises:
        ValueError: an unknown nonlinearity, and as ``peephole.ops.lstm``.
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity={nonlinearity!r}; there are tanh and relu")
    B, H, _ = check_recurrence(
        gates_x,
        offsets,
        weight_hh,
        1,
        weight_ln_hh=weight_ln_hh,
        h0=h0,
        recurrent_mask=recurrent_mask,
    )
    check_shape("weight_ln_hh", weight_ln_hh, (H,))
    check_shape("h0", h0, (B, H))
    check_shape("recurrent_mask", recurrent_mask, (B, H))
    check_zoneout("zoneout_h", zoneout_h, gates_x, (gates_x.shape[0], H))
    y, (h_n,), _ = serve(
        "rnn",
        backend,
        gates_x,
        Layout(offsets),
        {
            "weight_hh": weight_hh,
            "weight_ln_hh": weight_ln_hh,
            "h0": h0,
            "recurrent_mask": recurrent_mask,
        },
        {"h0": H},
        nonlinearity=nonlinearity,
        zoneout_h=zoneout_h,
        reverse=reverse,
    )
    return y, h_n
