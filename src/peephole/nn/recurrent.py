"""A person's own cell over batches of any form."""

import functools
from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from peephole.nn import forms, pretrained
from peephole.nn.checks import check_dropout, check_flag
from peephole.nn.forms import Batch, Lengths
from peephole.nn.kind import refuse_torchscript, refuse_tracing
from peephole.nn.stack import stack
from peephole.ops import Found, scan
from peephole.ops.untraced import untraced
from peephole.ragged import Ragged

Cells = nn.Module | Sequence[nn.Module]


class Recurrent(nn.Module):
    """Runs a cell over a batch of sequences, in either direction, and stacks several.

    A cell is a module with two methods::

        forward(x, state) -> (y, state)     one step of n sequences: x is [n, I], y is [n, C]
        initial_state(batch_size) -> state  what each sequence begins with

    The state is a tensor ``[n, ...]``, or any nesting of tuples, lists and dicts of such tensors;
    each step gives it back in the same form. The cells of ``peephole`` are cells in this sense too
    (their method is called ``step``).

    Args:
        cell: a cell, or a cell for each layer.
        reverse: cells of the reverse direction, as many, which run each sequence from its last
            step to its first; their outputs are put beside the others'.
        dropout: share of the units dropped between layers while training.
        skip: the input goes to every layer, and every layer's output, side by side, to the output.
        batch_first: padded input and output are ``[B, T, ...]``.

    Raises:
        TypeError: something that is no cell.
        ValueError: not as many cells in reverse.
    """

    def __init__(
        self,
        cell: Cells,
        *,
        reverse: Cells | None = None,
        dropout: float = 0.0,
        skip: bool = False,
        batch_first: bool = False,
    ) -> None:
        super().__init__()
        self.cells = nn.ModuleList(_checked(cell))
        self.reverse_cells = nn.ModuleList([] if reverse is None else _checked(reverse))
        if reverse is not None and len(self.reverse_cells) != len(self.cells):
            raise ValueError(
                f"there are {len(self.cells)} cells and {len(self.reverse_cells)} in reverse; each "
                "layer takes one of both"
            )
        self.dropout = check_dropout(dropout, len(self.cells))
        self.skip = check_flag("skip", skip)
        self.batch_first = check_flag("batch_first", batch_first)

    def extra_repr(self) -> str:
        shown = (("dropout", 0.0), ("skip", False), ("batch_first", False))
        return ", ".join(f"{n}={getattr(self, n)!r}" for n, d in shown if getattr(self, n) != d)

    @untraced(
        "a cell's loop over the steps depends on numbers in the offsets; peephole.LSTM, GRU and "
        "RNN compile"
    )
    def forward(
        self,
        input: Ragged | Tensor | PackedSequence,
        hx: Any = None,
        lengths: Lengths | None = None,
    ) -> tuple[Any, Any]:
        """Run over a batch.

        Args:
            input: as ``peephole.LSTM`` takes it.
            hx: the initial state, in the cell's form; with several layers or directions a list of
                states, directions within layers. What the cells begin with if None.
            lengths: ``[B]``, with a padded tensor.

        Returns:
            The output in the input's form, and the state at each sequence's own end, as ``hx``.

        Raises:
            ValueError: a state that does not fit, or that changes its form on the way.
        """
        refuse_tracing(self)
        batch = forms.read(input, lengths, self.batch_first, type(self).__name__)
        if batch.values.dim() < 2:
            raise ValueError(f"a step is [n, I] for a cell, got values {list(batch.values.shape)}")
        cells = self._in_order()
        alone = len(cells) == 1
        if hx is None:
            initial = [cell.initial_state(batch.layout.sequences) for cell, _ in cells]
        else:
            given = [hx] if alone else hx
            if len(given) != len(cells):
                raise ValueError(
                    f"the initial state must be a list of {len(cells)} states, one for each layer "
                    f"and direction, got {len(given)}"
                )
            initial = list(given) if batch.batched else [_with_batch(state) for state in given]
        final: list[Any] = []
        runs = [
            functools.partial(_run, cell, reverse, batch, state, final)
            for (cell, reverse), state in zip(cells, initial, strict=True)
        ]
        D = 2 if len(self.reverse_cells) else 1
        layers = [runs[k : k + D] for k in range(0, len(runs), D)]
        y, _ = stack(layers, batch.values, self._drop, skip=self.skip)
        if not batch.batched:
            final = [pytree.tree_map(lambda s: s.squeeze(0), state) for state in final]
        return batch.restore(y), final[0] if alone else final

    def save_pretrained(self, directory: str | PathLike[str]) -> None:
        """Write ``config.json`` and ``model.safetensors``, which ``peephole.load`` reads.

        The weights of the cells are in it, the cells' code is not: ``peephole.load(directory,
        cell=...)`` is given cells made anew.

        Args:
            directory: made where there is none; these two files in it are replaced.

        Raises:
            TypeError: a subclass, which ``peephole.load`` could not make.
            UserError: the files cannot be written there.
        """
        pretrained.save(self, directory)

    def __prepare_scriptable__(self) -> None:
        refuse_torchscript(self)

    def _in_order(self) -> list[tuple[Any, bool]]:
        """The cells and whether they run in reverse, directions within layers."""
        forwards = [(cell, False) for cell in self.cells]
        if not len(self.reverse_cells):
            return forwards
        pairs = zip(forwards, ((cell, True) for cell in self.reverse_cells), strict=True)
        return [each for pair in pairs for each in pair]

    def _drop(self, values: Tensor) -> Tensor:
        return F.dropout(values, self.dropout, self.training)


def _checked(cells: Cells) -> list[nn.Module]:
    cells = [cells] if isinstance(cells, nn.Module) else list(cells)
    if not cells:
        raise ValueError("there must be at least one cell")
    for cell in cells:
        name = type(cell).__name__
        if isinstance(cell, nn.RNNCellBase):
            raise TypeError(
                f"torch.nn.{name} gives a state and no output; use peephole.{name}, which "
                "peephole.from_torch makes of it"
            )
        if not isinstance(cell, nn.Module) or not hasattr(cell, "initial_state"):
            raise TypeError(
                f"{name} is no cell: that is a module with forward(x, state) -> (y, state) and "
                "initial_state(batch_size) -> state"
            )
    return cells


def _with_batch(state: Any) -> Any:
    return pytree.tree_map(lambda s: s.unsqueeze(0), state)


def _run(
    cell: Any, reverse: bool, batch: Batch, initial: Any, finals: list[Any], x: Tensor
) -> Found:
    """One cell in one direction; its final state goes to the end of ``finals``."""
    take = getattr(cell, "step", cell)
    leaves, form = pytree.tree_flatten(initial)
    for leaf in leaves:
        if not isinstance(leaf, Tensor) or leaf.shape[:1] != (batch.layout.sequences,):
            what = list(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__
            raise ValueError(
                f"a state of {type(cell).__name__} must be tensors with a row for each of the "
                f"{batch.layout.sequences} sequences, got {what}"
            )

    def step(x: Tensor, *state: Tensor) -> tuple[tuple[Tensor], tuple[Tensor, ...]]:
        y, new = take(x, pytree.tree_unflatten(state, form))
        new_leaves, new_form = pytree.tree_flatten(new)
        if new_form != form:
            raise ValueError(
                f"{type(cell).__name__} was given a state of the form {form} and gave back "
                f"{new_form}; they must agree"
            )
        return (y,), tuple(new_leaves)

    (y,), final = scan(step, [x], batch.layout, tuple(leaves), reverse=reverse)
    finals.append(pytree.tree_unflatten(final, form))
    return Found(y, final)
