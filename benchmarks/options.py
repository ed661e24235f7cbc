"""Options that the benchmarks share, and how their words are read."""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path

from benchmarks import results
from benchmarks.kinds import MODES
from benchmarks.sizes import SIZES, SMALL, Size

BACKENDS = ("auto", "cpu", "reference")


def add_kind(
    parser: argparse.ArgumentParser, allowed: Sequence[str], default: Sequence[str]
) -> None:
    told = "all" if tuple(default) == tuple(allowed) else ",".join(default)
    parser.add_argument(
        "--kind",
        type=functools.partial(some_of, tuple(allowed)),
        default=tuple(default),
        metavar="KIND,...",
        help=f"{', '.join(allowed)} (default: {told})",
    )


def add_mode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mode",
        type=functools.partial(some_of, MODES),
        default=MODES,
        metavar="MODE,...",
        help="train, infer (default: both)",
    )


def add_sizes(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--sizes",
        type=sizes,
        default=sizes(default),
        metavar="K,...",
        help=f"by their numbers below, or small (1,2,3), or all (default: {default})",
    )


def add_timing(parser: argparse.ArgumentParser, what: str, seconds: float = 3.0) -> None:
    """How long it is measured.

    Args:
        parser: gets the options.
        what: the seconds are spent on.
        seconds: when nobody says.
    """
    parser.add_argument(
        "--seconds",
        type=positive,
        default=seconds,
        metavar="S",
        help=f"to spend on each measurement, {what} (default: {seconds:g})",
    )
    parser.add_argument(
        "--rounds",
        type=rounds,
        default=5,
        metavar="K",
        help="of each measurement at least, however long they take (default: 5)",
    )


def add_backend(parser: argparse.ArgumentParser, of: str) -> None:
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help=f"{of} (default: auto)")


def add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=count, metavar="N", help="of torch (default: as torch chooses)"
    )


def add_results(parser: argparse.ArgumentParser, benchmark: str, row: str) -> None:
    """Where results go, and whether a missed bar is an error.

    Args:
        parser: gets the options.
        benchmark: names the file.
        row: what a line of it is.
    """
    saved = parser.add_mutually_exclusive_group()
    saved.add_argument(
        "--out",
        type=Path,
        default=results.FOLDER / f"{benchmark}.jsonl",
        metavar="FILE",
        help=f"append a JSON line {row} (default: benchmarks/results/{benchmark}.jsonl)",
    )
    saved.add_argument("--no-save", action="store_true", help="write no file")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bar is missed")


def some_of(allowed: Sequence[str], text: str) -> tuple[str, ...]:
    """Words between commas, in any case, each at most once."""
    known = {name.lower(): name for name in allowed}
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word.lower() not in known:
            raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(allowed)}")
    return tuple(dict.fromkeys(known[word.lower()] for word in words))


def sizes(text: str) -> tuple[Size, ...]:
    if text in ("small", "all"):
        return SMALL if text == "small" else SIZES
    numbers = [str(k) for k in range(1, len(SIZES) + 1)]
    try:
        return tuple(SIZES[int(number) - 1] for number in some_of(numbers, text))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, small, all") from error


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def count(text: str) -> int:
    return _at_least(1, text)


def rounds(text: str) -> int:
    """Quartiles of fewer than two rounds there are none."""
    return _at_least(2, text)


def counts(text: str) -> tuple[int, ...]:
    """Whole numbers from 1 between commas."""
    return tuple(dict.fromkeys(count(word) for word in text.split(",")))


def _at_least(least: int, text: str) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is less than {least}")
    return value
