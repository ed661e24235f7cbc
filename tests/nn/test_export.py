"""``torch.export`` of models with our layers, and ``Ragged`` as a node of torch's trees.

What a person has to do (for docs/layers.md):

- Give the sizes as dynamic: for a Ragged, which is its values and its offsets,
  ``dynamic_shapes={"x": [{0: Dim.DYNAMIC}, {0: Dim.DYNAMIC}]}``.
- Export an example whose N and B are two or more, within
  ``torch.fx.experimental._config.patch(backed_size_oblivious=True)``. Without it torch takes it
  for granted that B is not 1, and the program refuses one sequence.
- Import ``peephole.nn`` before ``torch.export.load``: it defines the operations that a program
  holds, and Ragged. (``import peephole`` by itself loads nothing yet.)
"""

import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic_shapes
from torch.utils import _pytree as pytree

import peephole
from peephole import Ragged
from tests.helpers.batches import assert_same_batch, batch_of, offsets_of
from tests.helpers.errors import raises
from tests.helpers.graphs import (
    F64,
    LAYERS,
    Model,
    assert_close,
    random_batch,
    traceable,  # noqa: F401
)

STRICT = pytest.mark.parametrize("strict", [True, False], ids=["strict", "non-strict"])
# The example has N = 9 and B = 3; then others, one sequence, one step, none.
EXAMPLE = [3, 2, 4]
SERVED = [[1, 1], [3, 0, 2, 1, 5], [3], [1], [0], [0, 0], []]


class OnParts(nn.Module):
    """A model as one puts it behind an interface that knows tensors only."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, values: Tensor, offsets: Tensor) -> Any:
        y, final = self.model(Ragged(values, offsets))
        return y.values, final


class OnPadded(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Any:
        return self.layer(x, lengths=lengths)


def exported(
    model: nn.Module, example: tuple[Any, ...], dynamic: Any, strict: bool
) -> ExportedProgram:
    with symbolic_shapes.patch(backed_size_oblivious=True):
        return torch.export.export(model, example, dynamic_shapes=dynamic, strict=strict)


def saved_and_loaded(program: ExportedProgram) -> ExportedProgram:
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


def tensors(result: Any) -> list[Tensor]:
    return [leaf.detach() for leaf in pytree.tree_leaves(result)]


@pytest.mark.usefixtures("traceable")
class TestExport:
    @STRICT
    @pytest.mark.parametrize("name", ["lstm", "lstm-dropped", "gru-widths", "rnn-single_bias"])
    def test_a_model_that_takes_a_ragged(self, name: str, strict: bool) -> None:
        kind, options = LAYERS[name]
        model = Model(kind, **options).eval()
        sizes = {"x": [{0: Dim.DYNAMIC}, {0: Dim.DYNAMIC}]}
        program = exported(model, (random_batch(EXAMPLE),), sizes, strict)
        for each in (program, saved_and_loaded(program)):
            serve = each.module()
            for lengths in SERVED:
                x = random_batch(lengths)
                result = serve(x)
                assert isinstance(result[0], Ragged)
                assert_close(tensors(result), tensors(model(x)))

    @STRICT
    def test_a_model_that_takes_values_and_offsets(self, strict: bool) -> None:
        model = Model(peephole.LSTM, peephole="diagonal").eval()
        x = random_batch(EXAMPLE)
        sizes = ({0: Dim.DYNAMIC}, {0: Dim.DYNAMIC})
        program = exported(OnParts(model), (x.values, x.offsets), sizes, strict)
        for each in (program, saved_and_loaded(program)):
            serve = each.module()
            for lengths in SERVED:
                x = random_batch(lengths)
                y, final = model(x)
                assert_close(tensors(serve(x.values, x.offsets)), tensors((y.values, final)))
            with raises("offsets end at 5, but values have 6 steps; they must agree"):
                serve(torch.randn(6, 3, dtype=F64), offsets_of([3, 2]))

    def test_initial_states(self) -> None:
        model = Model(peephole.LSTM).eval()

        def states(sequences: int) -> tuple[Tensor, Tensor]:
            h0, c0 = torch.randn(2, 4, sequences, 4, dtype=F64)
            return h0, c0

        by_sequence = {1: Dim.DYNAMIC}
        sizes = {
            "x": [{0: Dim.DYNAMIC}, {0: Dim.DYNAMIC}],
            "hx": (by_sequence, by_sequence),
        }
        serve = exported(model, (random_batch(EXAMPLE), states(3)), sizes, strict=False).module()
        for lengths in SERVED:
            x, hx = random_batch(lengths), states(len(lengths))
            assert_close(tensors(serve(x, hx)), tensors(model(x, hx)))

    @STRICT
    @pytest.mark.parametrize("with_lengths", [False, True], ids=["whole", "lengths"])
    def test_padded(self, strict: bool, with_lengths: bool) -> None:
        layer = peephole.LSTM(3, 4, 2, batch_first=True, bidirectional=True, dtype=F64).eval()

        def call(sequences: int, steps: int) -> tuple[Tensor, ...]:
            x = torch.randn(sequences, steps, 3, dtype=F64)
            lengths = torch.arange(sequences).flip(0) % (steps + 1)
            return (x, lengths) if with_lengths else (x,)

        sizes = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC}, {0: Dim.DYNAMIC})
        program = exported(OnPadded(layer), call(3, 4), sizes[: 1 + with_lengths], strict)
        serve = program.module()
        for shape in ((2, 5), (5, 5), (1, 3), (3, 1), (1, 1), (2, 0), (0, 2)):
            x, *lengths = call(*shape)
            wanted = layer(x, lengths=lengths[0] if lengths else None)
            assert_close(tensors(serve(x, *lengths)), tensors(wanted))
        if with_lengths:
            with raises("lengths[1] = 6 is longer than the padded input (5 steps)"):
                serve(torch.randn(2, 5, 3, dtype=F64), torch.tensor([5, 6]))

    @STRICT
    def test_it_trains(self, strict: bool) -> None:
        """A program that was exported in training mode has the model's gradients."""
        model = Model(peephole.GRU, layer_norm=True)
        sizes = {"x": [{0: Dim.DYNAMIC}, {0: Dim.DYNAMIC}]}
        serve = exported(model, (random_batch(EXAMPLE),), sizes, strict).module()
        x = random_batch([2, 0, 5])
        for run in (serve, model):
            y, final = run(x)
            (y.values.square().sum() + final.sin().sum()).backward()
        given = dict(serve.named_parameters())
        for name, parameter in model.named_parameters():
            assert parameter.grad.abs().max() > 0
            assert_close([given[name].grad], [parameter.grad])

    def test_another_process_serves_it(self, tmp_path: Path) -> None:
        model = Model(peephole.LSTM, peephole="full").eval()
        x = random_batch(EXAMPLE)
        sizes = ({0: Dim.DYNAMIC}, {0: Dim.DYNAMIC})
        program = exported(OnParts(model), (x.values, x.offsets), sizes, strict=False)
        torch.export.save(program, tmp_path / "model.pt2")
        x = random_batch([4])
        given = (x.values.detach(), x.offsets)
        torch.save(given, tmp_path / "given.pt")
        code = (
            "import torch, peephole.nn\n"
            "serve = torch.export.load('model.pt2').module()\n"
            "y, _ = serve(*torch.load('given.pt'))\n"
            "torch.save(y.detach(), 'y.pt')\n"
        )
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
        assert_close([torch.load(tmp_path / "y.pt")], [model(x)[0].values.detach()])


