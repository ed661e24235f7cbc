"""Checkpoints: all that a training needs to go on, in a run folder, as safetensors and JSON.

A checkpoint is written beside its place, under a hidden name, put on the disk and renamed. So a
process that is killed at any instant leaves it whole or not there. What is in one, and how it is
found, stands in ``peephole.run.saved``.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from torch import Tensor

from peephole import tensors as files
from peephole import untrusted
from peephole.data.schema import from_json, to_json
from peephole.errors import UserError
from peephole.folders import sync_folder, write_synced
from peephole.run import saved
from peephole.run.saved import MAKING, OLD, REMOVED, STATE, SUMS, TENSORS, Damaged
from peephole.tensors import Form

S = TypeVar("S")


@dataclass(frozen=True)
class Checkpoint(Generic[S]):
    """A checkpoint that was read, and is as it was written.

    Attributes:
        path: its folder.
        update: updates done.
        best: after how many updates the best model so far was there; None for none.
        state: numbers and text.
        forms: the tensors' names, dtypes and shapes.
    """

    path: Path
    update: int
    best: int | None
    state: S
    forms: dict[str, Form]

    def tensors(self, wanted: Mapping[str, Form]) -> dict[str, Tensor]:
        """Read the tensors, onto the CPU.

        Args:
            wanted: what they must be; this is compared before memory is taken.

        Raises:
            UserError: they are others.
        """
        return files.load(self.path / TENSORS, wanted, "the run's settings")


class Checkpoints(Generic[S]):
    """The checkpoints of one run. One process at a time may write them.

    Args:
        run: the run folder.
        state: the dataclass that their state is; see ``peephole.data.schema.from_json``.
        keep: how many of the newest are kept, besides the best that each of them names.

    Raises:
        UserError: ``keep`` is less than 1.
    """

    def __init__(self, run: Path, state: type[S], keep: int = 2) -> None:
        if keep < 1:
            raise UserError(f"{keep}; it must be at least 1", "keep")
        self.run, self.state, self.keep = run, state, keep

    def write(
        self, update: int, tensors: Mapping[str, Tensor], state: S, *, best: int | None = None
    ) -> Path:
        """Write a checkpoint; when this returns it is on the disk.

        One of the same update is replaced. Then those are removed that are no longer needed: all
        but the newest ``keep`` and those that one of these names as best; and those of a later
        update, which belong to a course that was given up.

        Args:
            update: updates done.
            tensors: of any device.
            state: numbers and text.
            best: after how many updates the best model so far was there, if that is known.

        Raises:
            UserError: it could not be written, since the disk is full for example. Then the
                checkpoints that were there are still there, and nothing else is.
            ValueError: a tensor or the state is of a kind that cannot be kept.
        """
        if not 0 <= (update if best is None else best) <= update < 10**saved.MAX_DIGITS:
            raise ValueError(f"update={update}, best={best}: they must be 0 <= best <= update")
        text = saved.written(update, best, to_json(state))
        path = saved.place(self.run, update)
        with self._told(path):
            self._clean_up()
            making = saved.hidden(self.run, update, MAKING)
            try:
                self._fill(making, tensors, text)
                self._put(making, update)
            finally:
                shutil.rmtree(making, ignore_errors=True)
        self._prune(update)
        return path

    def newest(self) -> tuple[Checkpoint[S] | None, list[str]]:
        """Read the newest checkpoint that is whole.

        Returns:
            It, or None; and for each newer one a line that says how it is damaged.

        Raises:
            UserError: one is whole, but of another form than ours.
        """
        damaged: list[str] = []
        for update, path in reversed(saved.found(self.run).items()):
            try:
                return self._read(update, path), damaged
            except Damaged as error:
                damaged.append(error.message)
        return None, damaged

    def read(self, update: int) -> Checkpoint[S]:
        """Read one checkpoint.

        Raises:
            UserError: it is not there, damaged, or of another form than ours.
        """
        there = saved.found(self.run)
        if update not in there:
            raise UserError(
                f"{self.run} has no checkpoint of update {update}; "
                f"it has {', '.join(map(str, there)) or 'none'}"
            )
        return self._read(update, there[update])

    def _read(self, update: int, path: Path) -> Checkpoint[S]:
        small = saved.read(self.run, update, path)
        try:
            with untrusted.opened(path, TENSORS, saved.MAX_TENSOR_BYTES) as file:
                # The beginning first: it tells a wrong size in no time.
                forms = files.forms(path / TENSORS)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except UserError as error:
            raise Damaged(f"{path} is damaged: {error.message}") from error
        except OSError as error:
            raise Damaged(f"{path} is damaged: {untrusted.one_line(error)}") from error
        saved.check_digest(path, TENSORS, digest, {TENSORS: small.tensors_digest})
        where = f"{path / STATE}: state"
        try:
            state = from_json(self.state, small.state, where, finite=False)
        except ValueError as error:
            raise UserError(str(error)) from error
        return Checkpoint(path, update, small.best, state, forms)

    def _fill(self, folder: Path, tensors: Mapping[str, Tensor], state: bytes) -> None:
        if not folder.parent.exists():
            folder.parent.mkdir()
            sync_folder(self.run)
        folder.mkdir()
        digests = (
            write_synced(folder / TENSORS, files.chunks(tensors)),
            write_synced(folder / STATE, [state]),
        )
        write_synced(folder / SUMS, [saved.sums(*digests)])
        sync_folder(folder)

    def _put(self, making: Path, update: int) -> None:
        """Put a checkpoint in its place. One that is there already counts until then."""
        path, old = saved.place(self.run, update), saved.hidden(self.run, update, OLD)
        replaced = path.exists() or path.is_symlink()
        if replaced:
            path.rename(old)
        try:
            making.rename(path)
            sync_folder(path.parent)
        except OSError:
            if not making.exists():
                path.rename(making)
            if replaced:
                old.rename(path)
            raise
        if replaced:
            _remove(old)

    def _clean_up(self) -> None:
        """Put right what a process left that was killed."""
        there = saved.found(self.run)
        for path, update in saved.left_over(self.run).items():
            if there.get(update) == path:
                path.rename(saved.place(self.run, update))
            else:
                _remove(path)

    def _prune(self, update: int) -> None:
        there = saved.found(self.run)
        newest = [number for number in there if number <= update][-self.keep :]
        kept = {*newest, *(self._best(number, there[number]) for number in newest)}
        for number, path in there.items():
            if number not in kept:
                away = saved.hidden(self.run, number, REMOVED)
                try:
                    # What is half removed must not look like a checkpoint.
                    path.rename(away)
                    _remove(away)
                except OSError as error:
                    raise UserError(f"cannot remove {path}: {error.strerror}") from error

    def _best(self, update: int, path: Path) -> int | None:
        try:
            return saved.read(self.run, update, path).best
        except UserError:
            # What is damaged is kept as long as others, for it may be mended; it names none.
            return None

    @contextlib.contextmanager
    def _told(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            whole = list(saved.found(self.run))
            left = (
                f"the newest that is whole is of update {whole[-1]}" if whole else "there is none"
            )
            raise UserError(f"cannot write {path}: {error.strerror}; {left}") from error


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)
