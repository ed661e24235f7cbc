"""The contenders compute the same, and one that does not is found."""

import dataclasses

import pytest
import torch

from benchmarks.contenders import batch, check_agreement, contenders
from benchmarks.kinds import KINDS
from benchmarks.sizes import SIZES, Size

SMALL = Size(5, 7, 3, 6)
MODES = ["train", "infer"]
# The compiled kernels are there on some machines only.
TAKING_PART = {
    kind: [*has.contenders, *(name for name in has.optional if name != "cpu")]
    for kind, has in KINDS.items()
}
COMPARED = [
    (kind, name)
    for kind, names in TAKING_PART.items()
    for name in names
    if name not in ("packed", "loop")
]


def test_lengths_are_between_the_bounds_and_one_is_the_longest() -> None:
    size = Size(200, 40, 2, 4)
    lengths = batch(size).lengths
    assert len(lengths) == size.B
    assert int(lengths.max()) == size.T
    assert int(lengths.min()) == size.shortest == 5
    assert SIZES[0].shortest == 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_all_agree(kind: str, mode: str) -> None:
    all = contenders(kind, SMALL, TAKING_PART[kind])
    assert list(all) == TAKING_PART[kind]
    check_agreement(all, mode)


@pytest.mark.parametrize("kind", KINDS)
def test_who_is_not_named_does_not_take_part(kind: str) -> None:
    assert tuple(contenders(kind, SMALL)) == KINDS[kind].contenders
    name = KINDS[kind].contenders[0]
    assert list(contenders(kind, SMALL, [name])) == [name]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("kind", "name"), COMPARED)
def test_another_function_is_refused(kind: str, name: str, mode: str) -> None:
    all = contenders(kind, SMALL, [name])
    forward = all[name].forward
    all[name] = dataclasses.replace(all[name], forward=lambda: 1.001 * forward())
    with pytest.raises(ValueError, match=f"^{name} computes something else .* {mode}"):
        check_agreement(all, mode)


def test_what_others_are_compared_with_is_named() -> None:
    for kind, name, truth in (
        ("GRU", "padded", r"torch.nn.*\.GRU"),
        ("diagonal", "auto", r"benchmarks.peers.loop.PeepholeLoop"),
        ("peepholes", "full", r"peephole.nn.lstm.LSTM"),
    ):
        all = contenders(kind, SMALL, [name])
        zero = torch.zeros_like(all[name].forward())
        all[name] = dataclasses.replace(all[name], forward=lambda zero=zero: zero)
        with pytest.raises(ValueError, match=truth):
            check_agreement(all, "infer")


@pytest.mark.parametrize("kind", KINDS)
def test_training_gives_a_gradient_for_every_weight(kind: str) -> None:
    for contender in contenders(kind, SMALL, TAKING_PART[kind]).values():
        gradients = contender.train()
        assert [g.shape for g in gradients] == [p.shape for p in contender.layer.parameters()]
        assert all(bool(g.abs().sum() > 0) for g in gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_inference_keeps_no_graph(kind: str) -> None:
    for contender in contenders(kind, SMALL, TAKING_PART[kind]).values():
        assert contender.infer().is_inference()
        assert contender.call("infer")() is not None
        assert not contender.layer.training


def test_peepholes_are_those_that_are_named() -> None:
    shapes = {
        name: [tuple(w.shape) for n, w in c.layer.named_parameters() if n == "weight_ch_l0"]
        for name, c in contenders("peepholes", SMALL).items()
    }
    assert shapes == {"none": [], "diagonal": [(3, 6)], "full": [(18, 6)]}
    assert contenders("diagonal", SMALL)["auto"].layer.peephole == "diagonal"


@pytest.mark.parametrize("kind", KINDS)
def test_the_backend_is_for_those_that_are_ours_and_no_backends(kind: str) -> None:
    for contender in contenders(kind, SMALL, backend="reference").values():
        contender.infer()
        assert contender.backend in (None, "reference")
    ours = contenders(kind, SMALL, backend="reference")["none" if kind == "peepholes" else "auto"]
    ours.infer()
    assert ours.backend == "reference"


def test_the_same_seed_gives_the_same_batch() -> None:
    torch.testing.assert_close(batch(SMALL).values, batch(SMALL).values, rtol=0, atol=0)
