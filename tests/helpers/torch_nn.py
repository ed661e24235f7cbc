"""What ``torch.nn`` computes for a call of ``peephole.ops``."""

from typing import Any

import torch
from torch import Tensor, nn

from tests.helpers.recurrences import Tensors


def torch_nn(
    kind: type[nn.RNNBase], tensors: Tensors, reverse: bool, **options: Any
) -> tuple[Tensor, ...]:
    """Run ``torch.nn``'s module over one sequence after the other.

    Its input weights are the identity, so that its input is our gates_x. It has no layer that
    only runs in reverse, so that is the second half of a bidirectional one. It takes no empty
    sequence: the final state of one is its initial state, by our definition.

    Returns:
        y, then each final state, as ``peephole.ops`` lays them out.
    """
    module = module_on(kind, tensors, reverse, **options)
    H, D = tensors["weight_hh"].shape[1], 1 + reverse
    initial = [tensors[name] for name in ("h0", "c0") if name in tensors]
    outputs, finals = [], []
    for b, (begin, end) in enumerate(tensors["offsets"].unfold(0, 2, 1).tolist()):
        if begin == end:
            finals.append([s[b] for s in initial])
            continue
        hx = tuple(s[b].expand(D, H) for s in initial)
        y, final = module(tensors["gates_x"][begin:end], hx if len(hx) == 2 else hx[0])
        outputs.append(y[:, -H:])
        finals.append([s[-1] for s in (final if isinstance(final, tuple) else (final,))])
    return torch.cat(outputs), *(torch.stack(s) for s in zip(*finals, strict=True))


def module_on(
    kind: type[nn.RNNBase], tensors: Tensors, bidirectional: bool, **options: Any
) -> nn.RNNBase:
    """A module on our tensors in place of its parameters, so that autograd leads to ours."""
    weight_hh = tensors["weight_hh"]
    GH, H = weight_hh.shape
    bias_hh = weight_hh.new_zeros(GH)
    if "bias_hn" in tensors:
        bias_hh = torch.cat([bias_hh[: 2 * H], tensors["bias_hn"]])
    ours = {
        "weight_ih": torch.eye(GH, dtype=weight_hh.dtype),
        "weight_hh": weight_hh,
        "bias_ih": weight_hh.new_zeros(GH),
        "bias_hh": bias_hh,
    }
    module = kind(GH, H, bidirectional=bidirectional, dtype=weight_hh.dtype, **options)
    for name in list(module._parameters):
        delattr(module, name)
        setattr(module, name, ours[name.split("_l0")[0]])
    return module
