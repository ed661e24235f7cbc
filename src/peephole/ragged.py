"""Ragged batches: sequences of different lengths, one after the other, without padding."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise, repeat
from typing import Any, Self, overload

import torch
from jaxtyping import Int, Int64, Shaped
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from peephole.offsets import (
    Layout,
    check_offsets,
    checked_lengths,
    numbers,
    offsets_from_lengths,
    packed_rows,
    rows_of,
)


class Ragged:
    """A batch of B sequences with N steps in all, stored end to end.

    Sequence b is ``values[offsets[b]:offsets[b + 1]]``. A sequence may have length zero.
    This is the layout of ``torch.nested`` (jagged) and of ``cu_seqlens`` in variable-length
    attention.

    Attributes:
        values: ``[N, ...]``, any dtype. A step is one row, usually ``[F]`` features.
        offsets: ``[B + 1]``, int64, on the device of ``values``; ``offsets[0] = 0``, never
            falling, ``offsets[B] = N``. Read only: what is worked out from them is kept in
            ``layout``, which batches of the same sequences share.

    Raises:
        ValueError: ``offsets`` break one of these rules, or are on another device.
    """

    __slots__ = ("layout", "values")

    values: Shaped[Tensor, "N *step"]
    layout: Layout

    def __init__(self, values: Shaped[Tensor, "N *step"], offsets: Int[Tensor, "B_plus_1"]) -> None:
        check_offsets(offsets, values, look=_may_look(offsets))
        self.values = values
        # A copy: what is worked out from them is kept, and the caller may write into theirs.
        self.layout = Layout(offsets.to(torch.int64, copy=True))

    @classmethod
    def _trusted(cls, values: Tensor, offsets: Tensor) -> Self:
        """Skip the checks, which read numbers from the device. For offsets made in here."""
        return cls._on(values, Layout(offsets))

    @classmethod
    def _on(cls, values: Tensor, layout: Layout) -> Self:
        self = cls.__new__(cls)
        self.values = values
        self.layout = layout
        return self

    @property
    def offsets(self) -> Int64[Tensor, "B_plus_1"]:
        return self.layout.offsets

    # Making one

    @classmethod
    def from_list(cls, tensors: Sequence[Tensor]) -> Self:
        """Put sequences ``[T_b, ...]`` end to end.

        Raises:
            ValueError: no tensors, or two that differ in dtype, device or shape of a step.
        """
        if not tensors:
            raise ValueError("from_list needs at least one tensor: it tells the shape of a step")
        first = tensors[0]
        for b, tensor in enumerate(tensors):
            if tensor.dim() == 0:
                raise ValueError(f"tensors[{b}] is a number; a sequence is [steps, ...]")
            for what, given, wanted in (
                ("dtype", tensor.dtype, first.dtype),
                ("device", tensor.device, first.device),
                ("step shape", tuple(tensor.shape[1:]), tuple(first.shape[1:])),
            ):
                if given != wanted:
                    raise ValueError(
                        f"tensors[{b}] has {what} {given}, but tensors[0] has {wanted}; "
                        "all sequences of a batch must agree"
                    )
        lengths = torch.tensor([len(tensor) for tensor in tensors], device=first.device)
        return cls._trusted(torch.cat(list(tensors)), offsets_from_lengths(lengths))

    @classmethod
    def from_padded(
        cls,
        x: Shaped[Tensor, "..."],
        lengths: Int[Tensor, "B"] | Sequence[int],
        batch_first: bool = True,
    ) -> Self:
        """Take the steps that exist out of a padded tensor.

        Args:
            x: ``[B, T, ...]``, or ``[T, B, ...]`` with ``batch_first=False``. What stands in the
                padding is never read, so its gradient is zero, whatever it holds.
            lengths: ``[B]``, whole numbers from 0 to T, in any order.
            batch_first: which of the two layouts ``x`` has.

        Raises:
            ValueError: lengths that are not whole numbers, negative, longer than the padded
                input, or not one for each sequence.
        """
        if x.dim() < 2:
            raise ValueError(f"a padded batch is [B, T, ...], got shape {tuple(x.shape)}")
        B, T = (x.shape[0], x.shape[1]) if batch_first else (x.shape[1], x.shape[0])
        offsets = offsets_from_lengths(checked_lengths(lengths, B, T))
        layout = Layout.of_numbers(numbers(offsets), x.device)
        rows = layout.padded_rows(batch_first=batch_first, longest=T)
        return cls._on(x.flatten(0, 1).index_select(0, rows), layout)

    @classmethod
    def from_packed(cls, packed: PackedSequence) -> Self:
        """Undo ``torch.nn.utils.rnn.pack_*``; the sequences come back in the caller's order."""
        data, batch_sizes, _, unsorted = packed
        rows, layout = packed_rows(batch_sizes, unsorted, data.device)
        return cls._on(data.index_select(0, rows), layout)

    @classmethod
    def from_nested(cls, nested: Tensor) -> Self:
        """Share the values and offsets of a ``torch.nested`` tensor with the jagged layout.

        Raises:
            ValueError: not a nested tensor, not jagged, or ragged in a dimension other than 1.
        """
        if not nested.is_nested or nested.layout != torch.jagged:
            raise ValueError(
                "from_nested takes a nested tensor with layout=torch.jagged, "
                f"got {'layout ' + str(nested.layout) if nested.is_nested else 'a plain tensor'}"
            )
        jagged: Any = nested  # torch's types know nothing of what follows.
        if jagged._ragged_idx != 1:
            raise ValueError(
                f"the nested tensor is ragged in dimension {jagged._ragged_idx}; "
                "transpose it so that dimension 1 is the ragged one"
            )
        values, offsets, lengths = jagged.values(), jagged.offsets(), jagged.lengths()
        if lengths is None:
            check_offsets(offsets, values, look=_may_look(offsets))
            return cls._trusted(values, offsets)
        # A narrowed nested tensor leaves holes between its sequences.
        packed = offsets_from_lengths(lengths)
        rows = rows_of(offsets[:-1], lengths, packed)
        return cls._trusted(values.index_select(0, rows), packed)

    # Taking it apart

    def to_list(self) -> list[Shaped[Tensor, "_T *step"]]:
        """Each sequence ``[T_b, ...]`` as a view of the values."""
        return list(torch.split(self.values, self.lengths.tolist()))

    def to_padded(self, padding_value: float = 0.0, batch_first: bool = True) -> Tensor:
        """``[B, T, ...]`` (or ``[T, B, ...]``) with T the longest length; its lengths are
        ``ragged.lengths``.
        """
        B, T = len(self), self.max_length
        rows = self.layout.padded_rows(batch_first=batch_first)
        padded = self.values.new_full((B * T, *self.values.shape[1:]), padding_value)
        padded = padded.index_copy(0, rows, self.values)
        return padded.view(*((B, T) if batch_first else (T, B)), *self.values.shape[1:])

    def to_packed(self) -> PackedSequence:
        """A ``PackedSequence`` that remembers this order of sequences.

        Raises:
            ValueError: a sequence is empty, or there are none (``torch`` cannot pack those).
        """
        order = self.layout.order()
        if not len(self) or (order.counts[:1] != [len(self)]):
            empty = (self.lengths == 0).nonzero().flatten().tolist()
            raise ValueError(
                f"torch cannot pack empty sequences, and these are: {empty[:10]}"
                if empty
                else "torch cannot pack a batch without sequences"
            )
        return PackedSequence(
            self.values.index_select(0, order.rows),
            order.batch_sizes,
            order.sequences,
            order.ranks,
        )

    def to_nested(self) -> Tensor:
        """A ``torch.nested`` tensor (jagged) on the same values and offsets."""
        nested: Tensor = torch.nested.nested_tensor_from_jagged(self.values, self.offsets)
        return nested

    # Reading it

    def __len__(self) -> int:
        """The number of sequences, B."""
        return self.offsets.shape[0] - 1

    @property
    def lengths(self) -> Int64[Tensor, "B"]:
        return self.offsets.diff()

    @property
    def max_length(self) -> int:
        """The longest sequence's steps, T; 0 where there is none."""
        return self.layout.longest

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        return self.values.device

    def first(self) -> Shaped[Tensor, "B *step"]:
        """Each sequence's first step.

        Raises:
            ValueError: a sequence is empty.
        """
        return self.values.index_select(0, self._nonempty(self.offsets[:-1]))

    def last(self) -> Shaped[Tensor, "B *step"]:
        """Each sequence's terminal step, row ``offsets[b + 1] - 1``.

        Raises:
            ValueError: a sequence is empty. A recurrent layer's final state has a value there
                all the same: the initial state.
        """
        return self.values.index_select(0, self._nonempty(self.offsets[1:] - 1))

    def _nonempty(self, rows: Tensor) -> Tensor:
        empty = self.lengths == 0
        if empty.any():
            which = empty.nonzero().flatten().tolist()
            raise ValueError(f"sequences {which[:10]} are empty: they have no first or last step")
        return rows

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> Self: ...
    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Tensor | Self:
        """By sequence: a number gives its steps ``[T_b, ...]``; a slice, a list or a tensor of
        numbers, or a mask ``[B]`` gives a Ragged of those, in that order.
        """
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"sequence {index} of a batch of {len(self)}")
            begin, end = self.offsets[index % len(self) :][:2].tolist()
            return self.values[begin:end]
        if isinstance(index, slice) and index.step in (None, 1):
            start, stop, _ = index.indices(len(self))
            offsets = self.offsets[start : max(start, stop) + 1]
            begin, end = offsets[[0, -1]].tolist()
            return self._trusted(self.values[begin:end], offsets - begin)
        rows = self.rows(index)
        return self._on(self.values.index_select(0, rows.values), rows.layout)

    def rows(self, index: slice | Sequence[int] | Tensor) -> "Ragged":
        """Where the steps of some sequences stand in ``values``, chosen as with brackets.

        To take them out of several tensors at a time: of each, ``tensor[rows.values]``.
        """
        if not isinstance(index, slice | Tensor):
            index = list(index)
        starts, ends = self.offsets[:-1][index], self.offsets[1:][index]
        if starts.dim() != 1:
            raise IndexError(
                "sequences are chosen by a number, a slice, or a list, tensor or mask in one "
                f"dimension, not by {index!r}"
            )
        lengths = ends - starts
        offsets = offsets_from_lengths(lengths)
        return Ragged._trusted(rows_of(starts, lengths, offsets), offsets)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.to_list())

    def split(self, size: int | Sequence[int]) -> Iterator[Self]:
        """Batches of ``size`` sequences in order, the last one smaller; views, nothing copied.

        Batches whose sequences have the same lengths share what is worked out from them.

        Args:
            size: sequences in each batch, or a number for each batch, which add up to all.

        Raises:
            ValueError: ``size`` is less than 1, or numbers are negative or do not add up.
        """
        if not isinstance(size, int):
            return self._split_into(list(size))
        if size < 1:
            raise ValueError(f"split(size={size}): a batch has at least one sequence")
        bounds = self.offsets[::size].tolist()
        if len(self) % size:
            bounds.append(self.values.shape[0])
        # All views in one call: one by one they take several times as long.
        values = torch.split(self.values, [end - begin for begin, end in pairwise(bounds)])
        return map(self._on, values, self._layouts(size))

    def _split_into(self, sizes: list[int]) -> Iterator[Self]:
        if sum(sizes) != len(self) or min(sizes, default=0) < 0:
            raise ValueError(f"split({sizes}): the sizes must add up to {len(self)} sequences")
        ends = list(accumulate(sizes, initial=0))
        bounds = self.offsets[ends].tolist()
        values = torch.split(self.values, [end - begin for begin, end in pairwise(bounds)])
        parts = zip(pairwise(ends), bounds, strict=False)
        layouts = (Layout(self.offsets[b : e + 1] - first) for (b, e), first in parts)
        return map(self._on, values, layouts)

    def _layouts(self, size: int) -> Iterator[Layout]:
        """Those of the batches that ``split`` gives."""
        whole = len(self) // size
        if whole:
            parts = self.offsets.unfold(0, size + 1, size)
            parts = parts - parts[:, :1]
            if bool((parts == parts[0]).all()):
                yield from repeat(Layout(parts[0]), whole)
            else:
                yield from map(Layout, parts.unbind())
        if len(self) % size:
            rest = self.offsets[whole * size :]
            yield Layout(rest - rest[0])

    def __repr__(self) -> str:
        shape = "".join(f", {n}" for n in self.values.shape[1:])
        return (
            f"Ragged({len(self)} sequences, values [{self.values.shape[0]}{shape}], "
            f"{self.dtype}, {self.device})"
        )

    # Changing it

    def with_values(self, values: Shaped[Tensor, "N *other"]) -> Self:
        """The same sequences with other contents, for example ``x.with_values(linear(x.values))``.

        Raises:
            ValueError: another number of steps, or another device.
        """
        if values.shape[:1] != self.values.shape[:1]:
            raise ValueError(
                f"values of shape {list(values.shape)} for {self.values.shape[0]} steps"
            )
        if values.device != self.device:
            raise ValueError(f"values are on {values.device}, offsets on {self.device}")
        return self._on(values, self.layout)

    def reverse(self) -> Self:
        """Each sequence from its own last step to its first."""
        steps = torch.arange(self.values.shape[0], device=self.device)
        ends = self.offsets[:-1] + self.offsets[1:] - 1
        mirror = ends.repeat_interleave(self.lengths, output_size=steps.shape[0]) - steps
        return self._on(self.values.index_select(0, mirror), self.layout)

    @classmethod
    def cat(cls, batches: Sequence[Self]) -> Self:
        """One batch of all the sequences of several, in order.

        Raises:
            ValueError: no batches, or two that differ in dtype, device or shape of a step.
        """
        if not batches:
            raise ValueError("cat needs at least one batch")
        whole = cls.from_list([batch.values for batch in batches])
        starts = whole.offsets[:-1]
        tails = [batch.offsets[1:] + start for batch, start in zip(batches, starts, strict=True)]
        return cls._trusted(whole.values, torch.cat([batches[0].offsets[:1], *tails]))

    def to(
        self,
        device: torch.device | str | torch.dtype | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ) -> Self:
        """Move to a device, convert the values' dtype, or both; offsets stay int64."""
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        return self._trusted(
            self.values.to(device=device, dtype=dtype, non_blocking=non_blocking),
            self.offsets.to(device=device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Self:
        return self._trusted(self.values.pin_memory(), self.offsets.pin_memory())

    def __reduce__(self) -> tuple[Any, ...]:
        # Not the method itself: torch.load takes functions only, and only those that it knows.
        return _loaded, (self.values, self.offsets)


def _may_look(offsets: Tensor) -> bool:
    """Whether offsets have numbers: not in a graph, where layers look when it runs, nor on meta."""
    return not (torch.compiler.is_compiling() or offsets.is_meta)


def _loaded(values: Tensor, offsets: Tensor) -> Ragged:
    return Ragged(values, offsets)


torch.serialization.add_safe_globals([_loaded])
# For torch.compile, torch.export and torch.func: a Ragged is its two tensors. What the layout has
# worked out stays behind, since a graph's batches differ.
pytree.register_pytree_node(
    Ragged,
    lambda batch: ([batch.values, batch.offsets], None),
    lambda tensors, _: Ragged._trusted(*tensors),
    serialized_type_name="peephole.Ragged",
    flatten_with_keys_fn=lambda batch: (
        [
            (pytree.GetAttrKey("values"), batch.values),
            (pytree.GetAttrKey("offsets"), batch.offsets),
        ],
        None,
    ),
)
