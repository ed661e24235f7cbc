"""``peephole evaluate``: for runs of every task."""

from jsonargparse import Namespace

from peephole.cli import table, text
from peephole.cli.parser import Parser, real


def options(name: str, summary: str) -> Parser:
    parser = Parser(name, "RUN FILE [options]", f"{summary.capitalize()}.")
    group = parser.add_argument_group("Options")
    group.add_argument("run", metavar="RUN", help="a run folder")
    group.add_argument(
        "file", metavar="FILE", help="a table of the form it was trained on; or a text, or a folder"
    )
    tables = parser.add_argument_group("Tables")
    table.missing_option(tables)
    texts = parser.add_argument_group("Texts")
    texts.add_argument(
        "--dynamic",
        action="store_true",
        help="measure too a model that learns from what it has just read",
    )
    texts.add_argument(
        "--rate",
        type=real(above=0),
        default=0.1,
        metavar="R",
        help="the learning rate of that (default: %(default)s)",
    )
    parser.add_general()
    return parser


def run(options: Namespace) -> None:
    from peephole.run import Run

    is_text = Run.open(options.run).model_config.get("task") == "text"
    (text if is_text else table).evaluate(options)
