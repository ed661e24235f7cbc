"""``python -m benchmarks text``: a character model, trained and writing."""

import argparse
import functools
import itertools
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import options as shared
from benchmarks import show
from benchmarks.contenders import SEED, TOLERANCE
from benchmarks.goals import GOALS
from benchmarks.measure import Quartiles, measure
from benchmarks.peers import plain
from benchmarks.record import Record
from benchmarks.rows import MM_AMONG, beside_mm, share_of_mm
from peephole.data.alphabet import Alphabet
from peephole.data.cache import Cache
from peephole.data.corpus import Corpus, InMemory, open_corpus
from peephole.errors import UserError
from peephole.jobs import text as jobs
from peephole.jobs.memory import keep_memory
from peephole.jobs.text.train import score
from peephole.tasks.protocol import Batching
from peephole.tasks.text.model import TextModel
from peephole.tasks.text.sampling import Choice, written
from peephole.tasks.text.settings import Network
from peephole.tasks.text.task import TextTask

# Tinyshakespeare has 65 characters; with the unknown one, ids are 66.
CHARACTERS = 65
# How many windows are gone through again and again.
WINDOWS = 8
RATE, CLIP = 2e-3, 1.0
# What a writer is timed on: what `peephole sample` writes if nobody says.
LENGTH = 1000
SAMPLING = "sampling"
# Of --plain.
STANDARD_LIBRARY = ""
PLAIN = Network("lstm", 256, 2, 256, tied=False)


@dataclass(frozen=True)
class Setting:
    """A model and its updates.

    Attributes:
        network: what is trained.
        streams: S.
        window: W, characters of each stream in an update.
    """

    network: Network
    streams: int
    window: int

    @property
    def size(self) -> dict[str, int]:
        own = self.network
        return {
            "S": self.streams,
            "W": self.window,
            "L": own.layers,
            "H": own.hidden_size,
            "E": own.embedding_size,
            "A": CHARACTERS + 1,
        }

    @property
    def gflop(self) -> float:
        """The multiplications and additions that an update cannot do without, in GFLOP.

        A multiply-add counts as two; each weight has one a step forward, one backward for its
        gradient and one for its input's. What the first layer makes of an embedding need not be
        computed for each step, but only for each character.
        """
        own = self.network
        H, rows = own.hidden_size, CHARACTERS + 1
        weights = 4 * H * (2 * own.layers - 1) * H + H * rows
        steps = self.streams * self.window
        return 2 * 3 * (steps * weights + rows * 4 * H * own.embedding_size) / 1e9


SETTINGS = {
    "char-rnn": Setting(Network("lstm", 128, 2, 128, tied=False), 50, 50),
    "default": Setting(Network("lstm", 256, 2, 128, tied=False), 16, 64),
}
KINDS = (*SETTINGS, SAMPLING)

