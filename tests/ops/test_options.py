"""Every option of ``peephole.ops`` against the papers' equations, and its derivatives.

On every backend that has it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from peephole import ops
from tests.helpers import equations, graves
from tests.helpers.batches import LENGTHS
from tests.helpers.errors import raises
from tests.helpers.marks import DIRECTIONS, forward_mode
from tests.helpers.recurrences import (
    Recurrence,
    Tensors,
    gru,
    leaves,
    lstm,
    on_backends,
    pick,
    rnn,
)

# The papers' symbol for each argument.
SYMBOLS = {
    "gates_x": "x",
    "h0": "h",
    "c0": "c",
    "weight_hh": "W_h",
    "weight_ch": "W_c",
    "weight_hr": "W_rm",
    "bias_hn": "b_hn",
    "weight_ln_hh": "alpha_1",
    "weight_ln_c": "alpha_3",
    "bias_ln_c": "beta_3",
    "recurrent_mask": "z_h",
    "zoneout_h": "d_h",
    "zoneout_c": "d_c",
    "cell_clip": "clip",
    "coupled": "coupled",
    "nonlinearity": "nonlinearity",
}

EQUATIONS = {ops.lstm: equations.lstm, ops.gru: equations.gru, ops.rnn: equations.rnn}

ZONEOUT = [
    {"zoneout_h": "bool", "zoneout_c": "bool"},
    {"zoneout_h": "float", "zoneout_c": "float"},
    {"zoneout_h": 0.1, "zoneout_c": 0.6},
    {"zoneout_h": "bool"},
    {"zoneout_c": "float"},
    {"zoneout_h": 1.0, "zoneout_c": "bool"},
    {"zoneout_h": 0, "zoneout_c": 1},
    {"zoneout_h": 0.3},
    {"zoneout_c": 0.3},
]
# Of random cells about half lie beyond it.
CLIP = 0.5


def without(recurrence: Recurrence, *names: str) -> Recurrence:
    extras = {name: shape for name, shape in recurrence.extras.items() if name not in names}
    return replace(recurrence, extras=extras)


ALONE = {
    "lstm": lstm(),
    "lstm-diagonal": lstm("diagonal"),
    "lstm-full": lstm("full"),
    "lstm-coupled": lstm(coupled=True),
    "lstm-coupled-full": lstm("full", coupled=True),
    "lstm-clip": lstm(cell_clip=CLIP),
    "lstm-projected": lstm(projected=True),
    "lstm-layer_norm": lstm(layer_norm=True),
    "lstm-mask": lstm(recurrent_mask=True),
    "lstm-zoneout": lstm(zoneout_h="bool", zoneout_c="bool"),
    "lstm-zoneout-float": lstm(zoneout_h="float", zoneout_c="float"),
    "lstm-zoneout-number": lstm(zoneout_h=0.1, zoneout_c=0.6),
    "gru": gru(),
    "gru-bias_hn": gru(bias_hn=True),
    "gru-layer_norm": gru(layer_norm=True),
    "gru-mask": gru(recurrent_mask=True),
    "gru-zoneout": gru(zoneout_h="bool"),
    "gru-zoneout-number": gru(zoneout_h=0.3),
    "rnn-tanh": rnn(),
    "rnn-relu": rnn("relu"),
    "rnn-layer_norm": rnn(layer_norm=True),
    "rnn-mask": rnn(recurrent_mask=True),
    "rnn-zoneout": rnn(zoneout_h="bool"),
    "rnn-zoneout-number": rnn(zoneout_h=0.3),
}
# Their derivatives are those of the ones above.
KIN = {
    "lstm-coupled-diagonal": lstm("diagonal", coupled=True),
    "lstm-layer_norm-gates": without(lstm(layer_norm=True), "weight_ln_c", "bias_ln_c"),
    "lstm-layer_norm-cell": without(lstm(layer_norm=True), "weight_ln_hh", "bias_ln_c"),
    "lstm-zoneout-h": lstm(zoneout_h="bool"),
    "lstm-zoneout-c": lstm(zoneout_c="bool"),
    "gru-zoneout-float": gru(zoneout_h="float"),
    "rnn-zoneout-float": rnn(zoneout_h="float"),
    "rnn-relu-layer_norm": rnn("relu", layer_norm=True),
}
EACH = pytest.mark.parametrize("recurrence", (ALONE | KIN).values(), ids=ALONE | KIN)
RUNS = on_backends(ALONE | KIN)
EACH_RUN = pytest.mark.parametrize("recurrence", RUNS.values(), ids=RUNS)
DERIVED = on_backends(ALONE)
EACH_DERIVED = pytest.mark.parametrize("recurrence", DERIVED.values(), ids=DERIVED)
BACKENDS = pytest.mark.parametrize("backend", ["reference", "cpu"])
INITIAL = pytest.mark.parametrize("initial", [True, False], ids=["initial state", "from zero"])


@st.composite
def combinations(draw: st.DrawFn) -> Recurrence:
    """Any op with any of its options together."""
    op, flag = draw(st.sampled_from([lstm, lstm, gru, rnn])), st.booleans()
    dropped = {"recurrent_mask": draw(flag)} | draw(st.sampled_from([{}, *ZONEOUT]))
    if op is lstm:
        return without(
            lstm(
                draw(st.sampled_from(["none", "diagonal", "full"])),
                coupled=draw(flag),
                cell_clip=draw(st.sampled_from([None, CLIP])),
                projected=draw(flag),
                layer_norm=draw(flag),
                **dropped,
            ),
            *draw(st.sampled_from([(), (), ("weight_ln_hh",), ("bias_ln_c",)])),
        )
    dropped.pop("zoneout_c", None)
    if op is gru:
        return gru(bias_hn=draw(flag), layer_norm=draw(flag), **dropped)
    return rnn(draw(st.sampled_from(["tanh", "relu"])), layer_norm=draw(flag), **dropped)


def all_outputs(recurrence: Recurrence, tensors: Tensors, **options: Any) -> tuple[Tensor, ...]:
    """The outputs and the final states and, where the op tells them, the gates and cells."""
    states = {} if recurrence.op is ops.rnn else {"return_states": True}
    return recurrence(tensors, **states, **options)


def by_equations(
    recurrence: Recurrence, tensors: Tensors, hidden_size: int, reverse: bool
) -> tuple[Tensor, ...]:
    """What ``all_outputs`` must be: one sequence after the other, reversed by flipping it."""
    P = recurrence.output_size(hidden_size)
    flip = slice(None, None, -1 if reverse else 1)
    runs = []
    for b in range(len(tensors["offsets"]) - 1):
        given = {SYMBOLS[name]: value for name, value in recurrence.options.items()}
        for name, tensor in sequence(tensors, b).items():
            by_step = name in ("gates_x", "zoneout_h", "zoneout_c")
            given[SYMBOLS[name]] = tensor[flip] if by_step else tensor
        for name in recurrence.states:
            given.setdefault(SYMBOLS[name], np.zeros(P if name == "h0" else hidden_size))
        runs.append(EQUATIONS[recurrence.op](**given))
    y, final, steps = zip(*runs, strict=True)
    return tuple(
        torch.from_numpy(joined)
        for joined in (
            np.concatenate([part[flip] for part in y]),
            *(np.stack(parts) for parts in zip(*final, strict=True)),
            *(np.concatenate([p[flip] for p in parts]) for parts in zip(*steps, strict=True)),
        )
    )


def sequence(tensors: Tensors, b: int) -> dict[str, np.ndarray]:
    """The arguments of one sequence, without the dimension of the batch."""
    alone = {name: t.detach().numpy() for name, t in pick(tensors, [b]).items()}
    del alone["offsets"]
    for name in alone.keys() & {"h0", "c0", "recurrent_mask"}:
        alone[name] = alone[name][0]
    for name in alone.keys() & {"zoneout_h", "zoneout_c"}:
        alone[name] = alone[name].astype(np.float64)
    return alone


def assert_is_the_papers(
    recurrence: Recurrence, tensors: Tensors, hidden_size: int, reverse: bool
) -> None:
    """Assert it on every backend that computes it."""
    wanted = by_equations(recurrence, tensors, hidden_size, reverse)
    for backend in recurrence.backends:
        given = all_outputs(recurrence, tensors, reverse=reverse, backend=backend)
        assert len(given) == len(wanted)
        for k, (ours, theirs) in enumerate(zip(given, wanted, strict=True)):
            torch.testing.assert_close(
                ours.detach(),
                theirs,
                rtol=1e-10,
                atol=1e-10,
                msg=lambda m, k=k, backend=backend: f"{backend}, output {k}: {m}",
            )


class TestIsThePapers:
    @EACH
    @DIRECTIONS
    @INITIAL
    @pytest.mark.parametrize("hidden_size", [3, 17])
    def test_each_option_alone(
        self, recurrence: Recurrence, reverse: bool, initial: bool, hidden_size: int
    ) -> None:
        tensors = recurrence.draw(LENGTHS, hidden_size, initial=initial)
        assert_is_the_papers(recurrence, tensors, hidden_size, reverse)

    @DIRECTIONS
    @hypothesis.settings(max_examples=150)
    @hypothesis.given(
        recurrence=combinations(),
        lengths=st.lists(st.integers(0, 4), min_size=1, max_size=5) | st.just(LENGTHS),
        hidden_size=st.integers(2, 4),
        initial=st.booleans(),
        seed=st.integers(0, 99),
    )
    def test_options_together(
        self,
        recurrence: Recurrence,
        reverse: bool,
        lengths: list[int],
        hidden_size: int,
        initial: bool,
        seed: int,
    ) -> None:
        torch.manual_seed(seed)
        tensors = recurrence.draw(lengths, hidden_size, initial=initial)
        assert_is_the_papers(recurrence, tensors, hidden_size, reverse)

    @pytest.mark.parametrize("layer_norm", [False, True], ids=["plain", "layer norm"])
    def test_one_hidden_unit(self, layer_norm: bool) -> None:
        for recurrence in (
            lstm("full", coupled=True, layer_norm=layer_norm, zoneout_c="bool"),
            gru(bias_hn=True, layer_norm=layer_norm, zoneout_h="bool"),
            rnn(layer_norm=layer_norm, recurrent_mask=True),
        ):
            assert_is_the_papers(recurrence, recurrence.draw(LENGTHS, 1), 1, reverse=False)


class TestTheEquations:
    """The truth above against others, so that it does not stand alone."""

    @pytest.mark.parametrize("peephole", ["none", "diagonal", "full"])
    def test_lstm_is_graves_unit_by_unit(self, peephole: str) -> None:
        given = sequence(lstm(peephole).draw([7]), 0)
        ours = equations.lstm(**{SYMBOLS[name]: array for name, array in given.items()})
        W, b = graves.by_gate(np.eye(12), given["weight_hh"], given.get("weight_ch"))
        y, h, c = graves.run(W, b, given["gates_x"], given["h0"], given["c0"])
        for got, wanted in zip((ours.y, *ours.final), (y, h, c), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)

    def test_projected_lstm_is_torch_s(self) -> None:
        module = nn.LSTM(12, 3, proj_size=2, bias=False, dtype=torch.float64)
        nn.init.eye_(module.weight_ih_l0)
        given = sequence(lstm(projected=True).draw([7]), 0)
        ours = equations.lstm(
            **{SYMBOLS[name]: array for name, array in given.items()}
            | {"W_h": module.weight_hh_l0.detach().numpy()}
            | {"W_rm": module.weight_hr_l0.detach().numpy()}
        )
        x, h, c = (torch.from_numpy(given[name]) for name in ("gates_x", "h0", "c0"))
        y, (h_n, c_n) = module(x, (h[None], c[None]))
        for got, wanted in zip((ours.y, *ours.final), (y, h_n[0], c_n[0]), strict=True):
            np.testing.assert_allclose(got, wanted.detach().numpy(), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("size", [1, 2, 17])
    def test_layer_norm_is_torch_s(self, size: int) -> None:
        v, alpha = torch.randn(2, size, dtype=torch.float64)
        wanted = nn.functional.layer_norm(v, (size,), alpha)
        np.testing.assert_allclose(
            equations.scaled(alpha.numpy(), v.numpy()), wanted, rtol=1e-12, atol=1e-12
        )


class TestLimits:
    """What needs no equation: options that change nothing, everything, or have nothing to do."""

    @EACH_RUN
    @pytest.mark.parametrize("lengths", [[], [0, 0]])
    def test_without_steps(self, recurrence: Recurrence, lengths: list[int]) -> None:
        tensors = recurrence.draw(lengths)
        y, *rest = all_outputs(recurrence, tensors)
        finals, steps = rest[: len(recurrence.states)], rest[len(recurrence.states) :]
        assert y.shape == (0, recurrence.output_size(3))
        for name, final in zip(recurrence.states, finals, strict=True):
            assert torch.equal(final, tensors[name])
        widths = {ops.lstm: [3 * recurrence.gates, 3], ops.gru: [9], ops.rnn: []}
        assert [tuple(t.shape) for t in steps] == [(0, width) for width in widths[recurrence.op]]

    @BACKENDS
    @DIRECTIONS
    @pytest.mark.parametrize("zoneout", ["mask", "number"])
    def test_zoneout_of_nothing_or_everything(
        self, backend: str, reverse: bool, zoneout: str
    ) -> None:
        recurrence = replace(lstm("diagonal"), backend=backend)
        tensors = recurrence.draw(LENGTHS)
        shape = (sum(LENGTHS), 3)
        none, every = (
            (torch.zeros(shape).bool(), torch.ones(shape).bool()) if zoneout == "mask" else (0, 1)
        )
        plain = recurrence(tensors, reverse=reverse)
        given = recurrence(tensors, reverse=reverse, zoneout_h=none, zoneout_c=none)
        for ours, wanted in zip(given, plain, strict=True):
            assert torch.equal(ours, wanted)
        y, h_n, c_n = recurrence(tensors, reverse=reverse, zoneout_h=every, zoneout_c=every)
        assert torch.equal(h_n, tensors["h0"])
        assert torch.equal(c_n, tensors["c0"])
        assert torch.equal(y, tensors["h0"].repeat_interleave(torch.tensor(LENGTHS), 0))

    @BACKENDS
    def test_states_do_not_change_the_rest(self, backend: str) -> None:
        for recurrence in (lstm("full", zoneout_h="bool", zoneout_c=0.5), gru(bias_hn=True)):
            recurrence = replace(recurrence, backend=backend)
            tensors = recurrence.draw(LENGTHS)
            y, *finals = recurrence(tensors)
            ours, *rest = recurrence(tensors, return_states=True)
            for a, b in zip((ours, *rest), (y, *finals), strict=False):
                assert torch.equal(a, b)
            assert len(rest) == 2 * len(finals)

    @BACKENDS
    def test_cells_are_clipped(self, backend: str) -> None:
        recurrence = replace(lstm(cell_clip=CLIP), backend=backend)
        tensors = recurrence.draw(LENGTHS)
        _, _, c_n, _, cells = recurrence(tensors, return_states=True)
        beyond = cells.abs() == CLIP
        assert beyond.any()
        assert not beyond.all()
        assert cells.abs().max() <= CLIP
        # An empty sequence takes no step that could clip its initial cell.
        assert torch.equal(c_n[3], tensors["c0"][3])


def away_from_kinks(recurrence: Recurrence) -> Tensors:
    """Arguments for two sequences and an empty one where every derivative is of one side."""
    # Two numbers normalized are always 1 and -1, nearly.
    normalized = recurrence.extras.keys() & {"weight_ln_hh", "weight_ln_c"}
    tensors = recurrence.draw([2, 0, 1], hidden_size=3 if normalized else 2)
    if recurrence.options.get("nonlinearity") == "relu":
        # Sums so large that what the recurrence adds leaves their signs alone.
        x, W_h = tensors["gates_x"].detach(), tensors["weight_hh"].detach()
        tensors["gates_x"] = (x + 9 * x.sign()).requires_grad_()
        tensors["weight_hh"] = (W_h / 10).requires_grad_()
    if "cell_clip" in recurrence.options and not safely_clipped(recurrence, tensors):
        return away_from_kinks(recurrence)
    return tensors


def safely_clipped(recurrence: Recurrence, tensors: Tensors) -> bool:
    """Whether some cells are clipped, some are not, and none is within a tenth of the clip."""
    counts = set()
    for clip in (0.9 * CLIP, CLIP, 1.1 * CLIP):
        given = replace(recurrence, options={**recurrence.options, "cell_clip": clip})
        *_, cells = by_equations(given, tensors, tensors["c0"].shape[1], reverse=False)
        counts.add(int((cells.abs() == clip).sum()))
    return len(counts) == 1 and 0 < counts.pop() < cells.numel()


def as_function(
    recurrence: Recurrence, tensors: Tensors, **options: Any
) -> tuple[Callable[..., tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """All outputs as a function of the leaves alone, and those leaves."""
    names, primals = zip(*leaves(tensors).items(), strict=True)

    def run(*given: Tensor) -> tuple[Tensor, ...]:
        changed = dict(zip(names, given, strict=True))
        return all_outputs(recurrence, tensors | changed, **options)

    return run, primals


class TestDerivatives:
    # The masks are no leaves: they are drawn, not learned.
    @EACH_DERIVED
    def test_first(self, recurrence: Recurrence) -> None:
        assert torch.autograd.gradcheck(*as_function(recurrence, away_from_kinks(recurrence)))

    @EACH_DERIVED
    def test_second(self, recurrence: Recurrence) -> None:
        run, primals = as_function(recurrence, away_from_kinks(recurrence))
        # Of one sum of all numbers at random weights, which costs far less than of each of them.
        upstream = [torch.randn_like(output) for output in run(*primals)]

        def total(*given: Tensor) -> Tensor:
            return sum((u * t).sum() for u, t in zip(upstream, run(*given), strict=True))

        assert torch.autograd.gradgradcheck(total, primals)

    @forward_mode
    @EACH
    @DIRECTIONS
    def test_jvp_is_the_transpose_of_the_gradient(
        self, recurrence: Recurrence, reverse: bool
    ) -> None:
        run, primals = as_function(recurrence, recurrence.draw(LENGTHS), reverse=reverse)
        tangents = tuple(torch.randn_like(p) for p in primals)
        outputs, moved = torch.func.jvp(run, primals, tangents)
        upstream = [torch.randn_like(output) for output in outputs]
        gradients = torch.autograd.grad(run(*primals), primals, upstream)
        forward = sum((u * m).sum() for u, m in zip(upstream, moved, strict=True))
        backward = sum((g * t).sum() for g, t in zip(gradients, tangents, strict=True))
        torch.testing.assert_close(forward, backward, rtol=1e-10, atol=1e-10)


class TestEnsembles:
    """``torch.func.vmap`` over members of an ensemble, on one batch."""

    @EACH
    @pytest.mark.parametrize("own", ["weights", "everything"])
    def test_is_the_loop(self, recurrence: Recurrence, own: str) -> None:
        tensors, stack = members(recurrence, own)
        assert_loop(lambda member: all_outputs(recurrence, tensors | member), stack)

    @EACH
    @DIRECTIONS
    def test_gradients_are_the_loop_s(self, recurrence: Recurrence, reverse: bool) -> None:
        tensors, stack = members(recurrence, "weights")
        upstream = [torch.randn_like(t) for t in all_outputs(recurrence, tensors)]

        def loss(member: Tensors) -> Tensor:
            given = all_outputs(recurrence, tensors | member, reverse=reverse)
            return sum((u * t).sum() for u, t in zip(upstream, given, strict=True))

        assert_loop(lambda member: tuple(torch.func.grad(loss)(member).values()), stack)


def members(recurrence: Recurrence, own: str, count: int = 3) -> tuple[Tensors, Tensors]:
    """A batch, and a stack ``[count, ...]`` of the members' own weights or of all their tensors."""
    tensors = recurrence.draw(LENGTHS)
    names = tensors.keys() - {"offsets"}
    if own == "weights":
        names = {name for name in names if name.startswith(("weight", "bias"))}
    drawn = [recurrence.draw(LENGTHS) for _ in range(count)]
    return tensors, {name: torch.stack([d[name].detach() for d in drawn]) for name in names}


