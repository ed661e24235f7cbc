"""``peephole evaluate``: for runs of every task."""

from jsonargparse import Namespace

from peephole.cli import table, text
from peephole.cli.parser import Parser, real
from peephole.errors import UserError

# What is for runs of one kind, and its default.
TABLES = {"missing": None}
TEXTS = {"dynamic": False, "rate": 0.1}


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
        default=TEXTS["rate"],
        metavar="R",
        help="the learning rate of that (default: %(default)s)",
    )
    parser.add_general()
    return parser


def run(options: Namespace) -> None:
    from peephole.run import Run

    is_text = Run.open(options.run).model_config.get("task") == "text"
    for name, usual in (TABLES if is_text else TEXTS).items():
        if options[name] != usual:
            kinds = (
                "tables, and this one is of a text" if is_text else "texts, and this one is of none"
            )
            raise UserError(f"it is for runs of {kinds}; leave it out", name)
    if options.rate != TEXTS["rate"] and not options.dynamic:
        raise UserError("it is the rate of --dynamic; give that too, or leave it out", "rate")
    (text if is_text else table).evaluate(options)
