"""The command line: ``peephole COMMAND``. What a command needs is loaded when it runs."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jsonargparse import Namespace

from peephole import __version__
from peephole.cli import evaluate, reproduce, runs, table, text
from peephole.cli.parser import Parser, UsageError, nearest
from peephole.errors import Finished, Interrupted, UserError


class Command(NamedTuple):
    """One command.

    Attributes:
        summary: a line for the menu.
        options: makes its parser.
        run: does it.
    """

    summary: str
    options: Callable[[str, str], Parser]
    run: Callable[[Namespace], None]


COMMANDS = {
    "reproduce": Command(
        "train every model of the seed experiment and write a page of results",
        reproduce.options,
        reproduce.run,
    ),
    "train table": Command(
        "train a model on a table of your own sequences", table.train_options, table.train
    ),
    "train text": Command(
        "train a language model on a text of your own", text.train_options, text.train
    ),
    "sample": Command("let a language model write", text.sample_options, text.sample),
    "evaluate": Command("score a trained model on a file", evaluate.options, evaluate.run),
    "predict": Command("write a trained model's predictions", table.predict_options, table.predict),
    "runs": Command("list run folders, their state and their best figure", runs.options, runs.run),
    "example table": Command(
        "write a generated data set to try", table.example_options, table.example
    ),
}


HELP = ("-h", "--help", "help")
# By how much one process may come to an error later than another, with all that they load.
PATIENCE_SECONDS = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0; 130 or 143 where SIGINT or SIGTERM ended it; else 2. Where it is not 0
        there is one line on standard error.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if (
        not words
        or words[0] in HELP
        or (words[1:2] and words[1] in HELP and words[0] not in COMMANDS)
    ):
        print(_menu())
        return 0
    if words[0] == "--version":
        print(f"peephole {__version__}")
        return 0
    prog, parser = "peephole", None
    try:
        name = _command(words)
        prog = f"peephole {name}{_process()}"
        command = COMMANDS[name]
        parser = command.options(name, command.summary)
        command.run(parser.parse_args(words[len(name.split()) :]))
    except UsageError as error:
        _let_first_speak()
        return _fail(f"{prog}: {error}")
    except UserError as error:
        _let_first_speak()
        typed = parser.typed(error.option) if parser and error.option else None
        return _fail(": ".join([prog, *filter(None, [typed]), error.message]))
    except Interrupted as stop:
        # Of several processes the first one speaks.
        return stop.exit_code if stop.run is None else _fail(f"{prog}: {stop}", stop.exit_code)
    except Finished as end:
        if not _process():
            print(end)
        return 0
    except KeyboardInterrupt:
        return _fail(f"{prog}: interrupted", status=130)
    except SystemExit as stop:  # --help and --print-config
        return int(stop.code or 0)
    return 0


def _process() -> str:
    """Which of the processes that ``torchrun`` started this is, if it is not the first."""
    rank = os.environ.get("RANK", "0")
    return "" if rank == "0" else f" (process {rank})"


def _let_first_speak() -> None:
    """Wait, where this is not the first process, before it tells of an error.

    Mostly the first one meets the same error and tells of it; then ``torchrun`` ends this one
    meanwhile. What this one alone has met is told a little later.
    """
    if _process():
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(PATIENCE_SECONDS)


def _command(words: list[str]) -> str:
    for name in COMMANDS:
        if words[: len(name.split())] == name.split():
            return name
    seconds = [name.split()[1] for name in COMMANDS if name.split()[0] == words[0] != name]
    if seconds:
        given = words[1] if len(words) > 1 else ""
        what = f"{words[0]} what?" if not given else f"{words[0]}: there is no {given!r};"
        raise UsageError(f"{what} there is {' and '.join(seconds)}")
    near = nearest(words[0], [name.split()[0] for name in COMMANDS])
    hint = f"did you mean {near}?" if near else "see peephole --help"
    raise UsageError(f"there is no command {words[0]!r}; {hint}")


def _menu() -> str:
    width = max(map(len, COMMANDS)) + 3
    return "\n".join(
        [
            "Recurrent networks on sequences of different lengths.",
            "",
            *(f"  peephole {name:{width}}{command.summary}" for name, command in COMMANDS.items()),
            "",
            "peephole COMMAND --help tells a command's options.",
        ]
    )


def _fail(line: str, status: int = 2) -> int:
    print(" ".join(line.split()), file=sys.stderr)
    return status