def assert_loop(one: Callable[[Tensors], tuple[Tensor, ...]], stack: Tensors) -> None:
    """Assert that ``vmap`` gives for each member what it gives alone."""
    given = torch.func.vmap(one)(stack)
    count = len(stack["weight_hh"])
    loop = [one({name: t[k] for name, t in stack.items()}) for k in range(count)]
    for ours, wanted in zip(given, zip(*loop, strict=True), strict=True):
        torch.testing.assert_close(ours, torch.stack(wanted), rtol=1e-10, atol=1e-10)


SHAPES = [
    (lstm(layer_norm=True), "weight_ln_hh", [12], [(3,), (9,), (12, 1), (1, 12)]),
    (lstm(coupled=True), "weight_ln_hh", [9], [(12,), (3,)]),
    (lstm(layer_norm=True), "weight_ln_c", [3], [(4,), (12,), (1, 3), ()]),
    (lstm(layer_norm=True), "bias_ln_c", [3], [(4,), (12,), (1, 3), ()]),
    (lstm(projected=True), "weight_hr", [2, 3], [(3, 3), (3, 2), (2,), (1, 2, 3)]),
    (lstm(projected=True), "h0", [6, 2], [(6, 3), (5, 2)]),
    (lstm(projected=True), "c0", [6, 3], [(6, 2), (5, 3)]),
    (lstm(), "recurrent_mask", [6, 3], [(3,), (1, 3), (23, 3), (6, 2), (6, 3, 1)]),
    (lstm(projected=True), "recurrent_mask", [6, 2], [(6, 3)]),
    (lstm(), "zoneout_h", [23, 3], [(6, 3), (23,), (23, 1), (22, 3), ()]),
    (lstm(), "zoneout_c", [23, 3], [(6, 3), (23,), (23, 1), (22, 3), ()]),
    (lstm(projected=True), "zoneout_h", [23, 2], [(23, 3)]),
    (lstm(projected=True), "zoneout_c", [23, 3], [(23, 2)]),
    (gru(), "weight_ln_hh", [9], [(3,), (6,), (1, 9)]),
    (gru(), "recurrent_mask", [6, 3], [(3,), (23, 3), (6, 9)]),
    (gru(), "zoneout_h", [23, 3], [(6, 3), (23,), (23, 9)]),
    (rnn(), "weight_ln_hh", [3], [(4,), (1, 3), ()]),
    (rnn(), "recurrent_mask", [6, 3], [(3,), (23, 3)]),
    (rnn(), "zoneout_h", [23, 3], [(6, 3), (23,)]),
]
ZONED = [(lstm(), "zoneout_h"), (lstm(), "zoneout_c"), (gru(), "zoneout_h"), (rnn(), "zoneout_h")]
EVERY_ZONEOUT = pytest.mark.parametrize(
    ("recurrence", "name"), ZONED, ids=["lstm-h", "lstm-c", "gru", "rnn"]
)


