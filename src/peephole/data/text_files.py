"""A person's text: a file, a folder of files, or the source of Python's standard library."""

import os
import stat
import sysconfig
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple, NoReturn

from peephole.data.decoding import decoded
from peephole.errors import UserError

# Within the standard library's folder, what does not belong to it.
OTHERS = ("site-packages", "dist-packages", "__pycache__")
# A folder with one of these is a cache or a run: what was made of texts is none.
MADE = ("CACHEDIR.TAG", "run.json")


class TextFile(NamedTuple):
    """A file of a text.

    Attributes:
        name: of the file within the folder that was named, with ``/`` between its parts.
        path: the file.
    """

    name: str
    path: Path


def text_files(path: Path | None, option: str | None = None) -> list[TextFile]:
    """The files of a text, none of them empty, in the order of their names.

    Args:
        path: a file, or a folder with files at any depth. What is hidden is left out, as are run
            folders and caches, and no link to a folder is followed. If None, the source of
            Python's standard library on this machine, without the few files of it that are not in
            UTF-8.
        option: the option that named the path, for errors.

    Raises:
        UserError: there is no such file, none that holds anything, or a folder that cannot be
            read.
    """
    try:
        return _standard_library() if path is None else _found(path, option)
    except OSError as error:
        raise UserError(
            f"cannot read {error.filename or path}: {error.strerror}", option
        ) from error


def _found(path: Path, option: str | None) -> list[TextFile]:
    if not path.exists():
        raise UserError(f"there is no file or folder {path}", option)
    if not path.is_dir():
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path} is neither a file nor a folder", option)
        if not path.stat().st_size:
            raise UserError(f"{path} is empty", option)
        return [TextFile(path.name, path)]
    files = _below(path)
    if not files:
        raise UserError(f"the folder {path} holds no files", option)
    some = [file for file in files if file.path.stat().st_size]
    if not some:
        raise UserError(f"the folder {path} holds empty files alone", option)
    return some


def _below(folder: Path, without: Collection[str] = ()) -> list[TextFile]:
    """The files at any depth, in the order of their names, but for some folders."""
    named: dict[str, Path] = {}
    for here, folders, files in os.walk(folder, onerror=_stop):
        if Path(here) != folder and not {*MADE}.isdisjoint(files):
            folders.clear()
            continue
        folders[:] = [name for name in folders if name[0] != "." and name not in without]
        paths = (Path(here, name) for name in files if name[0] != ".")
        named |= {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
    return [TextFile(name, named[name]) for name in sorted(named)]


def _stop(error: OSError) -> NoReturn:
    raise error


def _standard_library() -> list[TextFile]:
    folder = Path(sysconfig.get_path("stdlib"))
    files = [
        file
        for file in _below(folder, OTHERS)
        if file.name.endswith(".py") and file.path.stat().st_size and _is_text(file.path)
    ]
    if not files:
        raise UserError(f"{folder} holds no source of Python's standard library; name a file")
    return files


def _is_text(path: Path) -> bool:
    try:
        for _ in decoded(path, "char"):
            pass
    except UserError:
        return False
    return True
