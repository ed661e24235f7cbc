"""``save_pretrained`` and ``load``: what goes round, and what is refused, in which words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import peephole
from peephole.errors import UserError
from peephole.nn.cell import Cell
from peephole.nn.kind import Kind
from peephole.nn.layer import Layer
from peephole.nn.rnn import RNNKind
from tests.helpers.errors import raises
from tests.helpers.layers import HIDDEN, INPUT, assert_close, ragged, random_sequences

LENGTHS = [4, 0, 1, 7, 7]


class Unit(nn.Module):
    """A minimal gated unit (Zhou et al. 2016), with a buffer beside its parameters."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.gate = nn.Linear(input_size + hidden_size, hidden_size, dtype=torch.float64)
        self.new = nn.Linear(input_size + hidden_size, hidden_size, dtype=torch.float64)
        self.register_buffer("steps", torch.tensor([3, 4]))

    def initial_state(self, batch_size: int) -> Tensor:
        return self.gate.weight.new_zeros(batch_size, self.hidden_size)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        f = self.gate(torch.cat([x, h], 1)).sigmoid()
        h = (1 - f) * h + f * self.new(torch.cat([x, f * h], 1)).tanh()
        return h, h


LAYERS: dict[str, Callable[[], Kind]] = {
    "LSTM": lambda: peephole.LSTM(INPUT, HIDDEN),
    "LSTM, torch's arguments": lambda: peephole.LSTM(
        INPUT, HIDDEN, 2, False, True, 0.5, True, 2, dtype=torch.float64
    ),
    "LSTM, options": lambda: peephole.LSTM(
        INPUT,
        [HIDDEN, 2, 4],
        peephole="full",
        coupled=True,
        cell_clip=3,
        forget_bias=1.5,
        zoneout=(0.25, 0),
        recurrent_dropout=0.5,
        layer_norm=True,
        learn_initial_state=True,
        skip=True,
        initialization="orthogonal",
        backend="reference",
    ),
    "GRU": lambda: peephole.GRU(
        INPUT, HIDDEN, zoneout=0.5, single_bias=True, initialization=("chrono", 20.5)
    ),
    "RNN": lambda: peephole.RNN(INPUT, HIDDEN, 3, "relu", bidirectional=True, backend="torch"),
    "LSTMCell": lambda: peephole.LSTMCell(INPUT, HIDDEN, peephole="diagonal", zoneout=(0, 1)),
    "GRUCell": lambda: peephole.GRUCell(INPUT, HIDDEN, False, learn_initial_state=True),
    "RNNCell": lambda: peephole.RNNCell(INPUT, HIDDEN, True, "relu", dtype=torch.bfloat16),
}
EVERY_LAYER = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = config_of(folder)
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def assert_same_weights(given: nn.Module, wanted: nn.Module) -> None:
    assert list(given.state_dict()) == list(wanted.state_dict())
    for name, tensor in wanted.state_dict().items():
        assert given.state_dict()[name].dtype == tensor.dtype
        assert torch.equal(given.state_dict()[name], tensor), name


