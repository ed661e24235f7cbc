"""``peephole train table``, ``evaluate``, ``predict`` and ``example table``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from peephole.cli.parser import Parser, UsageError, optional, real, text, whole, yes_no
from peephole.cli.training import (
    add_loop,
    add_run,
    check_resumed,
    chosen,
    chosen_anew,
    watched,
)

if TYPE_CHECKING:
    from peephole.jobs.table import Scores, TableRun
    from peephole.jobs.training import Watch

# What may be given besides --resume; all else stands in the run's config.yaml.
RESUMED = ("file", "valid", "test", "cache", "train.on_nonfinite", "train.device")

FORMATS = "CSV, Parquet or JSON lines, by its ending"


def train_options(name: str, summary: str) -> Parser:
    parser = Parser(
        name,
        "FILE --target COL [options]",
        f"{summary.capitalize()}: {FORMATS}, a row a step; or a folder, one sequence a file.",
        epilog="Without --sequence the file is one series, split by time. A run that was "
        "interrupted goes on with FILE --resume RUN.",
    )
    data = parser.add_argument_group("Data")
    data.add_argument("file", metavar="FILE", help="a table, or a folder of them")
    data.add_argument(
        "--target", type=text, metavar="COL", help="the column to predict (must be given)"
    )
    data.add_argument(
        "--sequence", type=text, metavar="COL", help="the column that tells sequences apart"
    )
    data.add_argument(
        "--order",
        type=text,
        metavar="COL",
        help="the column that orders a sequence's rows (default: as they are)",
    )
    data.add_argument("--valid", metavar="FILE", help="validate on this (default: a part held out)")
    data.add_argument("--test", metavar="FILE", help="score the trained model on this, once")
    data.add_argument(
        "--features",
        type=text,
        nargs="+",
        metavar="COL",
        help="predict from these alone (default: all others that vary within a sequence)",
    )
    data.add_argument(
        "--task",
        choices=["classify", "regress"],
        help="whether the target is classes or numbers (default: told by its values)",
    )
    data.add_argument(
        "--target-per",
        choices=["auto", "sequence", "step"],
        default="auto",
        help="whether the target is one a sequence or one a step (default: told by the data)",
    )
    data.add_argument(
        "--ahead", type=optional(whole(1)), metavar="K", help="forecast the target K steps later"
    )
    data.add_argument(
        "--missing",
        choices=["error", "forward", "mean"],
        default="error",
        help="for missing features: stop, take the last value before, or the training mean "
        "(default: %(default)s)",
    )
    run = add_run(parser)
    run.add_argument(
        "--cache",
        metavar="DIR",
        help="keep converted tables here (default: large ones only, in cache/ beside the run)",
    )
    _model_options(parser)
    _training_options(parser)
    parser.add_general()
    return parser


def _model_options(parser: Parser) -> None:
    model = parser.add_argument_group("Model")
    model.add_argument(
        "--model.cell",
        choices=["lstm", "gru", "rnn"],
        default="lstm",
        help="(default: %(default)s)",
    )
    model.add_argument(
        "--model.hidden-size",
        type=whole(1),
        default=64,
        metavar="H",
        help="hidden units a layer and direction (default: %(default)s)",
    )
    model.add_argument(
        "--model.layers", type=whole(1), default=1, metavar="L", help="(default: %(default)s)"
    )
    model.add_argument(
        "--model.peephole",
        choices=["none", "diagonal", "full"],
        default="none",
        help="let an LSTM's gates look into its cell (default: %(default)s)",
    )
    model.add_argument(
        "--model.bidirectional",
        type=optional(yes_no),
        metavar="yes|no",
        help="read sequences both ways (default: where the whole sequence is known)",
    )
    model.add_argument(
        "--model.readout",
        choices=["last", "mean", "max"],
        default="max",
        help="what a target for a whole sequence is read from: its last states, or the mean or "
        "largest output of its steps (default: %(default)s)",
    )
    model.add_argument(
        "--model.dropout",
        type=real(at_least=0, below=1),
        default=0.3,
        metavar="P",
        help="share of the units dropped in training (default: %(default)s)",
    )


def _training_options(parser: Parser) -> None:
    train = parser.add_argument_group("Training (default: by the amount of data)")
    train.add_argument(
        "--train.learning-rate",
        type=real(above=0),
        default=0.01,
        metavar="R",
        help="of AdamW, at its highest (default: %(default)s)",
    )
    train.add_argument(
        "--train.batch-size",
        type=optional(whole(1)),
        metavar="B",
        help="sequences an update; in a single series, streams",
    )
    train.add_argument(
        "--train.batch-steps",
        type=optional(whole(1)),
        metavar="N",
        help="steps an update, at most (default: no limit)",
    )
    train.add_argument(
        "--train.epochs", type=optional(whole(1)), metavar="E", help="at most so many"
    )
    train.add_argument(
        "--train.patience",
        type=optional(whole(0)),
        metavar="P",
        help="stop after so many evaluations without a new best (default: never)",
    )
    train.add_argument(
        "--train.evaluations",
        type=whole(1),
        default=1,
        metavar="K",
        help="evaluate so many times an epoch (default: %(default)s)",
    )
    train.add_argument(
        "--train.weight-decay",
        type=real(at_least=0),
        default=0.01,
        metavar="W",
        help="(default: %(default)s)",
    )
    train.add_argument(
        "--train.clip",
        type=real(above=0),
        default=1.0,
        metavar="C",
        help="the gradient's largest norm (default: %(default)s)",
    )
    train.add_argument(
        "--train.average",
        type=real(at_least=0, below=1),
        default=0.995,
        metavar="D",
        help="decay of the weights' moving average that is kept; 0 for none (default: %(default)s)",
    )
    train.add_argument(
        "--train.window",
        type=whole(1),
        default=64,
        metavar="W",
        help="steps of back-propagation in a single series (default: %(default)s)",
    )
    add_loop(train)


def missing_option(group: Any) -> None:
    group.add_argument(
        "--missing",
        choices=["error", "forward", "mean"],
        help="for missing features (default: as in training)",
    )


def _overwrite_option(group: Any) -> None:
    group.add_argument("--overwrite", action="store_true", help="replace the file in --out")


def predict_options(name: str, summary: str) -> Parser:
    parser = Parser(
        name, "RUN FILE --out FILE", f"{summary.capitalize()}; the file needs no target column."
    )
    group = parser.add_argument_group("Options")
    group.add_argument("run", metavar="RUN", help="a run folder")
    group.add_argument("file", metavar="FILE", help="a table of the form it was trained on")
    group.add_argument("--out", metavar="FILE", required=True, help=f"where to write: {FORMATS}")
    missing_option(group)
    _overwrite_option(group)
    parser.add_general()
    return parser


def example_options(name: str, summary: str) -> Parser:
    parser = Parser(
        name,
        "--out FILE [options]",
        f"{summary.capitalize()}, with the best score that a model can have.",
    )
    group = parser.add_argument_group("Options")
    group.add_argument("--out", metavar="FILE", required=True, help=f"where to write: {FORMATS}")
    group.add_argument(
        "--sequences",
        type=whole(2),
        default=2000,
        metavar="B",
        help="how many (default: %(default)s)",
    )
    group.add_argument(
        "--seed",
        type=whole(0, 2**32 - 1),
        default=0,
        metavar="N",
        help="another one, other sequences",
    )
    _overwrite_option(group)
    parser.add_general()
    return parser


def train(options: Namespace) -> None:
    if options.resume is not None:
        check_resumed(options, train_options("train table", ""), RESUMED)
    elif options.target is None:
        raise UsageError("--target must be given")
    with watched("train table", options) as watch:
        run = _resume(options, watch) if options.resume is not None else _begin(options, watch)
    _print_run(run)


def _begin(options: Namespace, watch: "Watch") -> "TableRun":
    from peephole.jobs import table

    model, training = chosen(options)
    return table.train(
        options.file,
        target=options.target,
        sequence=options.sequence,
        order=options.order,
        features=options.features,
        task=options.task,
        target_per=options.target_per,
        ahead=options.ahead,
        missing=options.missing,
        valid=options.valid,
        test=options.test,
        model=table.ModelSettings(**model),
        training=table.TrainSettings(**training),
        seed=options.seed,
        out=options.out,
        overwrite=options.overwrite,
        cache=options.cache,
        watch=watch,
    )


def _resume(options: Namespace, watch: "Watch") -> "TableRun":
    from peephole.jobs import table

    return table.resume(
        options.resume,
        options.file,
        valid=options.valid,
        test=options.test,
        cache=options.cache,
        watch=watch,
        **chosen_anew(options),
    )


def _print_run(run: "TableRun") -> None:
    from peephole.cli.progress import console, print_line
    from peephole.jobs.training import is_first

    if not is_first():
        return
    for name, scores in run.scores.items():
        _print_scores(name, scores)
    console.print()
    print_line(f"{run.path / 'report.html'}   ({run.seconds:.0f} s of training)")


def evaluate(options: Namespace) -> None:
    from peephole.cli.progress import print_line
    from peephole.jobs import table

    scores = table.evaluate(options.run, options.file, missing=options.missing, say=print_line)
    _print_scores(Path(options.file).name, scores)


def predict(options: Namespace) -> None:
    from peephole.cli.progress import print_line
    from peephole.jobs import table

    predictions = table.predict(
        options.run,
        options.file,
        options.out,
        missing=options.missing,
        overwrite=options.overwrite,
        say=print_line,
    )
    print_line(f"{predictions.num_rows:,} predictions written to {options.out}")


def example(options: Namespace) -> None:
    from peephole.cli.progress import print_line
    from peephole.jobs import example

    made = example.table(
        options.out,
        sequences=options.sequences,
        seed=options.seed,
        overwrite=options.overwrite,
    )
    print_line(f"{made.path}: {made.sequences:,} sequences, {made.steps:,} steps")
    print_line(
        f"best possible accuracy {made.best_accuracy:.3f}, majority class "
        f"{made.majority_accuracy:.3f}"
    )
    print_line(
        f"Try: peephole train table {made.path} --target fault --sequence shift --order minute"
    )


def _print_scores(name: str, scores: "Scores") -> None:
    from peephole.cli.progress import console, print_table
    from peephole.jobs.table import report

    console.print()
    print_table(report.score_table(name, scores))
    if scores.confusion is not None and len(scores.classes) <= report.WIDEST_MATRIX:
        console.print()
        print_table(report.confusion_table(scores))
