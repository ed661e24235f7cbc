"""Tables that are in memory already, or that another library keeps on the disk."""

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from peephole.data.convert import storable
from peephole.data.reading import Gathered
from peephole.data.sequences import PIECE, Array
from peephole.errors import UserError, listed

# What pandas calls an index without a name.
INDEX = re.compile(r"__index_level_\d+__")


@dataclass(frozen=True)
class Frame:
    """A table from Python.

    Attributes:
        name: what to call it.
        gathered: its rows.
        bytes: about how many it takes.
        table: its rows at once, where they need not be copied for that; None otherwise.
    """

    name: str
    gathered: Gathered
    bytes: int
    table: pa.Table | None

    def whole(self) -> pa.Table:
        """All rows, copied to memory where they have to be."""
        return pa.concat_tables(self.gathered.blocks()) if self.table is None else self.table

    def fingerprint(self) -> str:
        """A digest of its contents but for nested columns, in hexadecimal."""
        schema = storable(self.gathered.schema.empty_table()).schema
        digest = hashlib.sha256(schema.serialize())
        for block in self.gathered.blocks():
            for batch in storable(block).combine_chunks().to_batches():
                digest.update(batch.serialize())
        return digest.hexdigest()


def is_path(given: object) -> bool:
    return isinstance(given, str | Path)


def name_of(given: object) -> str:
    """A path as it is, and "the DataFrame" for a frame."""
    return str(given) if is_path(given) else f"the {type(given).__name__}"


def frame(given: Any, option: str | None) -> Frame:
    """A table from Python as Arrow.

    Args:
        given: an Arrow table; a Hugging Face ``datasets.Dataset``, which stays on the disk; or a
            frame that gives Arrow data, of pandas or polars for example.
        option: the argument it was given as, for errors.

    Raises:
        UserError: it is none of these, has no rows, or has two columns of one name.
    """
    name = name_of(given)
    datasets = sys.modules.get("datasets")
    if datasets is not None and isinstance(given, datasets.Dataset):
        made = _of_dataset(given, name)
    elif hasattr(given, "__arrow_c_stream__"):
        try:
            table = pa.table(given)
        except (pa.ArrowException, TypeError) as error:
            raise UserError(
                f"cannot read {name}: {' '.join(str(error).split())}", option
            ) from error
        made = _of_table(_usable(table), name)
    else:
        raise UserError(
            f"{name} is no table; give a path, an Arrow table, a pandas or polars frame, or a "
            "datasets.Dataset",
            option,
        )
    names = made.gathered.schema.names
    if twice := sorted({column for column in names if names.count(column) > 1}):
        raise UserError(f"{name} has several columns called {listed(twice)}", option)
    if not made.gathered.rows:
        raise UserError(f"{name} has no rows", option)
    return made


def _of_table(table: pa.Table, name: str) -> Frame:
    def blocks() -> Iterator[pa.Table]:
        for begin in range(0, table.num_rows, PIECE):
            yield table.slice(begin, PIECE)

    return Frame(name, Gathered(table.schema, table.num_rows, blocks), table.nbytes, table)


def _of_dataset(dataset: Any, name: str) -> Frame:
    table = dataset.data.table.replace_schema_metadata()
    if dataset._indices is None:
        return _of_table(table, name)
    rows = dataset.with_format("arrow")

    def blocks() -> Iterator[pa.Table]:
        for begin in range(0, len(rows), PIECE):
            yield rows[begin : begin + PIECE].replace_schema_metadata()

    size = table.nbytes * len(rows) // max(1, table.num_rows)
    return Frame(name, Gathered(table.schema, len(rows), blocks), size, None)