class TestRoundTrip:
    @EVERY_LAYER
    def test_layers_and_cells(self, tmp_path: Path, make: Callable[[], Kind]) -> None:
        layer = make()
        # Drawn anew, so that no first value is right by chance.
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
        layer.save_pretrained(tmp_path / "new" / "folder")
        state = torch.get_rng_state()
        found = peephole.load(tmp_path / "new" / "folder")
        assert torch.equal(torch.get_rng_state(), state)
        assert type(found) is type(layer)
        # Shows every option.
        assert repr(found) == repr(layer)
        assert found.options() == layer.options()
        assert_same_weights(found, layer)
        assert found.training
        assert all(p.requires_grad and p.is_leaf for p in found.parameters())
        assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == [
            "config.json",
            "model.safetensors",
        ]
        x = torch.randn(4, INPUT, dtype=next(layer.parameters()).dtype)
        layer.eval()
        found.eval()
        x = x if isinstance(layer, Cell) else x.unsqueeze(1)
        ours, theirs = (torch.utils._pytree.tree_leaves(m(x)) for m in (found, layer))
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)

    def test_config_holds_every_argument(self, tmp_path: Path) -> None:
        peephole.GRU(INPUT, [5, 4], zoneout=0.25, dtype=torch.float64).save_pretrained(tmp_path)
        assert config_of(tmp_path) == {
            "format": 1,
            "class": "GRU",
            "dtype": "float64",
            "arguments": {
                "input_size": 3,
                "hidden_size": [5, 4],
                "num_layers": 2,
                "bias": True,
                "batch_first": False,
                "dropout": 0.0,
                "bidirectional": False,
                "proj_size": 0,
                "zoneout": 0.25,
                "recurrent_dropout": 0.0,
                "layer_norm": False,
                "learn_initial_state": False,
                "initialization": "torch",
                "single_bias": False,
                "skip": False,
                "backend": "auto",
            },
        }

    def test_what_is_not_kept(self, tmp_path: Path) -> None:
        layer = peephole.RNN(INPUT, HIDDEN, 2, initialization=lambda name, p: nn.init.ones_(p))
        layer.eval().weight_ih_l0.requires_grad_(False)
        layer.weight_hh_l1 = layer.weight_hh_l0
        layer.save_pretrained(tmp_path)
        found = peephole.load(tmp_path)
        assert config_of(tmp_path)["arguments"]["initialization"] == "torch"
        assert torch.equal(found.weight_hh_l1, torch.ones(5, 5))
        assert found.weight_hh_l1 is not found.weight_hh_l0
        assert found.weight_ih_l0.requires_grad
        assert found.training

    def test_an_old_folder_is_replaced_and_its_other_files_left(self, tmp_path: Path) -> None:
        (tmp_path / "README.md").write_text("mine")
        peephole.LSTM(2, 3).save_pretrained(str(tmp_path))
        found = peephole.load(str(tmp_path))
        peephole.GRU(INPUT, HIDDEN).save_pretrained(tmp_path)
        assert isinstance(peephole.load(tmp_path), peephole.GRU)
        assert (tmp_path / "README.md").read_text() == "mine"
        # What was loaded does not stand on the file.
        (tmp_path / "model.safetensors").write_bytes(b"")
        assert torch.isfinite(found(torch.randn(4, 1, 2))[0]).all()

    def test_device(self, tmp_path: Path) -> None:
        peephole.LSTM(2, 3).save_pretrained(tmp_path)
        assert peephole.load(tmp_path, device="meta").weight_hh_l0.is_meta
        assert peephole.load(tmp_path, device="cpu").weight_hh_l0.device.type == "cpu"

    def test_a_fourth_kind_needs_no_second_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Own(RNNKind, Layer):
            def __init__(self, input_size: int, device: Any = None, dtype: Any = None) -> None:
                self._take_own("relu")
                super().__init__(input_size, 4, 1, True, False, 0.0, False, 0, device, dtype)

        monkeypatch.setattr(peephole.nn, "Own", Own, raising=False)
        monkeypatch.setattr(peephole.nn, "__all__", [*peephole.nn.__all__, "Own"])
        layer = Own(2)
        layer.save_pretrained(tmp_path)
        assert config_of(tmp_path)["arguments"] == {"input_size": 2}
        assert_same_weights(peephole.load(tmp_path), layer)


