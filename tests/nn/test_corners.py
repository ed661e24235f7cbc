"""Corners where something else than the equations could decide the numbers."""

from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

import peephole
from peephole import Ragged
from tests.helpers.errors import raises
from tests.helpers.graphs import traceable  # noqa: F401


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [3e4, -3e4, 1e9, -1e9])
@pytest.mark.parametrize("gate", [slice(0, 2), slice(2, 4)], ids=["i", "f"])
def test_a_gate_that_is_held_open_or_shut_is_so_in_padding_too(
    gate: slice, size: float, dtype: torch.dtype
) -> None:
    layer = peephole.LSTM(3, 2, backend="torch", dtype=dtype)
    reference = peephole.LSTM(3, 2, backend="reference", dtype=dtype)
    with torch.no_grad():
        layer.bias_ih_l0[gate] = size
    reference.load_state_dict(layer.state_dict())
    x = torch.randn(9, 4, 3, dtype=dtype)
    state = torch.randn(2, 1, 4, 2, dtype=dtype).unbind()
    with torch.no_grad():
        given, wanted = (each(x, state, [9, 8, 9, 7]) for each in (layer, reference))
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
    for a, b in zip(given[1], wanted[1], strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_what_ran_on_fake_tensors_leaves_none_behind() -> None:
    cell = peephole.GRUCell(3, 4, zoneout=0.1).eval()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        cell(mode.from_tensor(torch.randn(6, 3)))
    assert type(cell(torch.randn(6, 3))) is torch.Tensor


def test_offsets_are_a_copy_that_their_maker_cannot_change() -> None:
    offsets = torch.tensor([0, 2, 5])
    batch = Ragged(torch.randn(5, 3), offsets)
    offsets[1] = 4
    assert batch.lengths.tolist() == [2, 3]


def test_a_batch_cut_in_inference_mode_serves_training() -> None:
    batch = Ragged(torch.randn(5, 3), torch.tensor([0, 2, 5]))
    with torch.inference_mode():
        part = batch[0:1]
    values = torch.randn(2, 3, requires_grad=True)
    part.with_values(values).last().sum().backward()
    assert values.grad is not None


def test_zoneout_of_nothing_is_no_zoneout() -> None:
    layer = peephole.LSTM(3, 4, zoneout=(0.0, 0.0), backend="torch")
    assert layer.zoneout == 0
    assert isinstance(layer.to_torch(), nn.LSTM)


def test_an_ensemble_trains_with_zoneout() -> None:
    layer = peephole.GRU(3, 4, 2, zoneout=0.5)
    stacked, _ = torch.func.stack_module_state([layer, layer])
    x = torch.randn(5, 2, 3)

    def run(parameters: dict[str, torch.Tensor]) -> Any:
        return torch.func.functional_call(layer, parameters, (x,))[0]

    first, second = torch.vmap(run, randomness="different")(stacked)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("how", ["orthogonal", ("chrono", 70000)], ids=["orthogonal", "chrono"])
def test_initializations_in_every_dtype(how: Any, dtype: torch.dtype) -> None:
    layer = peephole.LSTM(3, 4, initialization=how, dtype=dtype)
    weight = layer.weight_hh_l0.detach().double()
    assert all(parameter.isfinite().all() for parameter in layer.parameters())
    if how == "orthogonal":
        for block in weight.split(4):
            torch.testing.assert_close(
                block.T @ block, torch.eye(4, dtype=torch.float64), rtol=0, atol=0.03
            )


def test_states_of_a_persons_cell_have_one_dtype_under_autocast() -> None:
    layer = peephole.Recurrent(peephole.LSTMCell(3, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for lengths in ([3, 2], [3, 0], [0, 0]):
            _, (h, c) = layer(torch.randn(3, 2, 3), None, lengths)
            wanted = torch.bfloat16 if any(lengths) else h.dtype
            assert h.dtype == c.dtype == wanted


def test_a_schedule_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    from peephole.nn.layer import _log_choice

    _log_choice.cache_clear()
    layer = peephole.LSTM(3, 4, zoneout=0.1, layer_norm=True)
    with caplog.at_level("INFO", "peephole"):
        for k in range(5):
            layer.zoneout = 0.1 + k / 10
            layer(torch.randn(5, 2, 3))
    assert [record.getMessage() for record in caplog.records] == [
        "peephole.LSTM runs on the reference backend: the compiled kernels have no layer "
        "normalization"
    ]


def test_recurrent_checks_what_it_is_made_of() -> None:
    with raises("there must be at least one cell"):
        peephole.Recurrent([])


@pytest.mark.usefixtures("unhooked")
def test_recurrent_s_flags_are_flags() -> None:
    with raises("skip should be of type bool, got: str", TypeError):
        peephole.Recurrent(peephole.GRUCell(3, 4), skip="no")


# torch's own, within jvp.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.usefixtures("traceable")
def test_forward_mode_is_refused_by_a_graph_rather_than_zero() -> None:
    layer, x, size = peephole.LSTM(3, 4), torch.randn(5, 2, 3), torch.export.Dim
    shapes = [[size.DYNAMIC, size.DYNAMIC, size.STATIC]]
    program = torch.export.export(layer, (x,), dynamic_shapes=shapes).module()
    with pytest.raises(RuntimeError, match="backend='reference' has them"):
        torch.func.jvp(lambda z: program(z)[0], (x,), (torch.ones_like(x),))

    def derivative(z: torch.Tensor) -> torch.Tensor:
        tangent: torch.Tensor = torch.func.jvp(lambda q: layer(q)[0], (z,), (z,))[1]
        return tangent

    torch._dynamo.reset()
    with pytest.raises(Exception, match="backend='reference' has them"):
        torch.compile(derivative, backend="aot_eager", fullgraph=True)(x)


# torch's own, while it traces.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.usefixtures("traceable")
@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_compiled_autograd_gets_gradients_and_not_zeros(name: str) -> None:
    """A graph of the backward pass alone would hold what allocates, but not what computes."""
    layer, x = getattr(peephole, name)(3, 4), torch.randn(5, 2, 3)
    wanted = torch.autograd.grad(layer(x)[0].sum(), list(layer.parameters()))
    torch._dynamo.reset()
    compiler = torch.compile(backend="aot_eager")
    total = layer(x)[0].sum()
    with torch._dynamo.compiled_autograd._enable(compiler):
        total.backward()
    for parameter, d_wanted in zip(layer.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, d_wanted)