HELP = f"""\
Characters a second that a language model of characters trains on, float32, an update at a time:
forward, backward, the gradient's norm clipped, a step of AdamW (fused). Windows of random
characters follow each other with the state carried. Both begin with the same weights. Memory that
is freed is kept, as `peephole train text` has it: otherwise torch.nn waits longer for the system.

  peephole   the model of `peephole train text`, on peephole.LSTM and its task's ragged windows
  torch.nn   the same model on one torch.nn.LSTM, on dense windows [W, S]: no padding is needed

  char-rnn   2 layers of 128, 50 streams x 50 characters: char-rnn's own (Karpathy 2015)
  default    2 layers of 256, embeddings of 128, 16 streams x 64

The ratio is how many times as fast peephole is. Its ceiling is what it would be if all its
multiply-adds ran at torch.mm's rate in the same run.

  {SAMPLING}   characters a second that one stream is written with, {LENGTH:,} at a time, by the
             run of --run, or by an untrained model of the default size

With --plain a plain torch.nn.LSTM is trained instead, once, for --minutes:

  {PLAIN.layers} layers of {PLAIN.hidden_size}, embedding {PLAIN.embedding_size}, a linear output, \
torch.nn's first weights, no dropout;
  {plain.STREAMS} streams x {plain.WINDOW} characters, the state carried over;
  Adam, its rate falling from {plain.RATE:g} to 0 along a cosine; the gradient's norm clipped at \
{plain.CLIP:g}

It reads what `peephole train text` trains on and is scored, by the same code, on what that holds
out. Its minutes are of training alone; those of --budget hold all that the command does.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = HELP
    shared.add_kind(parser, KINDS, KINDS)
    parser.add_argument(
        "--run",
        dest="model",
        type=Path,
        metavar="RUN",
        help=f"a run folder of train text, for {SAMPLING} (default: an untrained model)",
    )
    parser.add_argument(
        "--plain",
        nargs="?",
        const=STANDARD_LIBRARY,
        metavar="FILE|FOLDER",
        help="train torch.nn.LSTM on this text (on Python's standard library if none is named), "
        "and measure nothing else",
    )
    parser.add_argument(
        "--minutes",
        type=shared.positive,
        default=5.0,
        metavar="M",
        help="wall time of --plain (default: 5)",
    )
    shared.add_timing(parser, "a kind", 20.0)
    shared.add_threads(parser)
    shared.add_results(parser, "text", "a kind")


def run(options: argparse.Namespace) -> int:
    """Measure, show and save.

    Returns:
        1 where a bar is missed and ``--check`` was given, 2 where the text or the run cannot be
        read, else 0.
    """
    record = Record("text", options)
    # No side waits for pages, as `peephole train text` does not; otherwise a ratio would depend on
    # what ran before.
    keep_memory()
    try:
        if options.plain is not None:
            return _plain(record, options)
        writer = _writer(options.model) if SAMPLING in options.kind else None
    except UserError as error:
        print(f"text: {error}", file=sys.stderr)
        return 2
    with show.Bar(record.out, len(options.kind)) as bar:
        for kind in options.kind:
            timing = {"min_rounds": options.rounds, "on_round": bar.start(kind)}
            if kind == SAMPLING:
                assert writer is not None
                found = sampling_figures(*writer, options.seconds, **timing)
                found["trained"] = options.model is not None
            else:
                found = training_figures(kind, options.seconds, **timing)
            record.save({"seconds": options.seconds, **found})
            bar.finish()
    for table in _tables(record.lines):
        record.out.print()
        record.out.print(table)
    return record.finish(GOALS)


class Training:
    """A model that is trained, an update a call.

    Attributes:
        model: its gradients are those of the last update.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Any],
        loss: Callable[[Any, Any], tuple[Tensor, Any]],
    ) -> None:
        """Begin with no state.

        Args:
            model: what learns.
            batches: windows that follow each other, again and again.
            loss: from a batch and a state its mean loss and the state after it.
        """
        self.model, self.loss = model, loss
        self.batches = itertools.cycle(batches)
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=RATE, fused=True)
        self.state: Any = None

    def differentiate(self) -> None:
        """Read a window and compute the gradients of its loss."""
        self.optimizer.zero_grad()
        loss, self.state = self.loss(next(self.batches), self.state)
        loss.backward()  # type: ignore[no-untyped-call]

    def update(self) -> None:
        """That, and change the weights by them."""
        self.differentiate()
        nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.optimizer.step()


def contenders(setting: Setting) -> dict[str, Training]:
    """Ours and theirs, from the same weights, on the same windows."""
    torch.manual_seed(SEED)
    task = TextTask(_random(setting), setting.network, setting.window)
    epoch = task.plan(Batching(setting.streams, None, 1, SEED)).epoch(0)
    # The first window begins without a state, the last one may be shorter.
    windows = list(task.batches(epoch.share(k, 0, 1) for k in range(1, WINDOWS + 1)))
    ours, theirs = task.model(), plain.Plain(CHARACTERS + 1, setting.network)
    theirs.load_ours(ours)

    def our_loss(window: Any, state: Any) -> tuple[Tensor, Any]:
        loss = task.loss(ours, window, state)
        return loss.total / loss.targets, loss.state

    return {
        "peephole": Training(ours, windows, our_loss),
        "torch.nn": Training(
            theirs,
            [plain.dense(window) for window in windows],
            functools.partial(plain.dense_loss, theirs),
        ),
    }


def _random(setting: Setting) -> Corpus:
    # An epoch leaves out some steps at the ends, less than a window.
    steps = setting.streams * setting.window * (WINDOWS + 2)
    ids = np.random.default_rng(SEED).integers(1, CHARACTERS + 1, 2 * steps, dtype=np.uint8)
    bounds, held_out = np.array([0, steps, 2 * steps]), np.array([False, True])
    return Corpus(_alphabet(), InMemory(ids), ["read", "held out"], bounds, held_out)


def _alphabet() -> Alphabet:
    return Alphabet("char", "".join(map(chr, range(32, 32 + CHARACTERS))))


def check_agreement(all: dict[str, Training]) -> None:
    """Raise ValueError unless both compute the same gradients, with the state carried."""
    for training in all.values():
        training.differentiate()
        training.differentiate()
    ours, theirs = (all[name].model for name in ("peephole", "torch.nn"))
    assert isinstance(ours, TextModel)
    assert isinstance(theirs, plain.Plain)
    for name, weight in plain.renamed(dict(ours.named_parameters())).items():
        given, other = weight.grad, theirs.get_parameter(name).grad
        assert given is not None
        assert other is not None
        error = float((given - other).norm() / other.norm())
        if not error < TOLERANCE:
            raise ValueError(f"the gradients of {name} are off by {error:.2g} of their norm")


