"""A text as numbers: encoded once into a file that is read a window at a time, whatever its size.

A file is two documents: its first nine tenths train, its last tenth is held out. Each file of a
folder is a document, and a tenth of the files is held out, chosen by a hash of their names alone:
the same ones on every machine and for every seed.
"""

import hashlib
import json
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int64, UInt

from peephole.data import fingerprint
from peephole.data.alphabet import Alphabet
from peephole.data.cache import Cache, Say
from peephole.data.decoding import Codes, Unit, decoded
from peephole.data.fingerprint import Mark, Marks
from peephole.data.text_files import TextFile, text_files
from peephole.errors import UserError

VERSION = 1
IDS = "ids.bin"
HELD_OUT = 0.1
UNITS = {"char": "character", "byte": "byte"}
# How many texts a cache keeps.
MOST_TEXTS = 8


@runtime_checkable
class Ids(Protocol):
    """The ids of all documents, one after the other."""

    def read(self, begin: int, end: int) -> UInt[np.ndarray, "n"]:
        """Those from ``begin`` to ``end - 1``."""


class InMemory:
    """Ids in an array."""

    def __init__(self, array: Codes) -> None:
        self.array = array

    def read(self, begin: int, end: int) -> UInt[np.ndarray, "n"]:
        return self.array[begin:end]


class OnDisk:
    """Ids in a file.

    Read rather than mapped: the pages of a map that were read count as memory of the process, in
    the end the whole file.
    """

    def __init__(self, path: Path, dtype: np.dtype[np.unsignedinteger]) -> None:
        # Held open: the cache may remove the file meanwhile.
        self.handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.handle)
        self.dtype = dtype

    def read(self, begin: int, end: int) -> UInt[np.ndarray, "n"]:
        size = self.dtype.itemsize
        read = os.pread(self.handle, (end - begin) * size, begin * size)
        return np.frombuffer(read, self.dtype)


@dataclass(frozen=True)
class Corpus:
    """A text, encoded.

    Attributes:
        alphabet: what the ids stand for; that of the training part.
        ids: of all documents, one after the other.
        names: ``D`` documents' names.
        bounds: ``[D + 1]``, where each begins, and the end.
        held_out: ``[D]``, which of them training does not see.
        fingerprint: follows from what the files hold.
    """

    alphabet: Alphabet
    ids: Ids
    names: Sequence[str]
    bounds: Int64[np.ndarray, "D_plus_1"]
    held_out: Bool[np.ndarray, "D"]
    fingerprint: str = ""

    @property
    def lengths(self) -> Int64[np.ndarray, "D"]:
        lengths: Codes = np.diff(self.bounds)
        return lengths

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class _Encoded:
    """What an entry of the cache is.

    Attributes:
        marks: what the files were like.
        alphabet: of the ids.
        names: of the documents.
        lengths: in ids.
        held_out: for each, whether it is.
    """

    marks: Marks
    alphabet: Alphabet
    names: tuple[str, ...]
    lengths: tuple[int, ...]
    held_out: tuple[bool, ...]


def open_corpus(
    path: Path | None, unit: Unit, cache: Cache, *, option: str | None = None
) -> Corpus:
    """Encode a text, or find it encoded.

    Memory does not depend on the text's size. A second time it takes a second a gigabyte.

    Args:
        path: a file, a folder, or None for the source of Python's standard library.
        unit: what an id stands for.
        cache: where the ids are kept.
        option: the option that named the path, for errors.

    Raises:
        UserError: no file that holds anything, one that is not text, one that changed meanwhile,
            or the cache cannot be written to.
    """
    files = text_files(path, option)
    what = "the standard library" if path is None else str(path)
    key = [VERSION, None if path is None else str(path.resolve()), unit]
    name = f"text-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]}"

    def make(folder: Path) -> _Encoded:
        return _encode(files, unit, folder / IDS, cache.say, option)

    def load(folder: Path, encoded: _Encoded) -> Corpus:
        bounds = np.concatenate([[0], np.cumsum(encoded.lengths, dtype=np.int64)])
        dtype = encoded.alphabet.dtype
        if (folder / IDS).stat().st_size != bounds[-1] * dtype.itemsize:
            raise ValueError(f"{IDS} does not fit the documents")
        return Corpus(
            encoded.alphabet,
            OnDisk(folder / IDS, dtype),
            encoded.names,
            bounds,
            np.array(encoded.held_out, dtype=bool),
            fingerprint.content(encoded.marks),
        )

    def stale(encoded: _Encoded) -> str | None:
        return _difference(files, encoded.marks, what, option)

    corpus = cache.entry(name, _Encoded, make=make, load=load, stale=stale)
    cache.prune("text-", MOST_TEXTS)
    return corpus


