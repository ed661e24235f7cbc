"""``peephole runs``."""

import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from peephole.cli.parser import Parser

if TYPE_CHECKING:
    from peephole.jobs.runs import Listed


def options(name: str, summary: str) -> Parser:
    parser = Parser(name, "[FOLDER ...] [options]", f"{summary.capitalize()}.")
    group = parser.add_argument_group("Options")
    group.add_argument(
        "folders",
        metavar="FOLDER",
        nargs="*",
        help="a run folder, or a folder of them (default: runs)",
    )
    group.add_argument("--json", action="store_true", help="print a line of JSON a run")
    parser.add_general()
    return parser


def run(options: Namespace) -> None:
    from peephole.jobs.runs import list_runs

    runs = list_runs(options.folders or None)
    if options.json:
        for listed in runs:
            print(json.dumps(asdict(listed) | {"run": str(listed.run)}))
    else:
        _print(runs)


def _print(runs: "list[Listed]") -> None:
    from peephole.cli.progress import print_line, print_table
    from peephole.report import Table
    from peephole.untrusted import printable

    if not runs:
        print_line("no runs here")
        return
    header = ("run", "task", "state", "updates", "best", "started")
    # A stranger's names may hold what steers a terminal.
    print_table(Table(header, [[printable(cell) for cell in _row(listed)] for listed in runs]))
    for listed in runs:
        if listed.damage is not None:
            print_line(printable(f"{listed.run} is damaged: {listed.damage}"))


def _row(listed: "Listed") -> list[str]:
    done, planned = ("–" if n is None else f"{n:,}" for n in (listed.update, listed.updates))
    best = "–" if listed.best is None else f"{listed.metric} {listed.best:.4g}"
    time = None if listed.started is None else datetime.fromisoformat(listed.started).astimezone()
    return [
        str(listed.run),
        listed.task or "–",
        listed.state,
        "–" if listed.update is None else f"{done} of {planned}",
        best,
        "–" if time is None else f"{time:%Y-%m-%d %H:%M}",
    ]