class TestRecurrent:
    def make(self, directions: int = 2) -> peephole.Recurrent:
        cells = [[Unit(INPUT, 4), Unit(4 * directions, 2)] for _ in range(directions)]
        return peephole.Recurrent(cells[0], reverse=cells[1] if directions == 2 else None)

    def test_round_trip(self, tmp_path: Path) -> None:
        model = self.make()
        model.cells[0].steps.fill_(9)
        model.save_pretrained(tmp_path)
        assert config_of(tmp_path) == {
            "format": 1,
            "class": "Recurrent",
            "arguments": {"dropout": 0.0, "skip": False, "batch_first": False},
        }
        fresh = self.make()
        kept = list(fresh.parameters())
        found = peephole.load(
            tmp_path, cell=list(fresh.cells), reverse=list(fresh.reverse_cells), device="cpu"
        )
        assert_same_weights(found, model)
        # An optimizer that has the cells' parameters still has them.
        assert all(a is b for a, b in zip(found.parameters(), kept, strict=True))
        x = ragged(random_sequences(LENGTHS))
        assert_close(found(x)[0].values, model(x)[0].values)

    def test_options_and_our_own_cells(self, tmp_path: Path) -> None:
        cells = [peephole.GRUCell(3, 5), peephole.GRUCell(8, 5)]
        model = peephole.Recurrent(cells, dropout=0.5, skip=True, batch_first=True)
        model.save_pretrained(tmp_path)
        new = [peephole.GRUCell(3, 5), peephole.GRUCell(8, 5)]
        found = peephole.load(tmp_path, cell=new)
        assert_same_weights(found, model)
        assert found.extra_repr() == "dropout=0.5, skip=True, batch_first=True"

    def test_cells_on_the_meta_device_get_the_values(self, tmp_path: Path) -> None:
        model = self.make(1)
        model.save_pretrained(tmp_path)
        with torch.device("meta"):
            empty = self.make(1)
        assert_same_weights(peephole.load(tmp_path, cell=list(empty.cells)), model)

    def test_cells_must_fit(self, tmp_path: Path) -> None:
        model = self.make()
        model.save_pretrained(tmp_path)
        file = tmp_path / "model.safetensors"
        before = self.make()
        wanted = {name: t.clone() for name, t in before.state_dict().items()}
        with raises(
            f"{file} does not go with config.json: it has 'reverse_cells.0.gate.bias', which does "
            "not belong there",
            UserError,
        ):
            peephole.load(tmp_path, cell=list(before.cells))
        for name, tensor in before.state_dict().items():
            assert torch.equal(tensor, wanted[name])
        with raises(
            f"{file} does not go with config.json: it has 'cells.0.gate.weight' as float64 [4, 7], "
            "which must be float32 [4, 7]",
            UserError,
        ):
            self.load_into(tmp_path, [cell.float() for cell in before.cells], before)
        with raises(
            f"cell: {tmp_path / 'config.json'} is of a peephole.Recurrent: give the cell that it "
            "ran, or a list of cells, as in peephole.load(directory, cell=MyCell(...))",
            UserError,
        ):
            peephole.load(tmp_path)

    def load_into(self, folder: Path, cells: list[nn.Module], model: peephole.Recurrent) -> None:
        peephole.load(folder, cell=cells, reverse=list(model.reverse_cells))

    @pytest.mark.parametrize("option", ["cell", "reverse"])
    def test_a_layer_takes_no_cell(self, tmp_path: Path, option: str) -> None:
        peephole.LSTM(2, 3).save_pretrained(tmp_path)
        with raises(
            f"{option}: {tmp_path / 'config.json'} is of a peephole.LSTM, which takes none",
            UserError,
        ):
            peephole.load(tmp_path, **{option: Unit(2, 3)})


class Mine(peephole.LSTM):
    pass


class TestSavingIsRefused:
    def test_of_a_class_that_peephole_does_not_have(self, tmp_path: Path) -> None:
        message = "save_pretrained writes GRU, LSTM, .*this is tests.nn.test_save.Mine, a subclass"
        with pytest.raises(TypeError, match=message):
            Mine(2, 3).save_pretrained(tmp_path / "new")
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda m: prune.random_unstructured(m, "weight_hh_l0", 0.5),
                r"it lacks 'weight_hh_l0'; if a weight is pruned",
            ),
            (lambda m: m.to("meta"), r"'weight_ih_l0' is on the meta device"),
            (
                lambda m: setattr(m, "bias_ih_l0", nn.Parameter(m.bias_ih_l0.double())),
                r"the parameters are float32, float64; a folder holds a layer of one dtype",
            ),
            (lambda m: setattr(m, "dropout", float("nan")), r"JSON"),
            (lambda m: setattr(m, "zoneout", 2.0), r"zoneout=2.0; it must be"),
            (lambda m: setattr(m, "num_layers", 2), r"is not what its arguments make: it lacks"),
        ],
    )
    def test_of_what_could_not_be_loaded(
        self, tmp_path: Path, change: Callable[[nn.Module], Any], message: str
    ) -> None:
        layer = peephole.LSTM(2, 3)
        change(layer)
        with pytest.raises(ValueError, match=message):
            layer.save_pretrained(tmp_path / "new")
        assert not (tmp_path / "new").exists()

    def test_of_a_parametrized_layer(self, tmp_path: Path) -> None:
        layer = parametrizations.weight_norm(peephole.LSTM(2, 3), "weight_hh_l0")
        with pytest.raises(TypeError, match="whose parametrizations would be lost"):
            layer.save_pretrained(tmp_path)

    def test_where_no_folder_can_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(UserError, match=r"^cannot write into .*file: "):
            peephole.LSTM(2, 3).save_pretrained(tmp_path / "file")