def of_texts(texts: Sequence[str], held_out: Sequence[bool], unit: Unit = "char") -> Corpus:
    """Encode texts in memory, each a document.

    Args:
        texts: the documents.
        held_out: for each, whether it is.
        unit: what an id stands for.
    """
    train = "".join(text for text, held in zip(texts, held_out, strict=True) if not held)
    alphabet = Alphabet("byte")
    if unit == "char":
        alphabet = Alphabet.of(np.bincount(np.array([ord(c) for c in train], dtype=np.int64)))
    ids = [alphabet.encode(text) for text in texts]
    bounds = np.concatenate([[0], np.cumsum([len(part) for part in ids], dtype=np.int64)])
    return Corpus(
        alphabet,
        InMemory(np.concatenate(ids)),
        [f"text {k + 1}" for k in range(len(texts))],
        bounds,
        np.array(held_out, dtype=bool),
    )


def chosen(names: Sequence[str]) -> Bool[np.ndarray, "D"]:
    """A tenth of the documents, and at least one, by a hash of their names."""
    hashes = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in names]
    order = sorted(range(len(names)), key=hashes.__getitem__)
    held = np.zeros(len(names), dtype=bool)
    held[order[: max(1, round(HELD_OUT * len(names)))]] = True
    return held


def _encode(
    files: Sequence[TextFile], unit: Unit, to: Path, say: Say, option: str | None
) -> _Encoded:
    """Write the ids of all files into one, and tell what they are."""
    marks = tuple(replace(fingerprint.mark(f.path, option), name=f.name) for f in files)
    size = sum(mark.bytes for mark in marks)
    if size >= 1 << 26:
        say(f"converting {size / 1e6:,.0f} MB of text, once")
    if len(files) == 1:
        length = sum(len(codes) for codes in decoded(files[0].path, unit, option))
        train = [int(length * (1 - HELD_OUT))]
        lengths: list[int] = [train[0], length - train[0]]
        names, held = [files[0].name] * 2, [False, True]
        if not train[0]:
            raise UserError(
                f"{files[0].path} has a single {UNITS[unit]}, of which none would be left to train "
                "on; give more text",
                option,
            )
    else:
        names = [file.name for file in files]
        held = chosen(names).tolist()
        # No file has more characters than bytes.
        train = [0 if out else mark.bytes for mark, out in zip(marks, held, strict=True)]
    alphabet = Alphabet("byte")
    if unit == "char":
        alphabet = Alphabet.of(_counts(files, train, option))
    written = []
    with to.open("wb") as out:
        for file in files:
            written.append(0)
            for codes in decoded(file.path, unit, option):
                out.write(np.ascontiguousarray(alphabet.ids(codes)).data)
                written[-1] += len(codes)
    if len(files) > 1:
        lengths = written
    if sum(lengths) != sum(written) or _difference(files, marks, "the text", option):
        raise UserError("the text changed while it was read; try again", option)
    return _Encoded(marks, alphabet, tuple(names), tuple(lengths), tuple(held))


def _counts(files: Sequence[TextFile], most: Sequence[int], option: str | None) -> Codes:
    """How often each code point occurs in the first so many of each file."""
    counts = np.zeros(1, np.int64)
    for file, left in zip(files, most, strict=True):
        for codes in decoded(file.path, "char", option):
            found = np.bincount(codes[:left])
            if len(found) > len(counts):
                counts, found = found, counts
            counts[: len(found)] += found
            left -= len(codes[:left])
            if not left:
                break
    return counts


def _difference(
    files: Sequence[TextFile], known: Marks, what: str, option: str | None
) -> str | None:
    """What became of the files since then, in words; None if they are the same."""
    marks: dict[str, Mark] = {mark.name: mark for mark in known}
    for file in files:
        if file.name not in marks:
            return f"{what}: {file.name} is new"
        if fingerprint.differs(file.path, marks.pop(file.name), option):
            return f"{file.path} has changed"
    return f"{what}: {next(iter(marks))} is gone" if marks else None
