"""What is measured of each kind: who takes part, which times are compared, and what must be done.

A ratio "a / b" is the time of a over the time of b, each divided by its multiply-adds (which are
the same but where a contender has full peepholes): how many times as fast b is as a. In a name,
"best" is the quicker of "padded" and "packed".
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.sizes import Size

MODES = ("train", "infer")
TORCH = ("padded", "packed")
BEST = "best"
# Each row's product of matrices, measured among the contenders where they are large.
MM = "mm"
# Of these, ratios have a ceiling: what they would be if b ran at torch.mm's rate.
OURS = ("auto", "fresh", "lengths", "cpu", "none", "diagonal", "full")


@dataclass(frozen=True)
class Kind:
    """A recurrence and who computes it.

    Attributes:
        layer: its name in ``peephole``, and in ``torch.nn`` where it is there.
        gates: G.
        contenders: who takes part when nobody is named.
        optional: who can be named too.
        pairs: the ratios, a and b of each; those of whom both take part are shown.
    """

    layer: str
    gates: int
    contenders: tuple[str, ...]
    optional: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]

    def ratios(self, contenders: Sequence[str]) -> list[tuple[str, str]]:
        """The pairs among these contenders."""
        there = {*contenders} | ({BEST} if set(TORCH) & {*contenders} else set())
        return [(a, b) for a, b in self.pairs if {a, b} <= there]


def _torchs(layer: str, gates: int) -> Kind:
    return Kind(
        layer,
        gates,
        (*TORCH, "auto", "fresh", "lengths", "same_padded", "same_packed"),
        ("reference", "cpu"),
        (
            (BEST, "auto"),
            ("packed", "auto"),
            (BEST, "fresh"),
            (BEST, "lengths"),
            (BEST, "cpu"),
            ("reference", "packed"),
            ("same_padded", "padded"),
            ("same_packed", "packed"),
        ),
    )


KINDS = {
    "LSTM": _torchs("LSTM", 4),
    "GRU": _torchs("GRU", 3),
    "RNN": _torchs("RNN", 1),
    "diagonal": Kind(
        "LSTM",
        4,
        ("loop", "auto", "fresh"),
        ("reference", "cpu"),
        tuple(("loop", name) for name in ("auto", "fresh", "reference", "cpu")),
    ),
    "peepholes": Kind(
        "LSTM",
        4,
        ("none", "diagonal", "full"),
        (),
        (("diagonal", "none"), ("full", "none")),
    ),
}
CONTENDERS = tuple(
    dict.fromkeys(name for kind in KINDS.values() for name in (*kind.contenders, *kind.optional))
)


def gflop(kind: str, contender: str, mode: str, size: Size, steps: int) -> float:
    """The multiplications and additions that a batch cannot do without, in GFLOP.

    A multiply-add counts as two. Each step has one for each weight: forward; backward for the
    weights; and backward from step to step for what the recurrence multiplies, ``weight_hh`` and
    full peepholes (3 H^2 more each time), since nobody asks for the input's gradient. Diagonal
    peepholes and what is done unit by unit are not counted.

    Args:
        kind: a key of ``KINDS``.
        contender: that of which the number is asked.
        mode: "train" or "infer".
        size: of batch and layer.
        steps: that the batch has in all, N.
    """
    G = KINDS[kind].gates
    input_weights = G * size.H * size.I
    recurrent = G * size.H**2 + (3 * size.H**2 if contender == "full" else 0)
    passes = 2 * input_weights + 3 * recurrent if mode == "train" else input_weights + recurrent
    return 2 * steps * passes / 1e9
