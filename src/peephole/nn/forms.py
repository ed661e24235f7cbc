"""The forms in which a batch comes, and in which its output goes back."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from peephole.offsets import Layout, checked_lengths, numbers, offsets_from_lengths, packed_rows
from peephole.ops.compiled import packed_rows_compiled
from peephole.ragged import Ragged

Lengths = Tensor | list[int] | tuple[int, ...]


class Batch(NamedTuple):
    """A batch as the layers compute on it.

    Attributes:
        values: ``[N, I]``, the sequences end to end.
        layout: where they begin and end.
        restore: an output ``[N, C]`` to the form in which the input came.
        form: "ragged", "padded" (all sequences of one length), "ragged padded", "packed" or
            "nested".
        batched: False for one sequence without a dimension for the batch.
        rows: of packed input, for each row of the values its row there.
        lengths: ``[B]`` where ``values`` hold the whole padded input, steps that do not exist
            too: in a compiled graph, whose sizes may not depend on numbers in tensors.
    """

    values: Tensor
    layout: Layout
    restore: Callable[[Tensor], Any]
    form: str
    batched: bool = True
    rows: Tensor | None = None
    lengths: Tensor | None = None

    def like(self, values: Tensor) -> Ragged:
        """Something known of each step, as Ragged."""
        if self.lengths is None:
            return Ragged._on(values, self.layout)
        raise NotImplementedError(
            "return_states with padded input and lengths cannot be compiled, since the number of "
            "steps is a number in a tensor; give a Ragged"
        )

    def drawn(self) -> Tensor | None:
        """For each row of the values, its row where ``torch.nn`` draws a mask; None: the same.

        In padded input it draws for all first steps, then for all second ones.
        """
        B, N = self.layout.sequences, self.values.shape[0]
        if self.form != "padded" or not N:
            return self.rows
        return torch.arange(N, device=self.values.device).view(N // B, B).t().flatten()


def read(input: Any, lengths: Lengths | None, batch_first: bool, layer: str) -> Batch:
    """Take a batch in any form.

    Args:
        input: Ragged; padded ``[T, B, ...]`` or ``[B, T, ...]``; one sequence ``[T, I]``;
            PackedSequence; or a nested tensor with the jagged layout.
        lengths: ``[B]``, steps of each sequence of a padded input.
        batch_first: which layout a padded input has.
        layer: what the layer is called, for errors.

    Raises:
        TypeError: ``input`` is none of these.
        ValueError: lengths that do not fit, or that come with an input that has its own.
    """
    if isinstance(input, Tensor) and not input.is_nested:
        return _padded(input, lengths, batch_first, layer)
    if lengths is not None:
        raise ValueError(
            f"lengths go with a padded input; this {type(input).__name__} has lengths of its own"
        )
    if isinstance(input, Ragged):
        return Batch(input.values, input.layout, input.with_values, "ragged")
    if isinstance(input, PackedSequence):
        return _packed(input)
    if isinstance(input, Tensor):
        return _nested(input)
    raise TypeError(
        f"{layer} takes a peephole.Ragged, a padded tensor with or without lengths, a "
        f"PackedSequence or a nested tensor, got {type(input).__name__}"
    )


def _padded(input: Tensor, lengths: Lengths | None, batch_first: bool, layer: str) -> Batch:
    if input.dim() not in (2, 3):
        raise ValueError(f"{layer}: Expected input to be 2D or 3D, got {input.dim()}D instead")
    if input.dim() == 2:
        if lengths is not None:
            raise ValueError(
                f"lengths go with a batch; this input {list(input.shape)} is one sequence"
            )
        layout = _even(1, input.shape[0], input.device)
        return Batch(input, layout, lambda y: y, "padded", batched=False)
    x = input if batch_first else input.transpose(0, 1)
    B, T = x.shape[:2]

    def restore(y: Tensor) -> Tensor:
        y = y.view(B, T, y.shape[1])
        return y if batch_first else y.transpose(0, 1)

    if lengths is None:
        return Batch(x.flatten(0, 1), _even(B, T, x.device), restore, "padded")
    if torch.compiler.is_compiling():
        # The number of steps is known only when the graph runs: what reads the steps checks.
        layout, given = _even(B, T, x.device), torch.as_tensor(lengths).to(x.device)
        return Batch(x.flatten(0, 1), layout, restore, "ragged padded", lengths=given)
    offsets = offsets_from_lengths(checked_lengths(lengths, B, T))
    layout = Layout.of_numbers(numbers(offsets), x.device)
    rows = layout.padded_rows(batch_first=True, longest=T)

    def fill(y: Tensor) -> Tensor:
        return restore(y.new_zeros(B * T, y.shape[1]).index_copy(0, rows, y))

    return Batch(x.flatten(0, 1).index_select(0, rows), layout, fill, "ragged padded")


def _even(sequences: int, steps: int, device: torch.device) -> Layout:
    if torch.compiler.is_compiling():
        return Layout(torch.arange(sequences + 1, device=device) * steps)
    return Layout.of_numbers(np.arange(sequences + 1) * steps, device)


def _packed(input: PackedSequence) -> Batch:
    data, batch_sizes, _, unsorted = input
    if torch.compiler.is_compiling():
        rows, layout = packed_rows_compiled(batch_sizes, unsorted, data)
    else:
        rows, layout = packed_rows(batch_sizes, unsorted, data.device)

    def restore(y: Tensor) -> PackedSequence:
        return PackedSequence(torch.empty_like(y).index_copy(0, rows, y), *input[1:])

    values = data.index_select(0, rows)
    return Batch(values, layout, restore, "packed", rows=rows)


def _nested(input: Any) -> Batch:
    batch = Ragged.from_nested(input)

    def restore(y: Tensor) -> Tensor:
        if input.lengths() is not None:
            return batch.with_values(y).to_nested()
        # On the very offsets that came, which is how torch knows equal shapes.
        nested: Tensor = torch.nested.nested_tensor_from_jagged(y, input.offsets())
        return nested

    return Batch(batch.values, batch.layout, restore, "nested")
