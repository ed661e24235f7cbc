"""A fourth kind of recurrence: it is one new file, here the first part of this one.

A minimal gated unit (Zhou et al. 2016, equations 6 to 8) as a kind has everything that the other
three have: directions, stacking, dropped units, every form of input, compiled graphs, cells.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

import peephole
from peephole import Ragged, ops
from peephole.nn.cell import Cell
from peephole.nn.kind import Kind
from peephole.nn.layer import Layer
from peephole.ops import Found, scan
from tests.helpers.batches import LENGTHS, NONEMPTY
from tests.helpers.layerwise import random_batch, randomized, spy_on_masks

# The new file.


def mgu(x: Tensor, layout: Any, tensors: Any, options: Any) -> Found:
    W_f, W_h = tensors["weight_hh"].chunk(2)
    b_f, b_h = tensors["bias_hh"].chunk(2) if "bias_hh" in tensors else (None, None)
    gates_x = F.linear(x, tensors["weight_ih"], tensors.get("bias_ih"))

    def step(x: Tensor, zone: Any, h: Tensor, m: Tensor | None) -> Any:
        x_f, x_h = x.chunk(2, 1)
        seen = h if m is None else m * h
        f = torch.sigmoid(x_f + F.linear(seen, W_f, b_f))
        new = torch.tanh(x_h + F.linear(f * seen, W_h, b_h))
        new = (1 - f) * h + f * new
        h = new if zone is None else zone * h + (1 - zone) * new
        return (h, torch.cat([f, new], 1)), (h,)

    zone = tensors.get("zoneout_h", options.get("zoneout_h"))
    zone = zone.to(x.dtype) if isinstance(zone, Tensor) else zone
    (y, gates), final = scan(
        step,
        (gates_x, zone),
        layout,
        (tensors["h0"],),
        constants=(tensors.get("recurrent_mask"),),
        reverse=options["reverse"],
    )
    return Found(y, final, gates if options["return_states"] else None)


class MGUKind(Kind):
    name = "mgu"
    gates = ("f", "h")
    recurrence = staticmethod(mgu)


class MGU(MGUKind, Layer):
    def __init__(
        self,
        input_size: int,
        hidden_size: Any,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            0,
            None,
            None,
            **options,
        )


class MGUCell(MGUKind, Cell):
    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, **options: Any
    ) -> None:
        super().__init__(input_size, hidden_size, bias, None, None, **options)


# What follows are the tests.


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    """Other test files see three kinds."""
    ops.RECURRENCES["mgu"] = mgu
    yield
    del ops.RECURRENCES["mgu"]


del ops.RECURRENCES["mgu"]


class Plain(nn.Module):
    """The same weights, one sequence and one step at a time."""

    def __init__(self, layer: nn.Module, suffix: str) -> None:
        super().__init__()
        named = dict(layer.named_parameters())
        self.W = {n: named[n + suffix] for n in ("weight_ih", "weight_hh")}
        H2 = len(self.W["weight_hh"])
        for n in ("bias_ih", "bias_hh"):
            self.W[n] = named.get(n + suffix, torch.zeros(H2, dtype=torch.float64))
        self.h0 = named.get(f"h_0{suffix}")

    def run(
        self,
        x: Ragged,
        h0: Tensor | None,
        reverse: bool,
        mask: Tensor | None = None,
        zone: Any = 0.0,
    ) -> tuple[Tensor, Tensor]:
        U, W = self.W["weight_ih"], self.W["weight_hh"]
        H = W.shape[1]
        h0 = h0 if h0 is not None else (self.h0 if self.h0 is not None else U.new_zeros(H))
        ends, y = [], x.values.new_empty(len(x.values), H)
        rows = []
        values = []
        for b in range(len(x)):
            h = h0.expand(len(x), H)[b]
            m = 1.0 if mask is None else mask[b]
            steps = range(*x.offsets[b : b + 2].tolist())
            for n in reversed(steps) if reverse else steps:
                a = U @ x.values[n] + self.W["bias_ih"] + self.W["bias_hh"]
                f = torch.sigmoid(a[:H] + W[:H] @ (m * h))
                new = (1 - f) * h + f * torch.tanh(a[H:] + W[H:] @ (f * m * h))
                z = zone[n].double() if isinstance(zone, Tensor) else zone
                h = z * h + (1 - z) * new
                rows.append(n)
                values.append(h)
            ends.append(h)
        if rows:
            y = y.index_copy(0, torch.tensor(rows), torch.stack(values))
        return y, torch.stack(ends)


def by_hand(
    layer: Any, x: Ragged, hx: Tensor | None = None, masks: Any = None, zone: Any = 0.0
) -> tuple[Tensor, list[Tensor]]:
    """All layers and directions."""
    D = 1 + layer.bidirectional
    outputs: list[Tensor] = []
    ends: list[Tensor] = []
    for k in range(layer.num_layers):
        below = outputs[-1] if outputs else x.values
        below = torch.cat([x.values, below], 1) if outputs and layer.skip else below
        here = []
        for d in range(D):
            plain = Plain(layer, f"_l{k}" + ("_reverse" if d else ""))
            drawn = masks[k * D + d] if masks else {}
            y, end = plain.run(
                x.with_values(below),
                None if hx is None else hx[k * D + d],
                d == 1,
                drawn.get("recurrent_mask"),
                drawn.get("zoneout_h", zone),
            )
            here.append(y)
            ends.append(end)
        outputs.append(torch.cat(here, 1))
    return torch.cat(outputs, 1) if layer.skip else outputs[-1], ends


def close(given: Any, wanted: Any) -> None:
    torch.testing.assert_close(given, wanted, rtol=1e-10, atol=1e-10)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no bias": {"bias": False},
    "single bias": {"single_bias": True},
    "skip": {"skip": True},
    "learned": {"learn_initial_state": True},
    "zoneout": {"zoneout": 0.3},
    "recurrent_dropout": {"recurrent_dropout": 0.4},
    "all": {
        "skip": True,
        "learn_initial_state": True,
        "zoneout": 0.3,
        "recurrent_dropout": 0.4,
    },
}
EACH = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


class TestLayer:
    @EACH
    @pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
    def test_equals_a_loop(
        self, options: dict[str, Any], training: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        layer = randomized(MGU(3, 4, 2, bidirectional=True, **options)).train(training)
        x = random_batch(LENGTHS, 3)
        x.values.requires_grad_()
        masks = spy_on_masks(monkeypatch)
        y, h_n = layer(x)
        assert layer.backend_used == "reference"
        drawn = masks if training and any(masks) else None
        wanted, ends = by_hand(layer, x, masks=drawn, zone=options.get("zoneout", 0.0))
        close(y.values, wanted)
        close(h_n, torch.stack(ends))
        weights = torch.randn_like(wanted)
        inputs = [x.values, *layer.parameters()]
        ours, theirs = (
            torch.autograd.grad((each * weights).sum(), inputs) for each in (y.values, wanted)
        )
        close(ours, theirs)

    def test_a_state_that_is_given(self) -> None:
        layer = randomized(MGU(3, 4, 2, bidirectional=True))
        x = random_batch(LENGTHS, 3)
        hx = torch.randn(4, len(LENGTHS), 4, dtype=torch.float64)
        y, h_n = layer(x, hx)
        wanted, ends = by_hand(layer, x, hx)
        close(y.values, wanted)
        close(h_n, torch.stack(ends))

    def test_widths(self) -> None:
        layer = randomized(MGU(3, [5, 2]))
        x = random_batch(LENGTHS, 3)
        y, h_n = layer(x)
        wanted, ends = by_hand(layer, x)
        close(y.values, wanted)
        close([h[0] for h in h_n], ends)

    def test_dropout_between_layers(self) -> None:
        layer = randomized(MGU(3, 4, 2, dropout=0.5))
        x = random_batch(NONEMPTY, 3)
        y, _ = layer(x)
        assert not torch.equal(y.values, layer(x)[0].values)
        wanted, _ = by_hand(layer, x)
        close(layer.eval()(x)[0].values, wanted)

    def test_every_form(self) -> None:
        layer = randomized(MGU(3, 4))
        x = random_batch(NONEMPTY, 3)
        wanted, (end,) = by_hand(layer, x)
        packed, h_n = layer(x.to_packed())
        assert isinstance(packed, PackedSequence)
        close(Ragged.from_packed(packed).values, wanted)
        close(h_n[0], end)
        padded, h_n = layer(x.to_padded(float("nan"), batch_first=False), lengths=NONEMPTY)
        close(padded, x.with_values(wanted).to_padded(batch_first=False))
        close(h_n[0], end)
        close(layer(x.to_nested())[0].values(), wanted)
        one = random_batch([6], 3)
        y, h = layer(one.values)
        close(y, by_hand(layer, one)[0])
        close(h, y[-1:])

    def test_return_states(self) -> None:
        layer = randomized(MGU(3, 4, 2, zoneout=0.3)).eval()
        x = random_batch(LENGTHS, 3)
        y, _, steps = layer(x, return_states=True)
        assert len(steps) == 2
        close(steps[1].hidden.values, y.values)
        assert tuple(steps[0].gates) == ("f", "h")
        assert steps[0].cells is None
        close(layer(x)[0].values, y.values)
        hidden = steps[0].hidden
        before = Ragged.from_list([F.pad(h, (0, 0, 1, 0))[:-1] for h in hidden]).values
        close(hidden.values, 0.3 * before + 0.7 * steps[0].gates["h"].values)

    def test_is_a_module_like_the_others(self) -> None:
        layer = MGU(3, 4, 2, bidirectional=True, learn_initial_state=True)
        assert list(layer.state_dict())[:4] == [
            "weight_ih_l0",
            "weight_hh_l0",
            "bias_ih_l0",
            "bias_hh_l0",
        ]
        assert "weight_hh_l1_reverse" in layer.state_dict()
        assert list(layer.state_dict())[-1] == "h_0_l1_reverse"
        other = MGU(3, 4, 2, bidirectional=True, learn_initial_state=True)
        other.load_state_dict(layer.state_dict())
        x = random_batch(LENGTHS, 3).to(torch.float32)
        torch.testing.assert_close(other(x)[0].values, layer(x)[0].values, rtol=0, atol=0)
        assert repr(layer) == (
            "MGU(3, 4, num_layers=2, bidirectional=True, learn_initial_state=True)"
        )
        orthogonal = MGU(3, 4, initialization="orthogonal")
        for W in orthogonal.weight_hh_l0.detach().chunk(2):
            torch.testing.assert_close(W.T @ W, torch.eye(4))

    def test_what_torch_nn_does_not_have_is_said(self) -> None:
        with pytest.raises(ValueError, match=r"torch\.nn has no such layer as MGU"):
            MGU(3, 4, backend="torch")
        with pytest.raises(ValueError, match="MGU takes one number"):
            MGU(3, 4, zoneout=(0.1, 0.2))


class TestCell:
    @EACH
    def test_is_a_step_of_the_layer(self, options: dict[str, Any]) -> None:
        options = {key: value for key, value in options.items() if key != "skip"}
        cell = randomized(MGUCell(3, 4, **options)).eval()
        layer = MGU(3, 4, **options).double().eval()
        layer.load_state_dict({f"{name}_l0": p for name, p in cell.state_dict().items()})
        x = torch.randn(5, 2, 3, dtype=torch.float64)
        steps, h = [], None
        for row in x:
            h = cell(row, h)
            steps.append(h)
        close(torch.stack(steps), layer(x)[0])
        close(peephole.Recurrent(cell)(x)[0], layer(x)[0])


@pytest.mark.usefixtures("unhooked")
class TestCompiled:
    @EACH
    def test_is_one_graph(self, options: dict[str, Any]) -> None:
        torch._dynamo.reset()
        layer = randomized(MGU(3, 4, 2, bidirectional=True, **options)).eval()
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        x = random_batch(LENGTHS, 3)
        x.values.requires_grad_()
        (y, h_n), (wanted, end) = compiled(x), layer(x)
        close(y.values, wanted.values)
        close(h_n, end)
        weights = torch.randn_like(y.values)
        inputs = [x.values, *layer.parameters()]
        ours, theirs = (
            torch.autograd.grad((each.values * weights).sum(), inputs) for each in (y, wanted)
        )
        close(ours, theirs)

    def test_draws_masks(self) -> None:
        torch._dynamo.reset()
        layer = randomized(MGU(3, 4, zoneout=0.5, recurrent_dropout=0.5))
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        x = random_batch(LENGTHS, 3)
        first, second = compiled(x)[0].values, compiled(x)[0].values
        assert not torch.equal(first, second)
        # What zoneout keeps is what was there: at the first step, zeros.
        starts = x.offsets[:-1][x.lengths > 0]
        assert 0.2 < (first[starts] == 0).double().mean() < 0.8


def test_is_the_only_one_that_was_added() -> None:
    assert set(ops.RECURRENCES) == {"lstm", "gru", "rnn", "mgu"}
