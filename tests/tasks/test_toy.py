"""The toy: its data, its models, and the error that no model can beat."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import Tensor

from peephole import Ragged
from peephole.tasks.protocol import Batching
from peephole.tasks.toy import DATA_SETS, MODELS, Toy
from peephole.tasks.toy.data import clean_inputs, posterior_mean, simulate, wave


def f(x: float) -> float:
    """The published function, as its own statement."""
    return 2 + 0.5 * math.sin(x / 2 - 1) + math.sin(x) + math.sin(2 * x + 2) + math.sin(x / 4 + 1)


def test_wave_is_the_published_function() -> None:
    x = torch.linspace(-3, 10, 50, dtype=torch.float64)
    expected = torch.tensor([f(each) for each in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(wave(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", DATA_SETS)
def test_inputs_are_the_function_at_z_and_before_it_plus_noise(name: str) -> None:
    data = DATA_SETS[name]
    sample = simulate(data, 30_000, seed=3)
    assert sorted(set(sample.inputs.lengths.tolist())) == list(data.lengths)
    shares = sample.inputs.lengths.bincount()[list(data.lengths)]
    assert shares.tolist() == [30_000 // len(data.lengths)] * len(data.lengths)
    assert 0 <= sample.z.min() < 0.01
    assert 9.99 < sample.z.max() <= 10
    errors = [
        reading - f(z - t)
        for z, sequence in zip(sample.z[:3000].tolist(), sample.inputs[:3000], strict=True)
        for t, reading in enumerate(sequence.squeeze(1).tolist())
    ]
    assert abs(np.mean(errors)) < 4 * data.sd / len(errors) ** 0.5
    assert abs(np.std(errors) / data.sd - 1) < 4 / (2 * len(errors)) ** 0.5


def test_a_seed_gives_its_own_data_each_time() -> None:
    first, again, other = (simulate(DATA_SETS["variable"], 50, seed) for seed in (0, 0, 1))
    assert torch.equal(first.inputs.values, again.inputs.values)
    assert not torch.equal(first.z, other.z)


@pytest.mark.parametrize("readings", [[3.1], [1.7, 2.2], [2.5, 1.0, 3.3], [2.0, 2.5, 1.5, 3.0]])
@pytest.mark.parametrize("sd", [0.1, 0.05])
def test_posterior_mean_agrees_with_adaptive_quadrature(readings: list[float], sd: float) -> None:
    def likelihood(z: float) -> float:
        squares = sum((x - f(z - t)) ** 2 for t, x in enumerate(readings))
        return math.exp(-(squares - lowest) / (2 * sd**2))

    cuts = np.linspace(0, 10, 400)
    lowest = min(sum((x - f(z - t)) ** 2 for t, x in enumerate(readings)) for z in cuts)
    pieces = list(pairwise(cuts))
    mass = sum(integrate.quad(likelihood, a, b)[0] for a, b in pieces)
    moment = sum(integrate.quad(lambda z: z * likelihood(z), a, b)[0] for a, b in pieces)
    inputs = Ragged.from_list([torch.tensor(readings, dtype=torch.float64)[:, None]])
    assert posterior_mean(inputs, sd).item() == pytest.approx(moment / mass, abs=1e-6)


def test_bayes_error_is_the_published_one_at_each_length() -> None:
    sample = simulate(DATA_SETS["variable"], 240_000, seed=5)
    errors = (posterior_mean(sample.inputs, 0.1) - sample.z).square()
    for length, published in ((2, 1.350), (3, 0.0323), (4, 0.00115)):
        those = errors[sample.inputs.lengths == length]
        within = 4 * float(those.std()) / len(those) ** 0.5
        assert float(those.mean()) == pytest.approx(published, abs=within + 0.5e-5)


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts_are_exact(name: str) -> None:
    model = MODELS[name]
    assert sum(p.numel() for p in model.make().parameters()) == model.parameters


def test_the_published_counts() -> None:
    counts = {name: model.parameters for name, model in MODELS.items()}
    assert counts == {
        "mlp-1": 761,
        "mlp-1-fail": 761,
        "mlp-2": 761,
        "rnn": 755,
        "lstm": 2049,
        "lstm-variable": 2049,
        "lstm-reversed": 2049,
        "gru-variable": 929,
        "bilstm-direct": 4097,
    }


@pytest.mark.parametrize("name", MODELS)
def test_initial_weights_fill_the_published_range(name: str) -> None:
    model = MODELS[name].make()
    bound = MODELS[name].uniform or 27**-0.5
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    if name != "rnn":
        assert weights.abs().max() <= bound
    assert weights.abs().max() > 0.95 * bound
    assert abs(float(weights.mean())) < 0.1 * bound


def seen_in_an_epoch(toy: Toy) -> tuple[Tensor, Tensor]:
    epoch = toy.plan(Batching(16, None, 1, 0)).epoch(0)
    batches = list(toy.batches(epoch.share(k, 0, 1) for k in range(len(epoch))))
    assert len(batches) == len(epoch) == -(-len(toy.train.inputs) // 16)
    return (
        torch.cat([batch.inputs.first().squeeze(1) for batch in batches]),
        torch.cat([batch.targets for batch in batches]).squeeze(1),
    )


@pytest.mark.parametrize("name", ["lstm-variable", "bilstm-direct"])
def test_an_epoch_shows_every_training_sequence_once_beside_its_target(name: str) -> None:
    toy = Toy(MODELS[name], 1000, seed=0)
    inputs, targets = seen_in_an_epoch(toy)
    assert inputs.shape[0] == 700
    torch.testing.assert_close(
        inputs.sort().values, toy.train.inputs.first().squeeze(1).sort().values
    )
    assert not torch.equal(inputs, toy.train.inputs.first().squeeze(1))
    if not toy.data.every_step:
        expected = f_normalised(toy, targets)
        assert (inputs - expected).abs().max() < 6 * toy.data.sd / float(toy.sd)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_draws_nothing_while_it_trains(name: str) -> None:
    """As the task says of all of them: the loop does not seed torch's generator for them."""
    assert not Toy.draws
    toy = Toy(MODELS[name], 100, seed=0)
    model = toy.model().train()
    before = torch.get_rng_state()
    epoch = toy.plan(Batching(size=20, steps=None, pool=1, seed=0)).epoch(0)
    for batch in toy.batches(epoch.share(k, 0, 1) for k in range(len(epoch))):
        toy.loss(model, batch, None).total.backward()
    assert torch.equal(torch.get_rng_state(), before)