def _usable(table: pa.Table) -> pa.Table:
    """Without pandas' row numbers, and with the text that polars gives as views, of which pyarrow
    cannot take rows, as text.
    """
    own = [k for k, name in enumerate(table.column_names) if not INDEX.fullmatch(name)]
    table = table.select(own)
    for k, field in enumerate(table.schema):
        column = table.column(k)
        if pa.types.is_string_view(field.type):
            table = table.set_column(k, field.name, column.cast(pa.string()))
        elif pa.types.is_dictionary(field.type) and pa.types.is_string_view(field.type.value_type):
            chunks = [
                pa.DictionaryArray.from_arrays(chunk.indices, chunk.dictionary.cast(pa.string()))
                for chunk in column.chunks
            ]
            kind = pa.dictionary(field.type.index_type, pa.string())
            table = table.set_column(k, field.name, pa.chunked_array(chunks, kind))
    return table.replace_schema_metadata()


def from_tensors(
    sequences: Iterable[Any],
    targets: Any,
    *,
    features: Sequence[str] | None = None,
    target: str = "target",
    sequence: str = "sequence",
) -> pa.Table:
    """A table of sequences that are tensors or arrays.

    Args:
        sequences: B of them, ``[T_b, F]`` or ``[T_b]``, of numbers or booleans; none is empty.
        targets: one a sequence, ``[B]``, numbers, booleans or text; or one a step, B times
            ``[T_b]``.
        features: the names of the F columns; "x1" and so on if None.
        target: what to call the column of the targets.
        sequence: what to call the column of the sequences' numbers, from 0.

    Returns:
        A row a step, to train on with ``target=target, sequence=sequence``.

    Raises:
        UserError: the shapes do not fit together.
    """
    arrays = [_array(one, f"sequences[{b}]") for b, one in enumerate(sequences)]
    if not arrays:
        raise UserError("there are no sequences", "sequences")
    width = arrays[0].shape[1]
    for b, array in enumerate(arrays):
        if array.shape[1] != width or not len(array):
            raise UserError(
                f"sequences[{b}] is {list(array.shape)}; it must be [steps, {width}] like "
                "sequences[0], with one step at least",
                "sequences",
            )
    names = [f"x{k + 1}" for k in range(width)] if features is None else list(features)
    if len(names) != width:
        raise UserError(f"{len(names)} names for {width} features", "features")
    lengths = np.array([len(array) for array in arrays])
    values = np.concatenate(arrays)
    columns: dict[str, Any] = {sequence: np.arange(len(arrays)).repeat(lengths)}
    for name, column in zip(names, values.T, strict=True):
        if name in columns:
            raise UserError(f"two columns are called {name!r}", "features")
        columns[name] = np.ascontiguousarray(column)
    if target in columns:
        raise UserError(f"two columns are called {target!r}", "target")
    columns[target] = _targets(targets, lengths)
    return pa.table(columns)


def _array(one: Any, where: str) -> Array:
    """Steps by features, ``[T, F]``."""
    array = _numpy(one)
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2):
        raise UserError(
            f"{where} is {array.dtype} {list(array.shape)}; it must be numbers, [steps, features]",
            "sequences",
        )
    return array.reshape(len(array), -1) if len(array) else array.reshape(0, array.shape[-1])


def _numpy(one: Any) -> Array:
    if hasattr(one, "detach"):
        tensor = one.detach().cpu()
        # numpy has no bfloat16.
        small = tensor.is_floating_point() and tensor.element_size() < 4
        return np.asarray(tensor.float() if small else tensor)
    return np.asarray(one)


def _targets(targets: Any, lengths: Array) -> pa.Array:
    """A target at each step."""
    if len(targets) != len(lengths):
        raise UserError(f"{len(targets)} targets for {len(lengths)} sequences", "targets")
    arrays = [_numpy(one) for one in targets]
    if all(array.ndim == 0 for array in arrays):
        return pa.array(np.array([array.item() for array in arrays]).repeat(lengths))
    for b, array in enumerate(arrays):
        if array.shape != (lengths[b],):
            raise UserError(
                f"targets[{b}] is {list(array.shape)}; it must be [{lengths[b]}], one a step of "
                f"sequences[{b}], or all of them must be single values, one a sequence",
                "targets",
            )
    return pa.array(np.concatenate(arrays))
