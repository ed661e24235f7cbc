"""``peephole.ops.gru`` against torch.nn."""

import pytest
import torch
from torch import nn

from peephole import ops
from tests.helpers.batches import LENGTHS
from tests.helpers.errors import raises
from tests.helpers.marks import DIRECTIONS
from tests.helpers.recurrences import GRU, GRU_BIAS, Recurrence, assert_agree, on_backends
from tests.helpers.torch_nn import torch_nn

FORMS = on_backends({"no bias_hn": GRU, "bias_hn": GRU_BIAS})


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("hidden_size", [1, 3, 17])
@DIRECTIONS
def test_is_torch_s(form: Recurrence, hidden_size: int, reverse: bool) -> None:
    tensors = form.draw(LENGTHS, hidden_size)
    given = form(tensors, reverse=reverse)
    assert_agree(given, torch_nn(nn.GRU, tensors, reverse), tensors)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize("shape", [(4,), (9,), (1, 3)])
def test_wrong_bias_hn(shape: tuple[int, ...]) -> None:
    tensors = GRU.draw(LENGTHS) | {"bias_hn": torch.zeros(shape, dtype=torch.float64)}
    with raises(f"bias_hn must be [3], got {list(shape)}"):
        ops.gru(**tensors)
