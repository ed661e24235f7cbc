"""What is measured of one kind, mode and size, and what follows from it."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders import SEED, batch, check_agreement, contenders
from benchmarks.kinds import BEST, KINDS, MM, OURS, TORCH, gflop
from benchmarks.machine import mm, mm_gflop
from benchmarks.measure import MIN_ROUNDS, Measurement, Quartiles, measure
from benchmarks.sizes import Size

# From so many hidden units on a batch is larger than the caches, and torch.mm is one of those that
# run in each round. Before it would clear the caches that small layers live in.
MM_AMONG = 256
MM_SECONDS = 0.5


@dataclass(frozen=True)
class Row:
    """What was measured of one kind, mode and size.

    Attributes:
        kind: a key of ``KINDS``.
        mode: "train" or "infer".
        size: of batch and layer.
        steps: that the batch has in all, N.
        measured: the times; ``mm`` is among them where the product ran in each round.
        mm_seconds: times of the product, whenever they were taken.
        backends: what our layers ran on, where they tell.
    """

    kind: str
    mode: str
    size: Size
    steps: int
    measured: Measurement
    mm_seconds: list[float]
    backends: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.kind} {self.mode} {self.size}"

    @property
    def contenders(self) -> list[str]:
        return [name for name in self.measured.seconds if name != MM]

    @property
    def best(self) -> str | None:
        """The quicker form of ``torch.nn``; None where neither took part."""
        there = [name for name in TORCH if name in self.measured.seconds]
        return self.measured.fastest(there) if there else None

    @property
    def mm_gflops(self) -> float:
        """The rate of ``torch.mm`` in the same run."""
        return _mm_gflops(self.mm_seconds)

    def gflop(self, contender: str) -> float:
        """What it must do, as ``kinds.gflop`` counts."""
        return gflop(self.kind, contender, self.mode, self.size, self.steps)

    def ratios(self) -> dict[str, Quartiles]:
        """For each pair "a / b" how many times as fast b is as a: quartiles of the rounds'."""
        found = {}
        for a, b in KINDS[self.kind].ratios(self.contenders):
            work = self.gflop(b) / self.gflop(self._called(a))
            found[f"{a} / {b}"] = self.measured.ratio(self._called(a), b).scaled(work)
        return found

    def ceilings(self) -> dict[str, float]:
        """For each ratio to one of ours what it would be if that ran at ``torch.mm``'s rate."""
        return {
            f"{a} / {b}": 1 / self.share(self._called(a))
            for a, b in KINDS[self.kind].ratios(self.contenders)
            if b in OURS and a not in OURS
        }

    def share(self, contender: str) -> float:
        """Of ``torch.mm``'s rate, that it does its useful multiply-adds with."""
        return share_of_mm(self.measured, self.mm_seconds, contender, self.gflop(contender))

    def gflops(self) -> dict[str, float]:
        """Useful GFLOP/s of each contender, at its median."""
        return {
            name: self.gflop(name) / self.measured.times(name).median for name in self.contenders
        }

    def figures(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "kind": self.kind,
            "mode": self.mode,
            "size": self.size._asdict() | {"N": self.steps},
            "rounds": self.measured.rounds,
            "repetitions": self.measured.repetitions,
            "times_ms": {
                name: self.measured.times(name).scaled(1e3)._asdict()
                for name in self.measured.seconds
            },
            "best": self.best,
            "ratios": {name: ratio._asdict() for name, ratio in self.ratios().items()},
            "ceilings": self.ceilings(),
            "gflop": {name: self.gflop(name) for name in self.contenders},
            "gflops": self.gflops(),
            "mm_gflops": self.mm_gflops,
            "shares_of_mm": {name: self.share(name) for name in self.contenders},
            "backends": self.backends,
        }

    def _called(self, name: str) -> str:
        return self.best or name if name == BEST else name


def measure_row(
    kind: str,
    mode: str,
    size: Size,
    seconds: float,
    *,
    names: Iterable[str] | None = None,
    backend: str = "auto",
    min_rounds: int = MIN_ROUNDS,
    on_round: Callable[[float], None] = lambda share: None,
) -> Row:
    """Measure one kind, mode and size.

    Args:
        kind: a key of ``KINDS``.
        mode: "train" or "infer".
        size: of batch and layer.
        seconds: the budget for all contenders together.
        names: the contenders; the kind's own if None.
        backend: of our layers.
        min_rounds: as in ``measure``.
        on_round: as in ``measure``.

    Raises:
        ValueError: the contenders do not compute the same, or there is no such backend.
    """
    all = contenders(kind, size, names, backend=backend)
    check_agreement(all, mode)
    calls = {name: contender.call(mode) for name, contender in all.items()}
    measured, mm_seconds = beside_mm(
        calls, seconds, among=size.H >= MM_AMONG, min_rounds=min_rounds, on_round=on_round
    )
    backends = {n: contender.backend for n, contender in all.items() if contender.backend}
    return Row(kind, mode, size, len(batch(size).values), measured, mm_seconds, backends)


def beside_mm(
    calls: Mapping[str, Callable[[], object]],
    seconds: float,
    *,
    among: bool,
    min_rounds: int = MIN_ROUNDS,
    on_round: Callable[[float], None] = lambda share: None,
) -> tuple[Measurement, list[float]]:
    """Time calls, and ``torch.mm`` in the same run.

    Args:
        calls: what to time, by name.
        seconds: the budget for all of them together.
        among: whether the product runs in each round, as ``mm``, or before and after all.
        min_rounds: as in ``measure``.
        on_round: as in ``measure``.

    Returns:
        What was measured, and times of the product.
    """
    product = {MM: mm()}
    before_and_after = min(seconds, MM_SECONDS) / 2
    mm_seconds = [] if among else measure(product, before_and_after).seconds[MM]
    measured = measure(
        {**calls, **product} if among else calls,
        seconds,
        seed=SEED,
        min_rounds=min_rounds,
        on_round=on_round,
    )
    mm_seconds += measured.seconds[MM] if among else measure(product, before_and_after).seconds[MM]
    return measured, mm_seconds


def share_of_mm(
    measured: Measurement, mm_seconds: Sequence[float], name: str, gflop: float
) -> float:
    """Of ``torch.mm``'s rate in the same run, that a call does its useful multiply-adds with.

    Args:
        measured: as ``beside_mm`` gives it.
        mm_seconds: likewise.
        name: of the call.
        gflop: what it cannot do without.
    """
    if MM in measured.seconds:
        return gflop / mm_gflop() / measured.ratio(name, MM).median
    return gflop / measured.times(name).median / _mm_gflops(mm_seconds)


def _mm_gflops(mm_seconds: Sequence[float]) -> float:
    return mm_gflop() / statistics.median(mm_seconds)
