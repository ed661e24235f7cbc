"""Whatever a caller gives: an error that names it, or right numbers; never memory that is not ours.

CI runs this under the address sanitizer too, which sees what no assertion can.
"""

import ast
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import peephole
from peephole.offsets import Layout
from peephole.ops import cpu
from peephole.ops.cpu import extension, kernels
from tests.helpers.batches import LENGTHS, offsets_of
from tests.helpers.errors import raises
from tests.helpers.kernels import (
    F32,
    F64,
    KINDS,
    LADEN,
    assert_same_bits,
    draw,
    draw_upstream,
    emptied,
    outcome,
)
from tests.helpers.recurrences import Recurrence, Tensors

pytestmark = pytest.mark.usefixtures("unhooked")

EVERY = pytest.mark.parametrize("recurrence", KINDS.values(), ids=KINDS)
EVERY_LADEN = pytest.mark.parametrize("recurrence", LADEN.values(), ids=LADEN)
SOME = pytest.mark.parametrize("name", ["lstm-full", "gru-bias_hn", "rnn-tanh"])
OPTIONS: dict[str, dict[str, Any]] = {
    "lstm": {"coupled": False, "cell_clip": None, "return_states": False},
    "gru": {"return_states": False},
    "rnn": {"nonlinearity": "tanh", "return_states": False},
}
EXTREMES = st.sampled_from([0, 1, 2, 3, 5, 8, 9, -1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63)])


SPOILS: dict[str, Callable[[Tensor], Tensor]] = {
    "a row more": lambda t: torch.cat([t, t[:1]]),
    "a row less": lambda t: t[:-1],
    "no rows": lambda t: t[:0],
    "a column more": lambda t: torch.cat([t, t[..., :1]], -1),
    "a column less": lambda t: t[..., :-1],
    "one dimension more": lambda t: t.unsqueeze(0),
    "one dimension less": lambda t: t.flatten() if t.dim() > 1 else t[0],
    "another dtype": lambda t: t.to(torch.float32),
    "whole numbers": lambda t: t.to(torch.int64),
    "half the bytes": lambda t: t.to(torch.float16),
    "another device": lambda t: t.to("meta"),
    "no memory": emptied,
}
EVERY_SPOIL = pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)


def plain(tensors: Tensors) -> Tensors:
    return {name: t.detach() for name, t in tensors.items()}


def straight_to_the_kernels(name: str, tensors: Tensors) -> Any:
    """Past every check but those of the kernels' own calls."""
    kind = name.partition("-")[0]
    given = {n: t for n, t in tensors.items() if n not in ("gates_x", "offsets", "bias_hn")}
    if "bias_hn" in tensors:
        given["bias_hh"] = tensors["bias_hn"]
    options = {"reverse": False, **OPTIONS[kind]}
    layout = Layout(tensors["offsets"])
    return cpu.run(kind, tensors["gates_x"], layout, given, options, pytest.fail)


class TestTensors:
    @EVERY_LADEN
    @EVERY_SPOIL
    def test_that_do_not_fit_the_op(
        self, recurrence: Recurrence, spoil: Callable[[Tensor], Tensor]
    ) -> None:
        tensors = plain(draw(recurrence, LENGTHS, 5))
        for name in tensors.keys() - {"offsets"}:
            given = tensors | {name: spoil(tensors[name])}
            # A boolean mask may be one of floats.
            fits = given[name].dtype == F64 and given[name].shape == tensors[name].shape
            if fits and given[name].untyped_storage().nbytes():
                continue
            for backend in ("cpu", "auto"):
                with pytest.raises((ValueError, RuntimeError)) as error:
                    recurrence(given, backend=backend)
                if spoil is emptied:
                    continue
                # Too many rows of gates_x are too few in offsets.
                named = {name, "weight_hh", "gates_x", "values"}
                assert any(each in str(error.value) for each in named), (name, error.value)

    @SOME
    @EVERY_SPOIL
    def test_that_do_not_fit_the_kernels(
        self, name: str, spoil: Callable[[Tensor], Tensor]
    ) -> None:
        tensors = plain(draw(KINDS[name], [5, 1, 0, 3], 5))
        # Of a GRU's biases only those inside the reset are read.
        for which in tensors.keys() - {"offsets", "bias_hn"}:
            given = spoil(tensors[which])
            for leaf in (False, given.is_floating_point()):
                given.requires_grad_(leaf)
                with pytest.raises((ValueError, RuntimeError, IndexError, KeyError)):
                    straight_to_the_kernels(name, tensors | {which: given})

    @EVERY
    def test_upstream_that_does_not_fit(self, recurrence: Recurrence) -> None:
        tensors = draw(recurrence, LENGTHS, 5)
        y, *_ = recurrence(tensors, backend="cpu")
        for name in ("a row more", "a column less", "no rows", "one dimension more"):
            upstream = SPOILS[name](torch.randn_like(y))
            with pytest.raises(RuntimeError):
                y.backward(upstream, retain_graph=True)

    @EVERY
    def test_tensors_of_other_types_go_to_the_reference(self, recurrence: Recurrence) -> None:
        class Own(Tensor):
            """A type of tensor that torch knows nothing of."""

        tensors = plain(draw(recurrence, LENGTHS, 5))
        wanted = recurrence(tensors, backend="reference")
        given = tensors | {"weight_hh": tensors["weight_hh"].as_subclass(Own)}
        with pytest.raises(ValueError, match=r"weight_hh is an? Own.*; backend='reference' can"):
            recurrence(given, backend="cpu")
        for ours, theirs in zip(recurrence(given), wanted, strict=True):
            torch.testing.assert_close(ours.as_subclass(Tensor), theirs)

    @EVERY
    def test_negated_views_are_served(self, recurrence: Recurrence) -> None:
        tensors = plain(draw(recurrence, LENGTHS, 5))
        wanted = recurrence(tensors, backend="cpu")
        for name in tensors.keys() - {"offsets"}:
            given = tensors | {name: torch._neg_view(-tensors[name])}
            assert all(map(torch.equal, recurrence(given, backend="cpu"), wanted)), name