@pytest.mark.usefixtures("unhooked")
class TestErrors:
    @pytest.mark.parametrize(
        ("recurrence", "name", "wanted", "shape"),
        [(r, name, wanted, shape) for r, name, wanted, shapes in SHAPES for shape in shapes],
    )
    def test_wrong_shape(
        self, recurrence: Recurrence, name: str, wanted: list[int], shape: tuple[int, ...]
    ) -> None:
        wrong = {name: torch.zeros(shape, dtype=torch.float64)}
        with raises(f"{name} must be {wanted}, got {list(shape)}"):
            recurrence(recurrence.draw(LENGTHS) | wrong)

    @pytest.mark.parametrize("shape", [(2, 3, 3), (3, 3), (9, 3), (6,), (2, 4)])
    def test_wrong_peepholes_of_a_coupled_lstm(self, shape: tuple[int, ...]) -> None:
        recurrence = lstm(coupled=True)
        wrong = {"weight_ch": torch.zeros(shape, dtype=torch.float64)}
        with raises(f"weight_ch must be [2, 3] or [6, 3], got {list(shape)}"):
            recurrence(recurrence.draw(LENGTHS) | wrong)

    def test_narrow_weight_hh_without_a_projection(self) -> None:
        tensors = lstm(projected=True).draw(LENGTHS)
        del tensors["weight_hr"]
        with raises("weight_hh must be [4 * H, H] with H hidden units, got [12, 2]"):
            lstm()(tensors)

    def test_bias_of_a_norm_that_is_not_there(self) -> None:
        recurrence = without(lstm(layer_norm=True), "weight_ln_c")
        with raises("bias_ln_c goes with weight_ln_c, which is None"):
            recurrence(recurrence.draw(LENGTHS))

    @EVERY_ZONEOUT
    @pytest.mark.parametrize("number", [-0.1, 1.5, 2, float("nan"), float("inf")])
    def test_zoneout_out_of_range(self, recurrence: Recurrence, name: str, number: float) -> None:
        with raises(f"{name}={number}; it must be from 0 to 1, or a mask [23, 3]"):
            recurrence(recurrence.draw(LENGTHS), **{name: number})

    @EVERY_ZONEOUT
    @pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.uint8])
    def test_zoneout_s_dtype(self, recurrence: Recurrence, name: str, dtype: torch.dtype) -> None:
        mask = torch.zeros(23, 3, dtype=dtype)
        with raises(f"{name} has dtype {dtype}; it must be bool or torch.float64"):
            recurrence(recurrence.draw(LENGTHS), **{name: mask})

    @EVERY_ZONEOUT
    def test_zoneout_s_device(self, recurrence: Recurrence, name: str) -> None:
        mask = torch.zeros(23, 3, dtype=torch.bool, device="meta")
        with raises(f"{name} has device meta, but gates_x has cpu"):
            recurrence(recurrence.draw(LENGTHS), **{name: mask})

    @pytest.mark.parametrize("recurrence", [lstm(), gru(), rnn()], ids=["lstm", "gru", "rnn"])
    @pytest.mark.parametrize("dtype", [torch.bool, torch.float32], ids=str)
    def test_recurrent_mask_s_dtype(self, recurrence: Recurrence, dtype: torch.dtype) -> None:
        mask = torch.ones(6, 3, dtype=dtype)
        with raises(
            f"recurrent_mask has dtype {dtype}, but gates_x has torch.float64; all must agree"
        ):
            recurrence(recurrence.draw(LENGTHS), recurrent_mask=mask)

    @pytest.mark.parametrize("clip", [0, 0.0, -1.0, float("nan"), -float("inf")])
    def test_clip_out_of_range(self, clip: float) -> None:
        with raises(f"cell_clip={clip}; it must be more than 0, or None"):
            lstm()(lstm().draw(LENGTHS), cell_clip=clip)
