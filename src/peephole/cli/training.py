"""What the commands that train have in common."""

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from peephole.cli.parser import Parser, UsageError, optional, real, whole
from peephole.errors import Interrupted, UserError

if TYPE_CHECKING:
    from peephole.jobs.training import Watch

ALWAYS = ("resume", "log", "profile", "config")


def add_run(parser: Parser) -> Any:
    """The options of the run folder; gives their group, to which others may be added."""
    run = parser.add_argument_group("Run")
    run.add_argument("--out", metavar="RUN", help="the run folder (default: a new one in runs/)")
    run.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    run.add_argument(
        "--resume", metavar="RUN", help="go on with this run, which was interrupted; see below"
    )
    run.add_argument(
        "--log", choices=["tensorboard"], help="write this too, into the run (default: neither)"
    )
    run.add_argument(
        "--profile",
        action="store_true",
        help="record what some updates spend their time on, into the run",
    )
    run.add_argument(
        "--seed",
        type=whole(0, 2**32 - 1),
        default=0,
        metavar="N",
        help="of everything random (default: 0)",
    )
    return run


def add_loop(train: Any) -> None:
    """The options of the training loop that no task changes."""
    train.add_argument(
        "--train.accumulate",
        type=whole(1),
        default=1,
        metavar="K",
        help="compute an update in so many parts, for less memory (default: %(default)s)",
    )
    train.add_argument(
        "--train.schedule",
        choices=["constant", "cosine", "linear"],
        default="cosine",
        help="of the learning rate, after its rise (default: %(default)s)",
    )
    train.add_argument(
        "--train.warm-up",
        type=optional(whole(0)),
        metavar="K",
        help="updates in which the learning rate rises (default: a twentieth of all)",
    )
    train.add_argument(
        "--train.on-nonfinite",
        choices=["stop", "skip"],
        default="stop",
        help="where the loss or a gradient is not finite: stop, or skip the update "
        "(default: %(default)s)",
    )
    train.add_argument(
        "--train.checkpoint-seconds",
        type=real(at_least=0),
        default=60.0,
        metavar="S",
        help="time between checkpoints, at most (default: %(default)g)",
    )
    train.add_argument(
        "--train.device",
        choices=["auto", "cpu", "cuda"],
        default="cpu",
        help="(default: %(default)s)",
    )
    train.add_argument(
        "--train.precision",
        choices=["32", "bf16-mixed"],
        default="32",
        help="(default: %(default)s)",
    )


def chosen(options: Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was chosen for the network, and for its training, by name."""
    model, training = dict(vars(options.model)), dict(vars(options.train))
    if model["peephole"] == "none":
        model["peephole"] = None
    return model, training


def chosen_anew(options: Namespace) -> dict[str, Any]:
    """What was given that a run may go on with other than it began."""
    return {
        name: vars(options.train)[name]
        for name in ("on_nonfinite", "device")
        if f"train.{name}" in options.typed
    }


def check_resumed(options: Namespace, parser: Parser, allowed: Sequence[str]) -> None:
    """Raise UsageError where an option is given that belongs to the run that is resumed."""
    for name in sorted(options.typed - {*ALWAYS, *allowed}):
        raise UsageError(
            f"{parser.typed(name)}: leave it out; a run that is resumed keeps its settings"
        )


def again(command: str, options: Namespace, run: object) -> str:
    """What to type to go on with a run: the data are given again."""
    words = ["peephole", *command.split(), *filter(None, [vars(options).get("file")])]
    for name in ("valid", "test", "cache"):
        if value := vars(options).get(name):
            words += [f"--{name}", value]
    return shlex.join([*words, "--resume", str(run)])


@contextlib.contextmanager
def watched(command: str, options: Namespace) -> Iterator["Watch"]:
    """Show a training, as its options ask.

    Raises:
        UserError: it diverged.
        Interrupted: it was, with what to type to go on.
    """
    from peephole.cli.progress import Bar, print_line
    from peephole.jobs.training import Watch, is_first
    from peephole.train import Diverged

    with Bar(shown=is_first()) as bar:
        try:
            yield Watch(
                log=options.log,
                profile=options.profile,
                say=print_line,
                on_event=bar.event,
                on_progress=bar.advance,
            )
        except Interrupted as stop:
            if stop.run is not None:
                stop.args = (f"{stop}: {again(command, options, stop.run)}",)
            raise
        except Diverged as error:
            raise UserError(
                f"{error.what}; try a smaller --train.learning-rate, or leave such updates out "
                "(--train.on-nonfinite skip)"
            ) from error
