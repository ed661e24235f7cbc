"""``peephole train text`` and ``sample``."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from peephole.cli.parser import Parser, optional, real, text, whole, yes_no
from peephole.cli.training import (
    add_loop,
    add_run,
    check_resumed,
    chosen,
    chosen_anew,
    watched,
)
from peephole.errors import UserError

if TYPE_CHECKING:
    from peephole.jobs.text import TextRun, TextScores
    from peephole.jobs.training import Watch

# What may be given besides --resume; all else stands in the run's config.yaml.
RESUMED = ("file", "cache", "train.on_nonfinite", "train.device")
UNITS = {"char": "character", "byte": "byte"}
# How often what was written is shown.
SHOW_SECONDS = 0.03


def train_options(name: str, summary: str) -> Parser:
    parser = Parser(
        name,
        "[FILE|FOLDER] [options]",
        f"{summary.capitalize()}: a file, or a folder with documents at any depth; without one, "
        "the source of Python's standard library on this machine.",
        epilog="What is left open is chosen by --budget and this machine's speed. A run that was "
        "interrupted goes on with FILE --resume RUN.",
    )
    data = parser.add_argument_group("Data")
    data.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        # With any other default what is not given is set to it, after a config file was read.
        default=argparse.SUPPRESS,
        help="the text (default: Python's own)",
    )
    data.add_argument(
        "--unit",
        choices=["char", "byte"],
        default="char",
        help="what is predicted; bytes may be of anything (default: %(default)s)",
    )
    run = add_run(parser)
    run.add_argument(
        "--budget",
        type=text,
        default="5m",
        metavar="TIME",
        help="wall time, as 90s, 5m or 1h30m (default: %(default)s)",
    )
    run.add_argument(
        "--cache", metavar="DIR", help="keep the encoded text here (default: cache/ beside the run)"
    )
    _model_options(parser)
    _training_options(parser)
    parser.add_general()
    return parser


def _model_options(parser: Parser) -> None:
    model = parser.add_argument_group("Model (default: by the budget)")
    model.add_argument(
        "--model.cell",
        choices=["lstm", "gru", "rnn"],
        default="lstm",
        help="(default: %(default)s)",
    )
    for option, letter, what in (
        ("hidden-size", "H", "hidden units a layer"),
        ("layers", "L", "recurrent layers, one on top of the other"),
        ("embedding-size", "E", "how many numbers stand for a character"),
    ):
        model.add_argument(f"--model.{option}", type=optional(whole(1)), metavar=letter, help=what)
    model.add_argument(
        "--model.tied",
        type=optional(yes_no),
        metavar="yes|no",
        help="whether embeddings are the output's weights too (default: where the sizes allow)",
    )
    model.add_argument(
        "--model.peephole",
        choices=["none", "diagonal", "full"],
        default="none",
        help="let an LSTM's gates look into its cell (default: %(default)s)",
    )
    model.add_argument(
        "--model.layer-norm",
        choices=["none", "output", "gates"],
        default="none",
        help="normalize what each layer gives, or its gates at each step (default: %(default)s)",
    )
    for option, what in (
        ("dropout", "of the numbers between layers and before the output"),
        ("recurrent-dropout", "of what the gates see of the state"),
    ):
        model.add_argument(
            f"--model.{option}",
            type=optional(real(at_least=0, below=1)),
            metavar="P",
            help=f"share {what} that is dropped in training",
        )


def _training_options(parser: Parser) -> None:
    train = parser.add_argument_group("Training (default: by the budget)")
    train.add_argument(
        "--train.streams",
        type=optional(whole(1)),
        metavar="S",
        help="parts of the text that are read side by side",
    )
    train.add_argument(
        "--train.window",
        type=optional(whole(1)),
        metavar="W",
        help="characters of each in an update, and steps of back-propagation",
    )
    train.add_argument(
        "--train.updates", type=optional(whole(1)), metavar="U", help="how many there are"
    )
    train.add_argument(
        "--train.learning-rate",
        type=optional(real(above=0)),
        metavar="R",
        help="of AdamW, at its highest",
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
        default=0.99,
        metavar="D",
        help="decay of the weights' moving average that is kept; 0 for none (default: %(default)s)",
    )
    add_loop(train)


def sample_options(name: str, summary: str) -> Parser:
    parser = Parser(name, "RUN [options]", f"{summary.capitalize()}.")
    group = parser.add_argument_group("Options")
    group.add_argument("run", metavar="RUN", help="a run folder of train text")
    group.add_argument(
        "--prompt",
        type=text,
        default="",
        metavar="TEXT",
        help="what stands before; - to read it from standard input",
    )
    group.add_argument(
        "--length",
        type=optional(whole(0)),
        default=1000,
        metavar="N",
        help="characters to write (of a model of bytes, bytes), or none to go on until somebody "
        "stops it (default: %(default)s)",
    )
    group.add_argument(
        "--temperature",
        type=real(at_least=0),
        default=1.0,
        metavar="T",
        help="below 1 the likely is likelier; 0 takes the likeliest always (default: %(default)s)",
    )
    group.add_argument(
        "--top-k", type=optional(whole(1)), metavar="K", help="draw from the K likeliest"
    )
    group.add_argument(
        "--top-p",
        type=optional(real(above=0)),
        metavar="P",
        help="draw from the likeliest that have this much of the probability together",
    )
    group.add_argument(
        "--seed",
        type=whole(0, 2**32 - 1),
        default=0,
        metavar="N",
        help="the same seed gives the same text (default: 0)",
    )
    group.add_argument(
        "--count",
        type=whole(1),
        default=1,
        metavar="C",
        help="write so many texts, by the seeds N, N + 1, ... (default: %(default)s)",
    )
    parser.add_general()
    return parser


def train(options: Namespace) -> None:
    from peephole.jobs.memory import keep_memory
    from peephole.jobs.training import is_first

    keep_memory()
    if options.resume is not None:
        check_resumed(options, train_options("train text", ""), RESUMED)
    with watched("train text", options) as watch:
        run = _resume(options, watch) if options.resume is not None else _begin(options, watch)
    if is_first():
        _print_run(run)


def _begin(options: Namespace, watch: "Watch") -> "TextRun":
    from peephole.jobs import text as job

    model, training = chosen(options)
    return job.train(
        options.get("file"),
        unit=options.unit,
        budget=options.budget,
        model=job.ModelSettings(**model),
        training=job.TrainSettings(**training),
        seed=options.seed,
        out=options.out,
        overwrite=options.overwrite,
        cache=options.cache,
        watch=watch,
        on_sample=_print_sample,
    )


def _resume(options: Namespace, watch: "Watch") -> "TextRun":
    from peephole.jobs import text as job

    return job.resume(
        options.resume,
        options.get("file"),
        cache=options.cache,
        watch=watch,
        on_sample=_print_sample,
        **chosen_anew(options),
    )


def _print_sample(sample: str) -> None:
    from peephole.cli.progress import console, print_line
    from peephole.untrusted import printable

    console.print()
    for line in sample.splitlines():
        print_line(f"    {printable(line)}")


def _print_run(run: "TextRun") -> None:
    from peephole.cli.progress import console, print_line

    metrics = run.metrics
    unit = UNITS[run.alphabet.unit]
    console.print()
    print_line(
        f"held-out part: {metrics['valid.nats']:.4f} nats a {unit}, "
        f"{metrics['valid.bits']:.4f} bits, perplexity {metrics['valid.perplexity']:.3f}"
    )
    print_line(f"{run.path / 'report.html'}   ({run.seconds:.0f} s of training)")
    print_line(f"Try: peephole sample {run.path}")


def sample(options: Namespace) -> None:
    prompt = _standard_input() if options.prompt == "-" else options.prompt
    try:
        for k in range(options.count):
            _write(options, prompt, k)
    except OSError as error:
        # Python would flush at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # A broken pipe: who reads has read enough, as head does.
        if not isinstance(error, BrokenPipeError):
            raise UserError(f"cannot write to standard output: {error.strerror}") from error


def _standard_input() -> str:
    """Standard input as it is: no end of a line is changed, and a model of bytes reads any."""
    if sys.stdin is None:
        raise UserError("there is no standard input to read it from", "prompt")
    return sys.stdin.buffer.read().decode("utf-8", "surrogateescape")


def _write(options: Namespace, prompt: str, k: int) -> None:
    """Write the k-th text after a prompt."""
    from peephole.jobs import text as job

    written = job.sample(
        options.run,
        prompt=prompt,
        length=options.length,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        seed=options.seed + k,
    )
    out = _Out(sys.stdout)
    if k:
        out.write("\n")
    out.write(prompt)
    for character in written:
        out.write(character)
    out.write("\n")
    out.flush()


class _Out:
    """Shows text as it is written.

    A terminal gets nothing that steers it: a stranger's model may write anything.

    Args:
        stream: standard output, or another stream of text.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.is_terminal = stream.isatty()
        self.shown = time.monotonic()

    def write(self, text: str) -> None:
        from peephole.untrusted import printable

        if self.is_terminal and not text.isprintable():
            text = "".join(c if c in "\n\t" else printable(c) for c in text)
        encoding = self.stream.encoding or "utf-8"
        self.stream.write(text.encode(encoding, "replace").decode(encoding))
        if (now := time.monotonic()) - self.shown > SHOW_SECONDS:
            self.flush()
            self.shown = now

    def flush(self) -> None:
        self.stream.flush()


