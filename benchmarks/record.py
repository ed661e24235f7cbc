"""What every benchmark keeps of a run: conditions, lines, and at its end which bars are met."""

import argparse
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from benchmarks import results, show
from benchmarks.contenders import SEED
from benchmarks.machine import commit, machine, versions
from benchmarks.verdict import Goal


class Record:
    """Of one run of a benchmark.

    Attributes:
        out: where it is shown.
        lines: what was measured, with the conditions, as they are saved.
    """

    def __init__(self, benchmark: str, options: argparse.Namespace) -> None:
        """Set torch's threads and look at the machine.

        Args:
            benchmark: its name.
            options: its own; those of ``add_threads`` and ``add_results`` must be there.
        """
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        self.options = options
        self.out = show.console()
        self.lines: list[dict[str, Any]] = []
        self.head = {
            "benchmark": benchmark,
            "command": " ".join(["python -m benchmarks", *options.words]),
            **commit(),
            "machine": machine(),
            "versions": versions(),
            "device": "cpu",
            "dtype": "float32",
            "threads": torch.get_num_threads(),
            "backend": getattr(options, "backend", "auto"),
            "seed": SEED,
        }

    def save(self, figures: Mapping[str, Any]) -> None:
        """Keep one measurement; it is written at once, so that a run that is stopped has it."""
        date = datetime.now(UTC).isoformat(timespec="seconds")
        line = {**self.head, "date": date, **figures}
        self.lines.append(line)
        if not self.options.no_save:
            results.append(self.options.out, line)

    def finish(self, goals: Sequence[Goal]) -> int:
        """Show which bars are met.

        Args:
            goals: those that were not measured are left out.

        Returns:
            The exit status: 1 where a bar is missed and ``--check`` was given, else 0.
        """
        missed = show.print_goals(self.out, goals, self.lines)
        if not self.options.no_save:
            lines = "1 line" if len(self.lines) == 1 else f"{len(self.lines)} lines"
            self.out.print(
                f"\n{lines} appended to {self.options.out}", soft_wrap=True, markup=False
            )
        return int(self.options.check and missed > 0)
