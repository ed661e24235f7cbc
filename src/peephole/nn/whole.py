"""Input that ``torch.nn`` takes, on its operators, all layers and directions in one call.

Who changes an import and nothing else comes through here, so nothing is done twice: what does not
fit is left to the general way, which says what is wrong with it.
"""

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from peephole.nn.autocast import is_cast
from peephole.ops import BACKENDS, FEW, choose, is_training, torch_cannot
from peephole.ops import torch as torch_backend

if TYPE_CHECKING:
    from peephole.nn.layer import Layer

State = tuple[Tensor, ...]


def run_whole(
    layer: "Layer", input: Any, hx: Any, weights: list[dict[str, Tensor]]
) -> tuple[Any, Any] | None:
    """The output and the final state as ``torch.nn`` gives them; None where it must go otherwise.

    Args:
        layer: one whose options ``torch.nn`` has too.
        input: anything.
        hx: the initial state, anything.
        weights: of each direction, by name.
    """
    packed = isinstance(input, PackedSequence)
    x = input.data if packed else input
    if not isinstance(x, Tensor) or x.is_nested or not _fits(layer, x, weights[0]["weight_ih"]):
        return None
    if packed:
        if x.dim() != 2:
            return None
        T, B = input.batch_sizes.shape[0], int(input.batch_sizes[0])
    elif x.dim() == 3:
        T, B = (x.shape[1], x.shape[0]) if layer.batch_first else (x.shape[0], x.shape[1])
    elif x.dim() == 2:
        T, B = x.shape[0], 1
    else:
        return None
    steps = x.shape[0] if packed else B * T
    batched = packed or x.dim() == 3
    state = _state(layer, hx, B, batched, x)
    if not steps or state is None:
        return None
    training = is_training(x, weights, *state)
    way, why = choose(
        layer.backend,
        layer.name,
        x,
        lambda: B * T / steps,
        weights[0],
        is_torchs=True,
        training=training,
        padded=not packed,
    )
    if packed and steps < FEW and torch_cannot() is None:
        # Where another way is faster, unpacking takes longer than it wins.
        way = "packed"
    if way in BACKENDS or (packed and way != "packed"):
        return None
    if packed and hx is not None and input.sorted_indices is not None:
        state = tuple(s.index_select(1, input.sorted_indices) for s in state)
    y, final = torch_backend.whole(
        (layer.name, layer.recurrence_options().get("nonlinearity")),
        x if batched else x.unsqueeze(1),
        input.batch_sizes if packed else None,
        state,
        [weight for each in weights for weight in each.values()],
        layer.bias,
        layer.num_layers,
        layer.dropout,
        layer.training,
        layer.bidirectional,
        layer.batch_first and batched,
    )
    layer.note_backend("torch", why)
    if packed and input.unsorted_indices is not None:
        final = tuple(s.index_select(1, input.unsorted_indices) for s in final)
    if not batched:
        y, final = y.squeeze(1), tuple(s.squeeze(1) for s in final)
    return PackedSequence(y, *input[1:]) if packed else y, final if len(final) > 1 else final[0]


def _fits(layer: "Layer", x: Tensor, weight: Tensor) -> bool:
    return (
        x.shape[-1:] == (layer.input_size,)
        and x.dtype == weight.dtype
        and x.device == weight.device
        and not is_cast(x)
    )


def _state(layer: "Layer", hx: Any, sequences: int, batched: bool, x: Tensor) -> State | None:
    """The initial states ``[L * D, B, width]``; None if what was given does not fit."""
    rows = layer.num_layers * (1 + layer.bidirectional)
    sizes = layer.state_sizes(layer.widths[0])
    if hx is None:
        zeros = x.new_zeros(rows, sequences, sizes[0])
        # One tensor does for both where they are alike.
        return tuple(
            zeros if size == sizes[0] else x.new_zeros(rows, sequences, size) for size in sizes
        )
    given = (hx,) if len(sizes) == 1 else hx
    if not isinstance(given, tuple) or len(given) != len(sizes):
        return None
    for state, size in zip(given, sizes, strict=True):
        shape = (rows, sequences, size) if batched else (rows, size)
        if not isinstance(state, Tensor) or state.shape != shape:
            return None
        if state.dtype != x.dtype or state.device != x.device:
            return None
    return given if batched else tuple(s.unsqueeze(1) for s in given)
