"""``python -m benchmarks COMMAND``. A benchmark is a module with ``add_options`` and ``run``."""

import argparse
import importlib
import sys
from collections.abc import Sequence

# The modules load torch, which takes seconds, so only the one that is named is loaded.
COMMANDS = {
    "layers": "training and inference on ragged batches, beside torch.nn and a loop with peepholes",
    "bfloat16": "the same in bfloat16, beside float32",
    "memory": "the most memory that a training step takes, beside torch.nn",
    "steps": "one sequence, one step at a time, beside torch.nn's layer and cell",
    "overheads": "a small batch: what the op, autograd and the layer each add",
    "sampler": "deciding which sequences make an update, and whether similar lengths are worth it",
    "tables": "a table of 10 million rows: conversion, second start, memory, waiting for data",
    "engine": "the training loop: its own cost, beside a bare loop, and waiting for data",
    "text": "a character model: training beside torch.nn, and sampling",
    "reproduce": "the seed experiment, from its command to its report",
    "report": "all bars, and what the newest results say of them, in Markdown",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a benchmark.

    Args:
        argv: the words after ``python -m benchmarks``; None for those of this process.

    Returns:
        The exit status: 0, or 1 where ``--check`` was given and a bar is missed.

    Raises:
        SystemExit: with 0 after ``--help``, with 2 where an option is wrong.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure peephole beside its peers, side by side in one process.",
        epilog="python -m benchmarks COMMAND --help tells a command's options.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if name in words[:1]:
            benchmark = importlib.import_module(f"benchmarks.{name}")
            benchmark.add_options(command)
            command.set_defaults(run=benchmark.run)
    options = parser.parse_args(words)
    options.words = words
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
