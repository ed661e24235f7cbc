"""What every recurrence checks before it computes."""

import torch
from torch import Tensor

from peephole.offsets import check_offsets


def check_recurrence(
    gates_x: Tensor,
    offsets: Tensor,
    weight_hh: Tensor,
    gates: int,
    *,
    projected: bool = False,
    **others: Tensor | None,
) -> tuple[int, int, int]:
    """Check what all recurrences share, and give B, H and the width of h.

    Args:
        gates_x: ``[N, gates * H]``, floating point.
        offsets: ``[B + 1]``, see ``peephole.Ragged``.
        weight_hh: ``[gates * H, P]``; it tells H and P.
        gates: gates per hidden unit.
        projected: whether h may be narrower than H; else P is H.
        others: further tensors, by the name in the caller's signature, that must share the dtype
            and device of ``gates_x``.

    Raises:
        ValueError: names the argument that does not fit, what it is and what it must be.
    """
    if weight_hh.dim() != 2 or weight_hh.shape[0] % gates:
        raise ValueError(
            f"weight_hh must be [{gates} * H, H] with H hidden units, got {list(weight_hh.shape)}"
        )
    H, P = weight_hh.shape[0] // gates, weight_hh.shape[1]
    if P != H and not projected:
        raise ValueError(
            f"weight_hh must be [{gates} * H, H] with H hidden units, got {list(weight_hh.shape)}"
        )
    if gates_x.dim() != 2 or gates_x.shape[1] != gates * H:
        raise ValueError(
            f"gates_x must be [N, {gates * H}] to go with weight_hh {list(weight_hh.shape)}, "
            f"got {list(gates_x.shape)}"
        )
    if not gates_x.dtype.is_floating_point:
        raise ValueError(f"gates_x must be floating point, got {gates_x.dtype}")
    check_offsets(offsets, gates_x)
    for name, tensor in {"weight_hh": weight_hh, **others}.items():
        if tensor is None:
            continue
        for what, given, wanted in (
            ("dtype", tensor.dtype, gates_x.dtype),
            ("device", tensor.device, gates_x.device),
        ):
            if given != wanted:
                raise ValueError(
                    f"{name} has {what} {given}, but gates_x has {wanted}; all must agree"
                )
    return offsets.shape[0] - 1, H, P


def check_shape(name: str, tensor: Tensor | None, *allowed: tuple[int, ...]) -> None:
    """Raise ValueError unless ``tensor`` is None or has one of the allowed shapes."""
    if tensor is not None and tuple(tensor.shape) not in allowed:
        shapes = " or ".join(str(list(shape)) for shape in allowed)
        raise ValueError(f"{name} must be {shapes}, got {list(tensor.shape)}")


def check_zoneout(
    name: str, zoneout: Tensor | float | None, like: Tensor, shape: tuple[int, int]
) -> None:
    """Raise ValueError unless it is a mask with a row a step, a number from 0 to 1, or None."""
    if isinstance(zoneout, Tensor):
        check_shape(name, zoneout, shape)
        if zoneout.dtype not in (torch.bool, like.dtype):
            raise ValueError(f"{name} has dtype {zoneout.dtype}; it must be bool or {like.dtype}")
        if zoneout.device != like.device:
            raise ValueError(f"{name} has device {zoneout.device}, but gates_x has {like.device}")
    elif zoneout is not None and not 0 <= zoneout <= 1:
        raise ValueError(f"{name}={zoneout}; it must be from 0 to 1, or a mask {list(shape)}")