@pytest.fixture(params=["from C", "by attributes"])
def asked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways to ask a tensor where its numbers are."""
    if request.param == "from C":
        assert hasattr(Tensor, "__dlpack_c_exchange_api__")
        yield
        return
    own = extension._kernels.use_tensors
    own(kernels.PLAIN, kernels._refuse, None)
    try:
        yield
    finally:
        extension.tensor_addresses(kernels.PLAIN, kernels._refuse)


@pytest.mark.usefixtures("asked")
class TestAddress:
    def test_of_what_fits(self) -> None:
        whole = torch.arange(24.0).view(4, 6)
        for tensor in (
            whole,
            whole[1:3],
            whole[:, :0],
            whole[:0],
            whole[2:3, :1],
            nn.Parameter(whole),
        ):
            shape = tuple(tensor.shape)
            assert kernels.address("w", tensor, shape, F32) == tensor.data_ptr()
        assert kernels.address("w", None, (3, 4), F32) == 0
        flags = torch.ones(3, dtype=torch.bool)
        assert kernels.address("w", flags, (3,), torch.bool) == flags.data_ptr()
        number = torch.ones(())
        assert kernels.address("w", number, (), F32) == number.data_ptr()

    def test_of_what_does_not(self) -> None:
        good = torch.zeros(3, 4)
        short = torch.zeros(3, 4)
        short.untyped_storage().resize_(47)

        class Own(Tensor):
            """A type of tensor that nobody knows."""

        wrong = [
            torch.zeros(4, 3),
            torch.zeros(3, 4, 1),
            torch.zeros(12),
            torch.zeros(()),
            torch.zeros(3, 4, dtype=F64),
            torch.zeros(3, 4, dtype=torch.int32),
            torch.zeros(4, 3).t(),
            torch.zeros(3, 8)[:, ::2],
            torch.zeros(1, 4).expand(3, 4),
            torch.zeros(3, 4, device="meta"),
            torch._neg_view(good),
            torch._efficientzerotensor(3, 4),
            good.to_sparse(),
            good.as_subclass(Own),
            short,
            emptied(good),
        ]
        for tensor in wrong:
            with pytest.raises((ValueError, RuntimeError), match=r"w |[Ss]parse"):
                kernels.address("w", tensor, (3, 4), F32)


class TestOffsets:
    @SOME
    @hypothesis.settings(max_examples=150)
    @hypothesis.given(
        numbers=st.lists(EXTREMES, max_size=6), valid_ends=st.booleans(), ordered=st.booleans()
    )
    def test_any_numbers(
        self, name: str, numbers: list[int], valid_ends: bool, ordered: bool
    ) -> None:
        if ordered:
            numbers = sorted(numbers)
        if valid_ends:
            numbers = [0, *numbers, 9]
        offsets = torch.tensor(numbers, dtype=torch.int64)
        tensors = plain(draw(KINDS[name], [9] * (len(numbers) > 1), 4))
        tensors["h0"] = torch.zeros(max(len(numbers) - 1, 0), 4, dtype=F64)
        tensors.pop("c0", None)
        tensors["gates_x"] = torch.randn(9, tensors["gates_x"].shape[1], dtype=F64)
        tensors["offsets"] = offsets
        right = numbers[:1] == [0] and numbers[-1:] == [9] and numbers == sorted(numbers)
        if right:
            given = KINDS[name](tensors, backend="cpu")
            wanted = KINDS[name](tensors, backend="reference")
            for ours, theirs in zip(given, wanted, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
            return
        with pytest.raises(ValueError, match="offsets"):
            KINDS[name](tensors, backend="cpu")
        with pytest.raises((ValueError, RuntimeError), match=r"offsets|negative"):
            straight_to_the_kernels(name, tensors)

    @SOME
    def test_the_kernels_say_what_is_wrong(self, name: str) -> None:
        tensors = plain(draw(KINDS[name], [3, 2], 4))
        for numbers, message in (
            ([1, 3, 5], "offsets[0] = 1; it must be 0"),
            ([0, 3, 4], "offsets end at 4, but there are 5 steps; they must agree"),
            ([0, 6, 5], "offsets fall: offsets[1] = 6, offsets[2] = 5"),
            ([0, -(2**63), 5], f"offsets fall: offsets[0] = 0, offsets[1] = {-(2**63)}"),
        ):
            with raises(message):
                straight_to_the_kernels(name, tensors | {"offsets": torch.tensor(numbers)})

    @SOME
    def test_changed_after_the_forward_pass(self, name: str) -> None:
        tensors = draw(KINDS[name], [3, 2], 4)
        y, *_ = KINDS[name](tensors, backend="cpu")
        tensors["offsets"][1] = 7
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()

    @SOME
    @pytest.mark.parametrize("numbers", [(3, 2**62), (10, 20)], ids=["wrong", "another"])
    def test_changed_by_another_thread(self, name: str, numbers: tuple[int, int]) -> None:
        recurrence = KINDS[name]
        lengths = [10, 30, 40, 20]
        tensors = draw(recurrence, lengths, 40, torch.float32)
        upstream = draw_upstream(recurrence, tensors)
        offsets, done = tensors["offsets"], threading.Event()

        def meddle() -> None:
            while not done.is_set():
                for number in (*numbers, 10):
                    offsets[1] = number

        meddler = threading.Thread(target=meddle)
        meddler.start()
        try:
            for _ in range(100):
                with contextlib.suppress(ValueError, IndexError, RuntimeError):
                    outcome(recurrence, tensors, upstream)
        finally:
            done.set()
            meddler.join()
        offsets[1] = 10
        assert_same_bits(
            outcome(recurrence, tensors, upstream),
            outcome(recurrence, tensors | {"offsets": offsets_of(lengths)}, upstream),
        )


class TestCompiledOperation:
    """``torch.ops.peephole.recurrence``, which graphs hold, and anybody can call."""

    @pytest.fixture
    def call(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        layer, calls = peephole.LSTM(3, 4, peephole="full", dtype=F64), []
        recurrence = torch.ops.peephole.recurrence
        with monkeypatch.context() as patch:
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
            patch.setattr(
                torch.ops.peephole, "recurrence", lambda *a: calls.append(a) or recurrence(*a)
            )
            initial = torch.randn(2, 1, 2, 4, dtype=F64).unbind()
            layer(peephole.Ragged(torch.randn(5, 3, dtype=F64), offsets_of([3, 2])), initial)
        return list(calls[0])

    @pytest.mark.parametrize("numbers", [[0, 6, 5], [1, 3, 5], [0, 3, 2**62], [0, -3, 5], [5], []])
    def test_wrong_offsets(self, call: list[Any], numbers: list[int]) -> None:
        call[4] = torch.tensor(numbers, dtype=torch.int64)
        with pytest.raises((ValueError, RuntimeError)), torch.no_grad():
            torch.ops.peephole.recurrence(*call)

    @pytest.mark.parametrize("lengths", [[4, 1], [-1, 2], [2**62, 0], [1], [1, 1, 1]])
    def test_wrong_lengths(self, call: list[Any], lengths: list[int]) -> None:
        call[3] = torch.randn(6, 3, dtype=F64)
        call[5] = torch.tensor(lengths)
        with pytest.raises(ValueError, match="lengths"), torch.no_grad():
            torch.ops.peephole.recurrence(*call)

    @pytest.mark.parametrize("spoil", sorted(SPOILS.keys() - {"no memory", "another device"}))
    def test_wrong_tensors(self, call: list[Any], spoil: str) -> None:
        names = ast.literal_eval(call[1])["names"]
        assert names[-2:] == ["h0", "c0"]
        for k, name in enumerate(names):
            if name.startswith("bias_"):
                # torch adds biases up before the kernels see them, in whatever shape.
                continue
            tensors = [t.detach() for t in call[6]]
            tensors[k] = SPOILS[spoil](tensors[k])
            with (
                pytest.raises((ValueError, RuntimeError, IndexError)),
                torch.no_grad(),
            ):
                torch.ops.peephole.recurrence(*call[:6], tensors)
