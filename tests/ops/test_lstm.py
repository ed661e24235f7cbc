"""``peephole.ops.lstm`` against torch.nn, the paper and ONNX Runtime."""

import numpy as np
import pytest
import torch
from torch import nn

from peephole import Ragged, ops
from tests.helpers import graves
from tests.helpers.batches import LENGTHS, NONEMPTY
from tests.helpers.errors import raises
from tests.helpers.marks import DIRECTIONS
from tests.helpers.onnx_lstm import onnx_lstm
from tests.helpers.recurrences import (
    DIAGONAL,
    FULL,
    LSTM,
    Recurrence,
    assert_agree,
    on_backends,
)
from tests.helpers.torch_nn import torch_nn

FORMS = on_backends({"none": LSTM, "diagonal": DIAGONAL, "full": FULL})
EVERY_FORM = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
BACKENDS = pytest.mark.parametrize("backend", ["reference", "cpu"])
SIZES = pytest.mark.parametrize("hidden_size", [1, 3, 17])


@SIZES
@DIRECTIONS
@BACKENDS
def test_without_peepholes_is_torch_s(hidden_size: int, reverse: bool, backend: str) -> None:
    tensors = LSTM.draw(LENGTHS, hidden_size)
    given = LSTM(tensors, reverse=reverse, backend=backend)
    assert_agree(given, torch_nn(nn.LSTM, tensors, reverse), tensors)


@EVERY_FORM
@SIZES
@DIRECTIONS
def test_is_graves_2013(form: Recurrence, hidden_size: int, reverse: bool) -> None:
    tensors = form.draw(LENGTHS, hidden_size)
    y, h_n, c_n = (t.detach().numpy() for t in form(tensors, reverse=reverse))
    given = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    W, b = graves.by_gate(np.eye(4 * hidden_size), given["weight_hh"], given.get("weight_ch"))
    for k in range(len(LENGTHS)):
        steps = slice(*given["offsets"][k : k + 2])
        x = given["gates_x"][steps]
        wanted_y, wanted_h, wanted_c = graves.run(
            W, b, x[::-1] if reverse else x, given["h0"][k], given["c0"][k]
        )
        wanted_y = wanted_y[::-1] if reverse else wanted_y
        for ours, wanted in ((y[steps], wanted_y), (h_n[k], wanted_h), (c_n[k], wanted_c)):
            np.testing.assert_allclose(ours, wanted, rtol=1e-10, atol=1e-10)


@SIZES
@DIRECTIONS
@BACKENDS
def test_with_diagonal_peepholes_is_onnx_runtime_s(
    hidden_size: int, reverse: bool, backend: str
) -> None:
    H, inputs = hidden_size, 2
    tensors = DIAGONAL.draw(NONEMPTY, H, torch.float32)
    x = Ragged(torch.randn(sum(NONEMPTY), inputs), tensors["offsets"])
    weight_ih, bias_ih, bias_hh = torch.randn(4 * H, inputs), torch.randn(4 * H), torch.randn(4 * H)
    tensors["gates_x"] = x.values @ weight_ih.t() + bias_ih + bias_hh

    def i_o_f_g(weight: torch.Tensor) -> torch.Tensor:
        """From our gate order, which is i, f, g, o, or for peepholes i, f, o."""
        i, f, *g, o = weight.detach().split(1 if weight is tensors["weight_ch"] else H)
        return torch.cat([i, o, f, *g])

    wanted_y, wanted_h, wanted_c = onnx_lstm(
        x.to_padded(batch_first=False).numpy(),
        np.array(NONEMPTY, np.int32),
        "reverse" if reverse else "forward",
        W=i_o_f_g(weight_ih)[None].numpy(),
        R=i_o_f_g(tensors["weight_hh"])[None].numpy(),
        B=torch.cat([i_o_f_g(bias_ih), i_o_f_g(bias_hh)])[None].numpy(),
        P=i_o_f_g(tensors["weight_ch"]).reshape(1, 3 * H).numpy(),
        initial_h=tensors["h0"].detach()[None].numpy(),
        initial_c=tensors["c0"].detach()[None].numpy(),
    )
    y, h_n, c_n = DIAGONAL(tensors, reverse=reverse, backend=backend)
    wanted_y = Ragged.from_padded(torch.from_numpy(wanted_y), NONEMPTY, batch_first=False).values
    for ours, wanted in ((y, wanted_y), (h_n, wanted_h), (c_n, wanted_c)):
        torch.testing.assert_close(ours.detach(), torch.as_tensor(wanted), rtol=1e-5, atol=1e-5)


@DIRECTIONS
@BACKENDS
def test_full_peepholes_that_are_diagonal_are_diagonal_ones(reverse: bool, backend: str) -> None:
    tensors = DIAGONAL.draw(LENGTHS)
    full = torch.cat([torch.diag(w) for w in tensors["weight_ch"]])
    given = FULL(tensors | {"weight_ch": full}, reverse=reverse, backend=backend)
    assert_agree(given, DIAGONAL(tensors, reverse=reverse, backend=backend), tensors)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (9, 4), (12, 3), (3,), (3, 3, 3)])
def test_wrong_peepholes(shape: tuple[int, ...]) -> None:
    tensors = LSTM.draw(LENGTHS) | {"weight_ch": torch.zeros(shape, dtype=torch.float64)}
    with raises(f"weight_ch must be [3, 3] or [9, 3], got {list(shape)}"):
        ops.lstm(**tensors)


@pytest.mark.usefixtures("unhooked")
def test_wrong_initial_cell() -> None:
    tensors = LSTM.draw(LENGTHS) | {"c0": torch.zeros(5, 3, dtype=torch.float64)}
    with raises("c0 must be [6, 3], got [5, 3]"):
        ops.lstm(**tensors)