def evaluate(options: Namespace) -> None:
    from peephole.cli.progress import console, print_table
    from peephole.jobs import text as job

    scores = job.evaluate(options.run, options.file, dynamic=options.dynamic, rate=options.rate)
    console.print()
    for table in _tables(Path(options.file).name, scores):
        print_table(table)
        console.print()


def _tables(name: str, scores: "TextScores") -> "list[Any]":
    from peephole.report import Table

    unit = UNITS[scores.unit]
    costs = {"as it is": scores.static}
    if scores.dynamic is not None:
        costs["learning"] = scores.dynamic
    each = costs.values()
    measures = [
        (f"nats a {unit}", *(cost.mean for cost in each)),
        (f"bits a {unit}", *(cost.bits for cost in each)),
        (f"perplexity of a {unit}", *(cost.perplexity for cost in each)),
    ]
    sizes: list[tuple[str, float]] = [
        (f"the model, {how}", scores.compressed(cost)) for how, cost in costs.items()
    ]
    sizes += [("gzip -9", scores.gzip), ("xz -9e", scores.xz), ("the file", scores.bytes)]
    rows = [(how, round(8 * size), 8 * size / scores.bytes) for how, size in sizes]
    unknown = f", {scores.unknown:,} of them unknown" if scores.unknown else ""
    return [
        Table((name, *(f"model, {how}" for how in costs)), measures),
        Table(("compressed by", "bits", "bits a byte"), rows),
        Table((f"{scores.targets:,} {unit}s{unknown}",), []),
    ]