class TestNode:
    """Ragged in ``torch.utils._pytree``: its two tensors, not what was worked out."""

    @pytest.mark.parametrize("lengths", [[3, 0, 2], [1], []], ids=str)
    def test_there_and_back(self, lengths: Sequence[int]) -> None:
        batch = batch_of(lengths)
        leaves, form = pytree.tree_flatten({"x": batch, "k": 1})
        assert [id(leaf) for leaf in leaves[:2]] == [id(batch.values), id(batch.offsets)]
        again = pytree.tree_unflatten(leaves, form)["x"]
        assert isinstance(again, Ragged)
        assert_same_batch(again, batch)

    def test_keys(self) -> None:
        with_paths, _ = pytree.tree_flatten_with_path([batch_of([2, 1])])
        assert [pytree.keystr(path) for path, _ in with_paths] == ["[0].values", "[0].offsets"]

    def test_map(self) -> None:
        batch = batch_of([2, 0, 1])
        mapped = pytree.tree_map(lambda t: t * 2, batch)
        assert_close([mapped.values, mapped.offsets], [batch.values * 2, batch.offsets * 2])

    def test_what_was_worked_out_stays_behind(self) -> None:
        batch = batch_of([2, 0, 3])
        assert batch.max_length == 3
        leaves, form = pytree.tree_flatten(batch)
        longer = pytree.tree_unflatten([torch.randn(9, 2), offsets_of([1, 7, 1])], form)
        assert longer.max_length == 7
        assert longer.layout is not batch.layout
        assert pytree.tree_unflatten(leaves, form).layout is not batch.layout

    def test_forms_are_equal_whatever_the_sizes(self) -> None:
        """A graph compares them, and must not be compiled anew."""
        short, long = batch_of([1]), batch_of([3, 4, 5])
        long.layout.order()
        assert pytree.tree_structure(short) == pytree.tree_structure(long)

    def test_a_form_is_written_and_read_by_name(self) -> None:
        form = pytree.tree_structure((batch_of([1, 2]), 3))
        written = pytree.treespec_dumps(form)
        assert "peephole.Ragged" in written
        assert pytree.treespec_loads(written) == form
