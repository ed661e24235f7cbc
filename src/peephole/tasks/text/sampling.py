"""Text from a model, a character at a time."""

import codecs
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from peephole.data.alphabet import UNKNOWN, Alphabet
from peephole.errors import UserError
from peephole.nn import GRUCell, LSTMCell, RNNCell
from peephole.tasks.text.model import State, TextModel
from peephole.tasks.text.settings import Network

# Of a prompt, at a time.
STEPS = 1024


@dataclass(frozen=True)
class Choice:
    """How a character is drawn.

    Attributes:
        temperature: the logits are divided by it: below 1 the likely becomes likelier; 0 takes the
            likeliest always.
        top_k: draw from the k likeliest only; None for all.
        top_p: draw from the fewest likeliest that have this much of the probability together
            (Holtzman et al. 2020); None for all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def check(self, characters: int) -> None:
        """Raise UserError where a number is out of range; ``characters`` can be drawn."""
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"{self.temperature}; it must be a number of at least 0", "temperature")
        if self.top_k is not None and not 1 <= self.top_k <= characters:
            raise UserError(
                f"{self.top_k}; the model's alphabet has {characters}: it must be from 1 to that",
                "top_k",
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"{self.top_p}; it must be above 0 and at most 1", "top_p")

    def draw(self, logits: Float[np.ndarray, "A"], uniform: float) -> int:
        """An id.

        Args:
            logits: of each id; minus infinity for what cannot be.
            uniform: a random number from 0 up to 1.
        """
        if self.temperature == 0:
            return int(logits.argmax())
        order = None
        if self.top_k is not None or self.top_p is not None:
            order = (-logits).argsort(kind="stable")[: self.top_k]
            logits = logits[order]
        exact = logits.astype(np.float64)
        with np.errstate(over="ignore"):
            # Subtracted first: divided by a small temperature they overflow.
            sums = np.exp((exact - exact.max()) / self.temperature).cumsum()
        if self.top_p is not None:
            sums = sums[: int(sums.searchsorted(self.top_p * sums[-1])) + 1]
        # By its last digit the product may be the sum; what cannot be adds nothing to it.
        last = int(sums.searchsorted(sums[-1]))
        k = min(int(sums.searchsorted(uniform * sums[-1], side="right")), last)
        return k if order is None else int(order[k])


class Writer:
    """A model that writes one text: cells rather than layers, which takes a third of the time."""

    def __init__(self, model: TextModel) -> None:
        self.model = model
        self.cells = [_cell(layer, model.network) for layer in model.layers]
        self.parts = self._apart(model.initial_state(1))
        with torch.no_grad():
            self.inputs = model.inputs.clone()

    @staticmethod
    def _apart(state: State) -> list[tuple[Tensor, ...]]:
        return [tuple(s[k] for s in state) for k in range(len(state[0]))]

    @torch.inference_mode()
    def read(self, ids: list[int]) -> Float[np.ndarray, "A"]:
        """Read one or more characters; gives the logits of the next."""
        state = tuple(torch.stack(parts) for parts in zip(*self.parts, strict=True))
        logits = torch.empty(0)
        for begin in range(0, len(ids), STEPS):
            some = torch.tensor(ids[begin : begin + STEPS])
            logits, state = self.model(some, torch.tensor([0, len(some)]), state)
        self.parts = self._apart(state)
        return logits[-1].float().numpy()

    @torch.inference_mode()
    def step(self, id: int) -> Float[np.ndarray, "A"]:
        """Read one character; gives the logits of the next."""
        model = self.model
        x = self.inputs[id : id + 1]
        for k, cell in enumerate(self.cells):
            part = self.parts[k]
            new = cell(x, part if len(part) > 1 else part[0])
            self.parts[k] = new if isinstance(new, tuple) else (new,)
            x = model.norms[k](self.parts[k][0]) if model.norms else self.parts[k][0]
        return F.linear(x, model.output_weight, model.output_bias)[0].numpy()


def written(
    model: TextModel,
    alphabet: Alphabet,
    *,
    prompt: str = "",
    length: int | None = None,
    choice: Choice,
    seed: int | tuple[int, ...] = 0,
) -> Iterator[str]:
    """Text that a model writes after a prompt, as it is written.

    Args:
        model: in evaluation mode, on the CPU.
        alphabet: its.
        prompt: what stands before; the model knows nothing if there is none.
        length: characters (or bytes, of which several may make one character); None to go on.
        choice: how to draw, checked.
        seed: the same seed gives the same text.

    Returns:
        An iterator over the characters, without the prompt.

    Raises:
        UserError: at once: a character of the prompt that the model does not know.
    """
    if unknown := alphabet.unknown(prompt):
        raise UserError(
            f"the model has never seen {_shown(unknown)}; it knows {_shown(alphabet.characters)}",
            "prompt",
        )
    draws = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    ids = [model.start, *alphabet.encode(prompt).tolist()]
    return _written(Writer(model), alphabet, ids, length, choice, draws)


def _written(
    writer: Writer,
    alphabet: Alphabet,
    ids: list[int],
    length: int | None,
    choice: Choice,
    draws: np.random.Generator,
) -> Iterator[str]:
    as_text, rest = _reader(alphabet)
    logits = writer.read(ids)
    done = 0
    while length is None or done < length:
        if alphabet.unit == "char":
            logits[UNKNOWN] = -np.inf
        id = choice.draw(logits, draws.random())
        if text := as_text(id):
            yield text
        done += 1
        if length is None or done < length:
            logits = writer.step(id)
    if text := rest():
        yield text


def _reader(alphabet: Alphabet) -> tuple[Callable[[int], str], Callable[[], str]]:
    """What makes text of ids, and what gives the rest at the end."""
    if alphabet.unit == "char":
        return alphabet.character, lambda: ""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return (lambda id: decoder.decode(bytes([id]))), (lambda: decoder.decode(b"", final=True))


def _cell(layer: torch.nn.Module, network: Network) -> LSTMCell | GRUCell | RNNCell:
    """The cell of a layer, with a copy of its weights."""
    weights = {name.removesuffix("_l0"): value for name, value in layer.state_dict().items()}
    size, width = weights["weight_hh"].shape[1], weights["weight_ih"].shape[1]
    layer_norm = network.layer_norm == "gates"
    cell: LSTMCell | GRUCell | RNNCell
    if network.cell == "gru":
        cell = GRUCell(width, size, layer_norm=layer_norm)
    elif network.cell == "rnn":
        cell = RNNCell(width, size, layer_norm=layer_norm)
    else:
        cell = LSTMCell(width, size, peephole=network.peephole, layer_norm=layer_norm)
    cell.load_state_dict(weights)
    cell.eval()
    return cell


def _shown(characters: str, most: int = 80) -> str:
    """Characters so that each can be seen."""
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in characters
    )
    return repr(shown if len(shown) <= most else shown[: most - 3] + "...").replace("\\\\", "\\")