def training_figures(kind: str, seconds: float, **timing: Any) -> dict[str, Any]:
    """All of a kind of training, for JSON.

    Args:
        kind: a key of ``SETTINGS``.
        seconds: the budget for both together.
        timing: as ``measure`` takes it.

    Raises:
        ValueError: they do not compute the same.
    """
    setting = SETTINGS[kind]
    check_agreement(contenders(setting))
    calls = {name: training.update for name, training in contenders(setting).items()}
    among = setting.network.hidden_size >= MM_AMONG
    measured, mm_seconds = beside_mm(calls, seconds, among=among, **timing)
    characters = setting.streams * setting.window
    return {
        "kind": kind,
        "mode": "train",
        "size": setting.size,
        "rounds": measured.rounds,
        "times_ms": {name: measured.times(name).scaled(1e3)._asdict() for name in calls},
        "characters_a_second": {name: characters / measured.times(name).median for name in calls},
        "ratio": measured.ratio("torch.nn", "peephole")._asdict(),
        "ceiling": 1 / share_of_mm(measured, mm_seconds, "torch.nn", setting.gflop),
        "gflop": setting.gflop,
    }


def _writer(path: Path | None) -> tuple[Alphabet, TextModel]:
    """A run's, or an untrained one."""
    if path is not None:
        return jobs.open_run(path)
    torch.manual_seed(SEED)
    alphabet = _alphabet()
    return alphabet, TextModel(alphabet.size, SETTINGS["default"].network).eval()


def sampling_figures(
    alphabet: Alphabet, model: TextModel, seconds: float, **timing: Any
) -> dict[str, Any]:
    """All of sampling, for JSON.

    Args:
        alphabet: the model's.
        model: in evaluation mode.
        seconds: the budget.
        timing: as ``measure`` takes it.
    """

    def write() -> str:
        return "".join(written(model, alphabet, length=LENGTH, choice=Choice(), seed=SEED))

    measured = measure({SAMPLING: write}, seconds, **timing)
    low, median, high = (LENGTH / s for s in reversed(measured.times(SAMPLING)))
    own = model.network
    return {
        "kind": SAMPLING,
        "mode": "infer",
        "size": {
            "L": own.layers,
            "H": own.hidden_size,
            "E": own.embedding_size,
            "A": alphabet.size,
        },
        "rounds": measured.rounds,
        "characters_a_second": Quartiles(low, median, high)._asdict(),
    }


def _tables(lines: Sequence[dict[str, Any]]) -> list[Any]:
    tables = []
    if trained := [line for line in lines if line["mode"] == "train"]:
        table = show.table(
            "Training: characters a second; median (quartiles)",
            "",
            "peephole",
            "torch.nn",
            "times as fast",
            "ceiling",
        )
        for line in trained:
            rates = (
                f"{line['characters_a_second'][name]:,.0f}" for name in ("peephole", "torch.nn")
            )
            ratio, ceiling = show.spread(Quartiles(**line["ratio"])), show.number(line["ceiling"])
            table.add_row(line["kind"], *rates, ratio, ceiling)
        tables.append(table)
    for line in lines:
        if line["kind"] == SAMPLING:
            table = show.table("Sampling", "", "characters a second: median (quartiles)")
            what = f"{line['size']['L']} layers of {line['size']['H']}"
            low, median, high = line["characters_a_second"].values()
            table.add_row(what, f"{median:,.0f} ({low:,.0f}-{high:,.0f})")
            tables.append(table)
    return tables


def _plain(record: Record, options: argparse.Namespace) -> int:
    """Train the plain model, show and save what the held-out part costs it."""
    path = Path(options.plain) if options.plain else None
    out = functools.partial(record.out.print, soft_wrap=True, markup=False)
    with (
        tempfile.TemporaryDirectory() as folder,
        show.Bar(record.out, 1) as bar,
    ):
        corpus = open_corpus(path, "char", Cache(Path(folder), out))
        on_share = bar.start("torch.nn.LSTM")
        found = plain_figures(corpus, options.minutes, on_share)
        bar.finish()
    record.save(found)
    out(
        f"held-out part: {found['nats']:.4f} nats a character ({found['targets']:,} scored); "
        f"{found['minutes']:g} minutes, {found['updates']:,} updates, "
        f"{found['characters']:,} characters read ({found['passes']:.2f} passes)"
    )
    return record.finish(())


def plain_figures(
    corpus: Corpus, minutes: float, on_share: Callable[[float], None] = lambda share: None
) -> dict[str, Any]:
    """Train the plain model on a text's training part and score the rest, for JSON."""
    task = TextTask(corpus, PLAIN, plain.WINDOW)
    trained = plain.train_for(task, 60 * minutes, seed=SEED, on_share=on_share)
    cost = score(task, trained.model)
    return {
        "kind": "plain",
        "mode": "plain",
        "size": {"text": task.steps, "minutes": minutes},
        "minutes": minutes,
        "updates": trained.updates,
        "characters": trained.characters,
        "passes": trained.characters / task.steps,
        "nats": cost.mean,
        "targets": cost.targets,
    }
