"""The contenders compute the same, and one that does not is found."""

import dataclasses

import pytest
import torch

from benchmarks.contenders import Size, batch, check_agreement, contenders

SMALL = Size(5, 7, 3, 6)
OURS = ["auto", "fresh", "reference", "same_padded", "same_packed"]
KINDS = ["LSTM", "GRU", "RNN"]
MODES = ["train", "infer"]


def test_lengths_are_between_the_bounds_and_one_is_the_longest() -> None:
    size = Size(200, 40, 2, 4)
    lengths = batch(size).lengths
    assert len(lengths) == size.B
    assert int(lengths.max()) == size.T
    assert int(lengths.min()) == size.shortest == 5
    assert Size(16, 4, 1, 16).shortest == 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_all_agree(kind: str, mode: str) -> None:
    all = contenders(kind, SMALL)
    assert list(all) == ["padded", "packed", *OURS]
    check_agreement(all, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["padded", *OURS])
def test_another_function_is_refused(name: str, mode: str) -> None:
    all = contenders("GRU", SMALL)
    forward = all[name].forward
    all[name] = dataclasses.replace(all[name], forward=lambda: 1.001 * forward())
    with pytest.raises(ValueError, match=f"^{name} computes something else .* {mode}"):
        check_agreement(all, mode)


@pytest.mark.parametrize("kind", KINDS)
def test_training_gives_a_gradient_for_every_weight(kind: str) -> None:
    for contender in contenders(kind, SMALL).values():
        gradients = contender.train()
        assert [g.shape for g in gradients] == [p.shape for p in contender.layer.parameters()]
        assert all(bool(g.abs().sum() > 0) for g in gradients)


def test_inference_keeps_no_graph() -> None:
    for contender in contenders("LSTM", SMALL).values():
        assert contender.infer().is_inference()
        assert contender.call("infer")() is not None
        assert not contender.layer.training


def test_the_same_seed_gives_the_same_batch() -> None:
    torch.testing.assert_close(batch(SMALL).values, batch(SMALL).values, rtol=0, atol=0)
