"""Let a trained language model write, and measure it on a text."""

import lzma
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from peephole.data.alphabet import UNKNOWN, Alphabet
from peephole.data.corpus import InMemory
from peephole.data.decoding import Codes, Unit, decoded
from peephole.data.schema import from_json
from peephole.data.text_files import text_files
from peephole.errors import UserError
from peephole.jobs.text.train import TextRun
from peephole.run import Run
from peephole.tasks.text import scoring
from peephole.tasks.text.model import TextModel
from peephole.tasks.text.sampling import Choice, written
from peephole.tasks.text.scoring import Cost
from peephole.tasks.text.settings import Network, check
from peephole.untrusted import shown

# Of dynamic evaluation.
RATE = 0.1
MAX_DICTIONARY = 1 << 26


@dataclass(frozen=True)
class ModelConfig:
    """The form of a text run's ``model/config.json``."""

    task: Literal["text"]
    version: Literal[1]
    network: Network
    alphabet: Alphabet


@dataclass(frozen=True)
class TextScores:
    """What a text costs a model.

    Attributes:
        unit: what a target is, a character or a byte.
        targets: how many.
        bytes: of the text.
        unknown: how many characters the model does not know.
        others: how many characters there are that it does not know.
        static: what the text costs the model as it is.
        dynamic: what it costs the model that learns while it reads; None if that was not asked.
        gzip: bytes that gzip makes of it, at its best.
        xz: bytes that xz makes of it, at its best.
    """

    unit: Unit
    targets: int
    bytes: int
    unknown: int
    others: int
    static: Cost
    dynamic: Cost | None
    gzip: int
    xz: int

    @property
    def nats(self) -> float:
        """A character (or byte), by the model as it is; as is ``bits``."""
        return self.static.mean

    @property
    def bits(self) -> float:
        return self.static.bits

    @property
    def perplexity(self) -> float:
        return self.static.perplexity

    def compressed(self, cost: Cost) -> float:
        """Bytes that an arithmetic coder would make of the text with the model.

        A character that the model does not know costs what the model gives to the unknown, and
        the choice among all that it does not know. The model itself is not counted.
        """
        choice = math.log(self.others) if self.unknown else 0.0
        return (cost.nats + self.unknown * choice) / math.log(2) / 8


def open_run(path: str | Path) -> tuple[Alphabet, TextModel]:
    """Rebuild a trained model from a run folder, which may come from a stranger.

    Raises:
        UserError: it is no run of a text, or damaged.
    """
    opened = Run.open(path)
    where = f"{opened.path / 'model' / 'config.json'}"
    if (task := opened.model_config.get("task")) != "text":
        of = "" if task is None else f" of {shown(task)}"
        raise UserError(f"{path} is a run{of} and not of a text; peephole train text makes one")
    try:
        config = from_json(ModelConfig, opened.model_config, where)
        check(config.network)
    except ValueError as error:
        message = str(error)
        raise UserError(message if where in message else f"{where}: {message}") from error
    with torch.device("meta"):
        model = TextModel(config.alphabet.size, config.network)
    opened.load_weights(model)
    if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
        raise UserError(f"{opened.path / 'model'} has weights that are not finite: it is damaged")
    return config.alphabet, model.eval()


def sample(
    run: TextRun | str | Path,
    *,
    prompt: str = "",
    length: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """Let a trained model write.

    Args:
        run: a trained model, or its folder.
        prompt: what stands before what it writes.
        length: how many characters (of a model of bytes, bytes); None to go on for ever.
        temperature: below 1 the likely becomes likelier; 0 takes the likeliest always.
        top_k: draw from the k likeliest only.
        top_p: draw from the fewest likeliest that have this much of the probability together.
        seed: the same seed gives the same text.

    Returns:
        An iterator over the characters, without the prompt, each as soon as it is drawn.

    Raises:
        UserError: at once: a number out of range, a character of the prompt that the model has
            never seen, no run of a text, or a damaged one.
    """
    if length is not None and not length >= 0:
        raise UserError(f"{length}; it must be at least 0", "length")
    if not 0 <= seed < 2**64:
        raise UserError(f"{seed} is not from 0 to 2**64 - 1", "seed")
    alphabet, model = _opened(run)
    choice = Choice(temperature, top_k, top_p)
    choice.check(alphabet.size - (alphabet.unit == "char"))
    return written(model, alphabet, prompt=prompt, length=length, choice=choice, seed=seed)


def evaluate(
    run: TextRun | str | Path, file: str | Path, *, dynamic: bool = False, rate: float = RATE
) -> TextScores:
    """Measure a trained model on a text, read from its beginning with the state carried.

    Args:
        run: a trained model, or its folder.
        file: a file; or a folder, each file of which is a document of its own.
        dynamic: whether to measure too what the text costs a model that learns while it reads
            (Mikolov 2012; Graves 2013). It takes some times as long.
        rate: the learning rate of that.

    Raises:
        UserError: the run is damaged or not of a text, the file is not text, or the rate is so
            high that what learns comes to nothing.
    """
    if not 0 < rate < math.inf:
        raise UserError(f"{rate}; it must be more than 0", "rate")
    alphabet, model = _opened(run)
    files = [file.path for file in text_files(Path(file), "file")]
    parts = [list(_ids(path, alphabet)) for path in files]
    lengths = [sum(map(len, part)) for part in parts]
    ids = np.concatenate([piece for part in parts for piece in part])
    stretches = scoring.whole(np.concatenate([[0], np.cumsum(lengths)]), range(len(files)))
    memory = InMemory(ids)
    learning = scoring.dynamic(model, memory, stretches, rate=rate) if dynamic else None
    if learning is not None and not math.isfinite(learning.perplexity):
        raise UserError(f"{rate:g}; learning so fast, the model diverged: give a lower one", "rate")
    gzip, xz = _compressed(files)
    return TextScores(
        unit=alphabet.unit,
        targets=len(ids),
        bytes=sum(path.stat().st_size for path in files),
        unknown=int((ids == UNKNOWN).sum()) if alphabet.unit == "char" else 0,
        others=alphabet.others,
        static=scoring.static(model, memory, stretches),
        dynamic=learning,
        gzip=gzip,
        xz=xz,
    )


def _opened(run: TextRun | str | Path) -> tuple[Alphabet, TextModel]:
    return (run.alphabet, run.model) if isinstance(run, TextRun) else open_run(run)


def _ids(path: Path, alphabet: Alphabet) -> Iterator[Codes]:
    for codes in decoded(path, alphabet.unit, "file"):
        yield alphabet.ids(codes)


def _compressed(files: list[Path]) -> tuple[int, int]:
    """Bytes that gzip and xz make of files that stand one after the other."""
    size = sum(path.stat().st_size for path in files)
    gzip = zlib.compressobj(9, wbits=31)
    # A larger dictionary than the text takes memory and brings nothing.
    dictionary = min(MAX_DICTIONARY, max(4096, size))
    best = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}
    xz = lzma.LZMACompressor(filters=[best])
    gzip_size = xz_size = 0
    for path in files:
        for part in decoded(path, "byte"):
            gzip_size += len(gzip.compress(part.tobytes()))
            xz_size += len(xz.compress(part.tobytes()))
    return gzip_size + len(gzip.flush()), xz_size + len(xz.flush())
