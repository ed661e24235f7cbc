"""A folder of entries that can be made anew: each is made whole or not at all, and checked.

An entry is a folder of files with an ``index.json``: what the entry is about, and the size and
digest of each file. What does not fit its index is not an entry, and is made again. While one
process makes an entry, others that need it wait. Nothing in an entry is unpickled, and no path in
it leads out of it.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from peephole.data.fingerprint import digest_of
from peephole.data.locks import lock
from peephole.data.schema import from_json, to_json
from peephole.errors import UserError
from peephole.folders import put, sync_folder

INDEX = "index.json"
VERSION = 1
MAX_INDEX_BYTES = 1 << 28
# From https://bford.info/cachedir: tools that make backups leave such a folder out.
TAG = "CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n# Made by peephole.\n"

About = TypeVar("About")
T = TypeVar("T")
Say = Callable[[str], None]


@dataclass(frozen=True)
class File:
    """A file of an entry."""

    name: str
    bytes: int
    digest: str


@dataclass(frozen=True)
class _Files:
    files: tuple[File, ...]


class Cache:
    """A folder of entries.

    Args:
        path: the folder; it is made when it is needed.
        say: takes each line that a person should read.
        always: whether also what is small goes into it.
    """

    def __init__(self, path: Path, say: Say, *, always: bool = False) -> None:
        self.path, self.say, self.always = path, say, always

    def entry(
        self,
        name: str,
        about: type[About],
        *,
        make: Callable[[Path], About],
        load: Callable[[Path, About], T],
        stale: Callable[[About], str | None] = lambda about: None,
    ) -> T:
        """What an entry holds; it is made where it is not there, damaged or out of date.

        Args:
            name: of the entry; it is to follow from all that shapes it.
            about: a dataclass that tells what the entry is.
            make: fills a folder with files, and tells what they are.
            load: reads the files, which are as they were made. ValueError if they make no sense.
            stale: why an entry is out of date, in words; None if it is not.

        Raises:
            UserError: the cache cannot be written to.
        """
        folder = self.path / name
        self._make_root()
        with self._locked(name, shared=True):
            found = self._found(folder, about, load, stale)
        if isinstance(found, _Found):
            return found.value
        with self._locked(name, shared=False) as locked:
            # Another process may have made it in the meantime.
            found = self._found(folder, about, load, stale)
            if isinstance(found, _Found):
                return found.value
            if found is not None:
                self.say(f"{found}; it is made anew")
            if locked:
                self._clear(name)
            return load(folder, self._make(folder, make))

    def prune(self, prefix: str, keep: int) -> None:
        """Remove all entries of a prefix but those used last. Who reads one still can."""
        entries = sorted(self.path.glob(f"{prefix}*/{INDEX}"), key=_used, reverse=True)
        for index in entries[keep:]:
            with lock(self._lock(index.parent.name)) as locked:
                if locked:
                    shutil.rmtree(index.parent, ignore_errors=True)

    def _make_root(self) -> None:
        try:
            if not self.path.exists():
                self.path.mkdir(parents=True, exist_ok=True)
                (self.path / TAG[0]).write_text(TAG[1])
        except OSError as error:
            raise _cannot(self.path, error) from error

    def _lock(self, name: str) -> Path:
        return self.path / f".{name}.lock"

    @contextmanager
    def _locked(self, name: str, shared: bool) -> Iterator[bool]:
        def waiting() -> None:
            self.say(f"waiting for another run that makes {self.path / name}")

        with lock(self._lock(name), shared=shared, waiting=waiting) as locked:
            yield locked

    def _found(
        self,
        folder: Path,
        about: type[About],
        load: Callable[[Path, About], T],
        stale: Callable[[About], str | None],
    ) -> "_Found[T] | str | None":
        """What the entry holds, why it is of no use, or None where there is none."""
        if not (folder / INDEX).exists():
            return f"{folder} is damaged: it lacks {INDEX}" if folder.exists() else None
        try:
            told = _read_index(folder, about)
            if why := stale(told):
                return why
            value = load(folder, told)
        except (ValueError, OSError, RecursionError) as error:
            if isinstance(error, UserError):
                raise
            return f"{folder} is damaged: {' '.join(str(error).split())}"
        _use(folder / INDEX)
        return _Found(value)

    def _clear(self, own: str) -> None:
        """Remove what killed processes left; ``own`` is the entry that is locked."""
        for path in [*self.path.glob(".*.making"), *self.path.glob(".*.old")]:
            name = path.name[1:].rsplit(".", 2)[0]
            if name == own:
                shutil.rmtree(path, ignore_errors=True)
                continue
            with lock(self._lock(name)) as locked:
                if locked:
                    shutil.rmtree(path, ignore_errors=True)

    def _make(self, folder: Path, make: Callable[[Path], About]) -> About:
        making = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.making")
        try:
            making.mkdir()
            about = make(making)
            _write_index(making, about)
            put(making, folder)
        except OSError as error:
            raise _cannot(self.path, error) from error
        finally:
            shutil.rmtree(making, ignore_errors=True)
        return about


@dataclass(frozen=True)
class _Found(Generic[T]):
    """What an entry holds."""

    value: T


def _read_index(folder: Path, about: type[About]) -> About:
    """Read an index and check the files by it.

    Raises:
        ValueError: they do not fit.
    """
    index = folder / INDEX
    if (size := index.stat().st_size) > MAX_INDEX_BYTES:
        raise ValueError(f"{INDEX} has {size:,} bytes")
    data = json.loads(index.read_bytes())
    if not isinstance(data, dict) or set(data) != {"version", "about", "files", "digest"}:
        raise ValueError(f"{INDEX} has other entries than it should")
    if data["version"] != VERSION or data.pop("digest") != _digest(data):
        raise ValueError(f"{INDEX} is not as it was written")
    listed = from_json(_Files, {"files": data["files"]}, INDEX)
    for file in listed.files:
        _check_file(folder, file)
    return from_json(about, data["about"], f"{INDEX}.about")


def _check_file(folder: Path, file: File) -> None:
    path = folder / file.name
    if path.parent != folder or not path.name or path.is_symlink() or not path.is_file():
        raise ValueError(f"it has no file {file.name!r}")
    if (size := path.stat().st_size) != file.bytes:
        raise ValueError(f"{file.name} has {size:,} bytes, not {file.bytes:,}")
    if digest_of(path) != file.digest:
        raise ValueError(f"{file.name} is not as it was written")


def _write_index(folder: Path, about: object) -> None:
    """Have all files on the disk, and then the index."""
    files = []
    for path in sorted(folder.iterdir()):
        _sync(path)
        files.append(File(path.name, path.stat().st_size, digest_of(path)))
    data = {"version": VERSION, "about": to_json(about), "files": to_json(tuple(files))}
    # In ASCII: a file's name may be no text.
    text = json.dumps(data | {"digest": _digest(data)})
    (folder / INDEX).write_text(text, encoding="utf-8")
    _sync(folder / INDEX)
    sync_folder(folder)


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _use(index: Path) -> None:
    """Remember that an entry was used now, where that can be written."""
    try:
        os.utime(index)
    except OSError:
        return


def _used(index: Path) -> float:
    try:
        return index.stat().st_mtime
    except OSError:
        return 0.0


def _cannot(path: Path, error: OSError) -> UserError:
    why = error.strerror or " ".join(str(error).split())
    return UserError(f"cannot write to the cache {path}: {why}; name another folder", "cache")