def f_normalised(toy: Toy, z: Tensor) -> Tensor:
    return ((wave(z.double()) - toy.mean) / toy.sd).float()


def test_direct_targets_are_z_then_one_less_at_each_step() -> None:
    toy = Toy(MODELS["bilstm-direct"], 60, seed=0)
    targets = toy.test.inputs.with_values(toy.test.targets)
    for z, steps in zip(toy.test_sample.z, targets, strict=True):
        expected = z - torch.arange(len(steps))
        torch.testing.assert_close(steps.squeeze(1), expected.float())


def test_reversed_reads_the_same_inputs_from_the_last_to_the_first() -> None:
    plain, turned = (Toy(MODELS[n], 60, seed=0) for n in ("lstm-variable", "lstm-reversed"))
    for a, b in zip(plain.test.inputs, turned.test.inputs, strict=True):
        assert torch.equal(a.flip(0), b)
    assert torch.equal(plain.test.targets, turned.test.targets)


def test_inputs_are_normalised_by_the_training_steps_alone() -> None:
    toy = Toy(MODELS["lstm-variable"], 1000, seed=0)
    train = toy.train.inputs.values.double()
    assert train.mean().item() == pytest.approx(0, abs=1e-6)
    assert train.std().item() == pytest.approx(1, abs=1e-6)
    assert toy.test.inputs.values.mean().item() != pytest.approx(0, abs=1e-6)


def test_errors_by_length_average_to_the_whole() -> None:
    toy = Toy(MODELS["bilstm-direct"], 600, seed=0)
    errors = toy.bayes_squared_errors()
    parts = toy.by_length(errors)
    steps = {
        length: int(length) * int((toy.test.inputs.lengths == int(length)).sum())
        for length in parts
    }
    whole = sum(parts[length] * steps[length] for length in parts) / sum(steps.values())
    assert float(errors.mean()) == pytest.approx(whole)


def test_the_grid_is_free_of_noise_and_spans_the_targets() -> None:
    toy = Toy(MODELS["lstm"], 100, seed=0)
    first, z, batch = toy.grid(points=11)
    torch.testing.assert_close(z, torch.arange(11, dtype=torch.float64))
    torch.testing.assert_close(first, wave(z))
    raw = batch.inputs.values.double() * toy.sd + toy.mean
    expected = clean_inputs(z, torch.full((11,), 3)).values
    torch.testing.assert_close(raw, expected, rtol=0, atol=1e-5)


def test_mean_squared_errors_are_those_of_the_training_mean() -> None:
    toy = Toy(MODELS["lstm"], 1000, seed=0)
    expected = np.mean((toy.test_sample.z.numpy() - toy.sample.z.numpy().mean()) ** 2)
    assert float(toy.mean_squared_errors().mean()) == pytest.approx(float(expected), rel=1e-5)
