"""``peephole.ops.rnn`` against torch.nn."""

import pytest
from torch import nn

from peephole import ops
from tests.helpers.batches import LENGTHS
from tests.helpers.errors import raises
from tests.helpers.marks import DIRECTIONS
from tests.helpers.recurrences import RNN_RELU, RNN_TANH, Recurrence, assert_agree, on_backends
from tests.helpers.torch_nn import torch_nn

FORMS = on_backends({"tanh": RNN_TANH, "relu": RNN_RELU})


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("hidden_size", [1, 3, 17])
@DIRECTIONS
def test_is_torch_s(form: Recurrence, hidden_size: int, reverse: bool) -> None:
    tensors = form.draw(LENGTHS, hidden_size)
    given = form(tensors, reverse=reverse)
    wanted = torch_nn(nn.RNN, tensors, reverse, nonlinearity=form.options["nonlinearity"])
    assert_agree(given, wanted, tensors)


def test_unknown_nonlinearity() -> None:
    with raises("nonlinearity='sigmoid'; there are tanh and relu"):
        ops.rnn(**RNN_TANH.draw(LENGTHS), nonlinearity="sigmoid")
