"""What masks recurrent dropout and zoneout draw, seen from outside a layer.

The layers here are so plain that their output is the masks: with no input and the identity as
recurrent matrix, h(t) of a relu network is h(0) times the mask, t times.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import peephole
from peephole import Ragged
from tests.helpers.layerwise import random_batch, spy_on_masks

B, T, H = 40, 6, 50
KINDS = pytest.mark.parametrize("kind", [peephole.LSTM, peephole.GRU, peephole.RNN])


def plain(kind: type[nn.Module], recurrent: float, **options: Any) -> Any:
    """A layer whose weights are zero, but for ``recurrent`` times the identity in weight_hh."""
    layer = kind(1, H, bias=False, **options).double()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.zero_()
            if name.startswith("weight_hh"):
                for block in parameter.chunk(len(layer.gates)):
                    block.copy_(recurrent * torch.eye(H))
    return layer


def steps_of(layer: nn.Module, hx: Any) -> Tensor:
    """H at each step of B sequences of T steps: ``[T, B, H]``."""
    x = torch.zeros(T, B, 1, dtype=torch.float64)
    return layer(x, hx)[0].detach()


def ones(width: int = H) -> Tensor:
    return torch.ones(1, B, width, dtype=torch.float64)


def close_to(share: float, of: Tensor) -> bool:
    """Within five standard errors."""
    return abs(of.double().mean().item() - share) < 5 * (share * (1 - share) / of.numel()) ** 0.5


class TestRecurrentDropout:
    @pytest.mark.parametrize("p", [0.2, 0.5])
    def test_has_one_mask_for_all_steps(self, p: float) -> None:
        layer = plain(peephole.RNN, 1.0, nonlinearity="relu", recurrent_dropout=p)
        h = steps_of(layer, ones())
        mask = h[0]
        assert close_to(p, mask == 0)
        # What is kept is scaled, by the same mask at every step.
        torch.testing.assert_close(mask[mask != 0].unique(), torch.tensor([1 / (1 - p)]).double())
        for t in range(T):
            torch.testing.assert_close(h[t], mask ** (t + 1))

    def test_has_a_mask_for_each_sequence_direction_and_call(self) -> None:
        layer = plain(
            peephole.RNN, 1.0, nonlinearity="relu", recurrent_dropout=0.5, bidirectional=True
        )
        hx = torch.ones(2, B, H, dtype=torch.float64)
        first, second = steps_of(layer, hx), steps_of(layer, hx)
        forwards, reverse = first[0].split(H, 1)[0], first[-1].split(H, 1)[1]
        rows = torch.cat([forwards, reverse, second[0].split(H, 1)[0], second[-1].split(H, 1)[1]])
        assert len(rows.unique(dim=0)) == 4 * B

    def test_has_a_mask_for_each_layer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        masks = spy_on_masks(monkeypatch)
        peephole.GRU(1, H, num_layers=3, recurrent_dropout=0.5)(torch.zeros(T, B, 1))
        assert len(torch.cat([m["recurrent_mask"] for m in masks]).unique(dim=0)) == 3 * B

    @KINDS
    def test_has_none_in_evaluation(self, kind: type[nn.Module]) -> None:
        layer = kind(3, H, recurrent_dropout=0.5).eval()
        without = kind(3, H)
        without.load_state_dict(layer.state_dict())
        x = torch.randn(T, B, 3)
        torch.testing.assert_close(layer(x)[0], without(x)[0])
        assert not torch.equal(layer.train()(x)[0], without(x)[0])

    def test_of_the_projected_state(self, monkeypatch: pytest.MonkeyPatch) -> None:
        masks = spy_on_masks(monkeypatch)
        layer = peephole.LSTM(1, H, proj_size=7, recurrent_dropout=0.5)
        layer(torch.zeros(T, B, 1))
        assert list(masks[0]["recurrent_mask"].shape) == [B, 7]

    def test_the_same_seed_draws_the_same(self) -> None:
        layer = peephole.LSTM(3, H, recurrent_dropout=0.5, zoneout=0.5)
        x = random_batch([5, 0, 3], 3).to(torch.float32)

        def after(seed: int) -> Tensor:
            torch.manual_seed(seed)
            return layer(x)[0].values

        assert torch.equal(after(1), after(1))
        assert not torch.equal(after(1), after(2))


class TestZoneout:
    def test_draws_anew_at_each_step(self) -> None:
        # Without zoneout h would be 0 from the first step on: what is 1 has been kept.
        share = 0.7
        h = steps_of(plain(peephole.RNN, 0.0, zoneout=share), ones())
        assert set(h.unique().tolist()) == {0.0, 1.0}
        before = ones()[0]
        for t in range(T):
            assert close_to(share ** (t + 1), h[t])
            # Of those that were there, the same share is kept: each step draws for itself.
            assert close_to(share, h[t][before == 1])
            assert bool((h[t] <= before).all())
            before = h[t]
        assert len(h[0].unique(dim=0)) == B

    def test_is_the_expectation_in_evaluation(self) -> None:
        h = steps_of(plain(peephole.RNN, 0.0, zoneout=0.7).eval(), ones())
        powers = 0.7 ** torch.arange(1, T + 1, dtype=torch.float64)
        torch.testing.assert_close(h, powers.view(T, 1, 1).expand_as(h))

    def test_evaluation_is_the_mean_of_training(self) -> None:
        # True of one step, which is linear in the mask.
        layer = plain(peephole.GRU, 0.3, zoneout=0.4)
        x = torch.zeros(1, 20_000, 1, dtype=torch.float64)
        h0 = torch.ones(1, 20_000, H, dtype=torch.float64)
        trained, _ = layer(x, h0)
        evaluated, _ = layer.eval()(x, h0)
        assert evaluated.std() < 1e-9
        torch.testing.assert_close(trained.mean(), evaluated.mean(), rtol=2e-3, atol=0)

    @KINDS
    @pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
    def test_of_all_units_keeps_everything(self, kind: type[nn.Module], training: bool) -> None:
        layer = kind(3, H, zoneout=1.0).double().train(training)
        h0 = torch.randn(1, B, H, dtype=torch.float64)
        hx = (h0, torch.randn_like(h0)) if kind is peephole.LSTM else h0
        y, final = layer(torch.randn(T, B, 3, dtype=torch.float64), hx)
        torch.testing.assert_close(y, h0.expand_as(y))
        torch.testing.assert_close(final, hx)

    @pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
    def test_of_hidden_and_cell_apart(self, training: bool) -> None:
        x = torch.randn(T, B, 3, dtype=torch.float64)
        h0, c0 = (torch.randn(1, B, H, dtype=torch.float64) for _ in range(2))
        of_h = peephole.LSTM(3, H, zoneout=(1.0, 0.0)).double().train(training)
        y, (h_n, c_n) = of_h(x, (h0, c0))
        torch.testing.assert_close(y, h0.expand_as(y))
        torch.testing.assert_close(h_n, h0)
        assert bool((c_n != c0).all())
        of_c = peephole.LSTM(3, H, zoneout=(0.0, 1.0)).double().train(training)
        y, (h_n, c_n) = of_c(x, (h0, c0))
        torch.testing.assert_close(c_n, c0)
        assert bool((h_n != h0).all())

    def test_draws_each_state_s_share(self, monkeypatch: pytest.MonkeyPatch) -> None:
        masks = spy_on_masks(monkeypatch)
        layer = peephole.LSTM(1, H, proj_size=20, num_layers=2, zoneout=(0.2, 0.6))
        x = Ragged.from_list([torch.zeros(n, 1) for n in (30, 0, 10, 17)])
        layer(x)
        assert len(masks) == 2
        for each in masks:
            assert list(each) == ["zoneout_h", "zoneout_c"]
            assert list(each["zoneout_h"].shape) == [57, 20]
            assert list(each["zoneout_c"].shape) == [57, H]
            assert close_to(0.2, each["zoneout_h"])
            assert close_to(0.6, each["zoneout_c"])
            # No two steps have the same, of whatever sequence.
            assert len(each["zoneout_c"].unique(dim=0)) == 57
        assert not torch.equal(masks[0]["zoneout_c"], masks[1]["zoneout_c"])

    @pytest.mark.parametrize("share", [(0.0, 0.5), (0.5, 0.0)])
    def test_draws_nothing_for_a_share_of_0(
        self, share: tuple[float, float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        masks = spy_on_masks(monkeypatch)
        peephole.LSTM(1, H, zoneout=share)(torch.zeros(T, B, 1))
        assert list(masks[0]) == ["zoneout_h" if share[0] else "zoneout_c"]
