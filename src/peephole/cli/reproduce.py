"""``peephole reproduce``."""

import time
from pathlib import Path

from jsonargparse import Namespace

from peephole.cli.parser import Parser, whole

# Those of the page's table that fit a terminal.
COLUMNS = (
    "model",
    "data",
    "parameters",
    "updates",
    "test error",
    "best possible",
    "published",
    "grid error",
    "seconds",
)


def options(name: str, summary: str) -> Parser:
    parser = Parser(name, "[options]", f"{summary.capitalize()}.")
    group = parser.add_argument_group("Options")
    group.add_argument(
        "--out", metavar="DIR", default="reproduce", help="where to write (default: %(default)s)"
    )
    group.add_argument("--quick", action="store_true", help="less data: done in under a minute")
    group.add_argument("--only", nargs="+", metavar="NAME", help="train these models alone")
    group.add_argument(
        "--seeds",
        type=whole(1),
        default=1,
        metavar="K",
        help="trainings of each model, each with data of its own (default: %(default)s)",
    )
    group.add_argument("--overwrite", action="store_true", help="replace what --out holds")
    parser.add_general()
    return parser


def run(options: Namespace) -> None:
    from peephole.jobs import workers

    workers.begin("peephole.jobs.toy_training")

    from peephole.cli.progress import Trainings, console, print_line, print_table
    from peephole.jobs.reproduce import reproduce
    from peephole.jobs.reproduce_report import summary

    begin = time.perf_counter()
    with Trainings() as trainings:
        results = reproduce(
            Path(options.out),
            quick=options.quick,
            only=options.only,
            seeds=options.seeds,
            overwrite=options.overwrite,
            on_progress=trainings.show,
        )
    print_table(summary(results, COLUMNS))
    minutes, seconds = divmod(round(time.perf_counter() - begin), 60)
    console.print()
    print_line(f"{Path(options.out, 'report.html')}   ({minutes} min {seconds} s)")
