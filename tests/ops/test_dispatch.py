"""``peephole.ops.dispatch`` and ``choose``: which way a batch takes, and what is said of it."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad

from peephole.ops.cpu.extension import MISSING
from peephole.ops.direction import choose
from peephole.ops.dispatch import (
    BACKENDS,
    FEW,
    cpu_cannot,
    leave_padded,
    pick,
    torch_cannot,
    torch_form,
)
from tests.helpers.errors import raises

KINDS = pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])


@pytest.fixture
def fake() -> Iterator[None]:
    """Devices that this machine need not have."""
    with FakeTensorMode():
        yield


def form(
    kind: str,
    waste: float,
    *,
    steps: int = 2000,
    hidden_size: int = 32,
    training: bool = True,
    projected: bool = False,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> str | None:
    x = torch.empty(steps, 3, dtype=dtype, device=device)
    return torch_form(
        kind, x, waste, hidden_size=hidden_size, projected=projected, training=training
    )


@KINDS
@pytest.mark.usefixtures("fake")
def test_cudnn_takes_a_packed_batch_and_mps_a_padded_one(kind: str) -> None:
    for training in (True, False):
        for waste in (1.0, 8.0):
            assert form(kind, waste, training=training, device="cuda") == "packed"
            assert form(kind, waste, training=training, device="mps") == "padded"


@KINDS
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("hidden_size", [16, 128, 512, 2048])
@pytest.mark.parametrize("steps", [FEW - 1, 2000, 100_000])
def test_a_batch_without_padding_goes_padded_and_one_of_mostly_padding_does_not(
    kind: str, training: bool, hidden_size: int, steps: int
) -> None:
    sizes = {"hidden_size": hidden_size, "steps": steps, "training": training}
    assert form(kind, 1.0, **sizes) == "padded"
    assert form(kind, 20.0, **sizes) != "padded"


@KINDS
def test_to_train_a_ragged_batch_the_reference_is_faster_than_packed(kind: str) -> None:
    assert form(kind, 20.0) is None
    assert form(kind, 20.0, training=False) == "packed"
    assert form(kind, 20.0, steps=FEW - 1) == ("packed" if kind == "gru" else None)


def test_one_dnn_bears_more_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only float32 and bfloat16 LSTMs without a projection run on it.
    for dtype in (torch.float32, torch.bfloat16):
        assert form("lstm", 1.9, dtype=dtype) == "padded"
    assert form("lstm", 1.9, dtype=torch.float64) is None
    assert form("lstm", 1.9, projected=True) is None
    assert form("gru", 1.9) is None
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert form("lstm", 1.9) is None


@KINDS
@pytest.mark.parametrize("shape", [(FEW - 1, 3), (FEW - 1, 1, 3), (1, FEW - 1, 3)], ids=str)
def test_a_small_padded_batch_stays_padded(kind: str, shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape)
    assert leave_padded(kind, x, training=False)
    assert leave_padded(kind, x, training=True) == (kind == "rnn")


@KINDS
def test_a_larger_one_only_where_one_dnn_infers(kind: str) -> None:
    x = torch.zeros(FEW, 2, 3)
    assert not leave_padded(kind, x, training=True)
    assert leave_padded(kind, x, training=False) == (kind == "lstm")
    assert not leave_padded(kind, x.double(), training=False)


def test_torch_cannot_follow_a_transform() -> None:
    assert reasons(lambda _: torch_cannot()) == [
        None,
        *["torch.func and forward-mode derivatives do not reach into torch's operators"] * 2,
        None,
    ]


def reasons(ask: Callable[[Tensor], str | None]) -> list[str | None]:
    """What is said before, within a vmap, within forward mode, and after."""
    x = torch.zeros(2, 3)
    why = [ask(x)]
    torch.vmap(lambda row: why.append(ask(row)) or row)(x)
    with forward_ad.dual_level():
        why.append(ask(x))
    return [*why, ask(x)]


class Subclass(Tensor):
    pass


def weights(**more: Tensor | None) -> dict[str, Tensor | None]:
    return {"weight_hh": torch.zeros(12, 3), "h0": None, **more}


NO_NORM = "the compiled kernels have no layer normalization"
NO_PROJECTION = "the compiled kernels have no projection"
NORM = {"weight_ln_hh": torch.zeros(12)}
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


class TestCpuCannot:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_nothing_of_what_it_has(self, dtype: torch.dtype) -> None:
        x = torch.zeros(5, 12, dtype=dtype)
        masks = {name: torch.zeros(5, 3) for name in ("recurrent_mask", "zoneout_h", "zoneout_c")}
        weight = nn.Parameter(torch.zeros(12, 3))
        tensors = {"weight_hh": weight, "weight_ch": weight, "h0": torch.zeros(2, 3), **masks}
        assert cpu_cannot("lstm", x, tensors) is None
        # Of no steps, with gaps, negated.
        for each in (x[:0], x[:, ::2], torch.zeros(5, 12, dtype=torch.complex64).conj().imag):
            assert cpu_cannot("lstm", each, weights()) is None

    @pytest.mark.parametrize(
        ("x", "tensors", "why"),
        [
            (
                torch.zeros(5, 12, device="meta"),
                {},
                "the compiled kernels are for the CPU, and the input is on meta",
            ),
            (
                torch.zeros(5, 12, dtype=torch.float8_e5m2),
                {},
                "the compiled kernels take torch.float32, torch.float64, torch.bfloat16, "
                "torch.float16, and the input is torch.float8_e5m2",
            ),
            *(
                (torch.zeros(5, 12), {name: torch.zeros(3)}, NO_NORM)
                for name in ("weight_ln_hh", "weight_ln_ih", "weight_ln_c")
            ),
            (torch.zeros(5, 12), {"weight_hr": torch.zeros(2, 3)}, NO_PROJECTION),
            *(
                (
                    torch.zeros(5, 12),
                    {name: torch.zeros(5, 3, requires_grad=True)},
                    f"the compiled kernels have no gradient of {name}",
                )
                for name in ("recurrent_mask", "zoneout_h", "zoneout_c")
            ),
            (
                torch.zeros(5, 12).as_subclass(Subclass),
                {},
                "the compiled kernels take plain dense tensors, the input is a Subclass",
            ),
            (
                torch.zeros(5, 12),
                {"weight_hh": torch.zeros(12, 3).as_subclass(Subclass)},
                "the compiled kernels take plain dense tensors, weight_hh is a Subclass",
            ),
            (
                torch.zeros(5, 12).to_sparse(),
                {},
                "the compiled kernels take plain dense tensors, the input is a tensor with the "
                "layout torch.sparse_coo",
            ),
        ],
    )
    def test_what_it_has_not(self, x: Tensor, tensors: dict[str, Tensor], why: str) -> None:
        assert cpu_cannot("lstm", x, weights(**tensors)) == why
        assert pick("auto", "lstm", x, weights(**tensors)) == "reference"
        with raises(f"backend='cpu' cannot serve: {why}; backend='reference' can"):
            pick("cpu", "lstm", x, weights(**tensors))

    def test_a_kind_of_somebody_s_own(self) -> None:
        why = "the compiled kernels have no mgu"
        assert cpu_cannot("mgu", torch.zeros(5, 12), weights()) == why

    def test_be_followed_by_a_transform(self) -> None:
        assert reasons(lambda x: cpu_cannot("lstm", x, weights())) == [
            None,
            *["torch.func and forward-mode derivatives do not reach into compiled kernels"] * 2,
            None,
        ]

    @pytest.mark.usefixtures("fake")
    def test_be_seen_by_a_mode(self) -> None:
        why = "a mode watches torch's operations, and would not see the compiled kernels"
        assert cpu_cannot("lstm", torch.zeros(5, 12), weights()) == why

    @pytest.mark.usefixtures("without_kernels")
    def test_be_there_where_nothing_was_compiled(self) -> None:
        assert cpu_cannot("lstm", torch.zeros(5, 12), weights()) == MISSING


class TestPick:
    """Of the recurrences alone."""

    def test_by_name(self) -> None:
        x = torch.zeros(5, 12)
        assert pick("auto", "lstm", x, weights()) == pick("cpu", "lstm", x, weights()) == "cpu"
        assert pick("reference", "lstm", x, weights()) == "reference"
        assert set(BACKENDS) == {"reference", "cpu"}

    def test_there_is_none_of_that_name(self) -> None:
        with raises("backend='cuda'; there are auto, reference, cpu"):
            pick("cuda", "lstm", torch.zeros(5, 12), weights())
        with raises(
            "backend='torch' serves peephole.LSTM, GRU and RNN: torch's operators take a layer's "
            "input and not gates_x; here there are auto, reference, cpu"
        ):
            pick("torch", "lstm", torch.zeros(5, 12), weights())

    @pytest.mark.usefixtures("without_kernels")
    def test_without_kernels(self) -> None:
        x = torch.zeros(5, 12)
        for backend in ("auto", "reference"):
            assert pick(backend, "lstm", x, weights()) == "reference"
        with raises(f"backend='cpu' cannot serve: {MISSING}; backend='reference' can"):
            pick("cpu", "lstm", x, weights())


def chosen(
    backend: str,
    *,
    steps: int = 2000,
    waste: float = 20.0,
    is_torchs: bool = True,
    training: bool = True,
    padded: bool = False,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    **tensors: Tensor,
) -> tuple[str, str | None]:
    x = torch.empty(steps, 3, dtype=dtype, device=device)
    return choose(
        backend,
        "lstm",
        x,
        lambda: waste,
        weights(**tensors),
        is_torchs=is_torchs,
        training=training,
        padded=padded,
    )


TRAINING = pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
IS_TORCHS = pytest.mark.parametrize("is_torchs", [True, False], ids=["torch's", "not torch's"])
PROJECTED = {"weight_hr": torch.zeros(2, 3)}


class TestChoose:
    """Of a layer."""

    @TRAINING
    @IS_TORCHS
    @pytest.mark.parametrize("backend", ["auto", "cpu"])
    @pytest.mark.parametrize("steps", [0, 1, 2000])
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_the_kernels_where_they_can(
        self, backend: str, training: bool, is_torchs: bool, steps: int, dtype: torch.dtype
    ) -> None:
        options = {"training": training, "is_torchs": is_torchs, "steps": steps, "dtype": dtype}
        for waste in (1.0, 20.0):
            assert chosen(backend, waste=waste, **options) == ("cpu", None)

    def test_what_stays_padded(self) -> None:
        padded = {"padded": True, "waste": 1.0}
        assert chosen("auto", **padded) == ("cpu", None)
        assert chosen("auto", training=False, **padded) == ("padded", None)
        assert chosen("auto", training=False, waste=1.0) == ("cpu", None)
        assert chosen("auto", training=False, is_torchs=False, **padded) == ("cpu", None)
        assert chosen("cpu", training=False, **padded) == ("cpu", None)

    def test_they_do_not_ask_for_the_padding(self) -> None:
        # To know it takes reading the offsets.
        def waste() -> float:
            raise AssertionError

        x, named = torch.zeros(5, 3), {"is_torchs": True, "training": True}
        for backend in ("auto", "cpu", "reference"):
            choose(backend, "lstm", x, waste, weights(), **named)

    @TRAINING
    @IS_TORCHS
    def test_the_reference_by_name(self, training: bool, is_torchs: bool) -> None:
        for steps in (0, 2000):
            found = chosen("reference", steps=steps, training=training, is_torchs=is_torchs)
            assert found == ("reference", None)

    def test_auto_says_why_not_the_kernels(self) -> None:
        assert chosen("auto", is_torchs=False, **NORM) == ("reference", NO_NORM)
        # What torch.nn has too, by what was measured.
        assert chosen("auto", **PROJECTED) == ("reference", NO_PROJECTION)
        assert chosen("auto", training=False, **PROJECTED) == ("packed", NO_PROJECTION)
        assert chosen("auto", waste=1.0, **PROJECTED) == ("padded", NO_PROJECTION)
        assert chosen("auto", steps=0, **PROJECTED) == ("reference", "the batch has no steps")

    @TRAINING
    @pytest.mark.usefixtures("fake")
    def test_other_devices(self, training: bool) -> None:
        for device, way in (("cuda", "packed"), ("mps", "padded")):
            assert chosen("torch", device=device, training=training) == (way, None)
            found, why = chosen("auto", device=device, training=training)
            assert found == way
            assert why is not None

    def test_kernels_by_name_that_cannot_serve(self) -> None:
        with raises(f"backend='cpu' cannot serve: {NO_NORM}; backend='reference' can"):
            chosen("cpu", **NORM)
        with raises(
            "backend='cpu' cannot serve: the compiled kernels are for the CPU, and the input is "
            "on meta; backend='reference' can"
        ):
            chosen("cpu", device="meta")

    def test_torch_by_name(self) -> None:
        assert chosen("torch", waste=1.0) == ("padded", None)
        # Not the reference, though it is faster.
        assert chosen("torch") == ("packed", None)
        assert chosen("torch", steps=0) == ("reference", "the batch has no steps")

    def test_in_a_transform(self) -> None:
        reach = "torch.func and forward-mode derivatives do not reach into "
        with forward_ad.dual_level():
            assert chosen("auto") == ("reference", reach + "torch's operators")
            assert chosen("auto", is_torchs=False) == ("reference", reach + "compiled kernels")
            assert chosen("reference") == ("reference", None)
            for backend, what in (("cpu", "compiled kernels"), ("torch", "torch's operators")):
                with raises(
                    f"backend={backend!r} cannot serve: {reach}{what}; backend='reference' can"
                ):
                    chosen(backend)

    @pytest.mark.usefixtures("without_kernels")
    def test_without_kernels(self) -> None:
        assert chosen("auto", is_torchs=False) == ("reference", MISSING)
        assert chosen("auto") == ("reference", MISSING)
        assert chosen("auto", training=False) == ("packed", MISSING)
        assert chosen("auto", waste=1.0) == ("padded", MISSING)
        assert chosen("auto", steps=0) == ("reference", "the batch has no steps")
        with raises(f"backend='cpu' cannot serve: {MISSING}; backend='reference' can"):
            chosen("cpu")
