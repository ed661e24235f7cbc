"""What a layer computed at every step, for who asks."""

from typing import NamedTuple

from peephole.nn.forms import Batch
from peephole.ops import Found
from peephole.ragged import Ragged


class Steps(NamedTuple):
    """What one direction of one layer computed at every step.

    Attributes:
        hidden: h, values ``[N, P]``.
        gates: each gate after its nonlinearity, by name, values ``[N, H]``.
        cells: the LSTM's c, values ``[N, H]``; None for other kinds.
    """

    hidden: Ragged
    gates: dict[str, Ragged]
    cells: Ragged | None


def steps_of(found: Found, gates: tuple[str, ...], batch: Batch) -> Steps:
    """What was found, by name and as Ragged.

    Args:
        found: of one direction.
        gates: names of the gates, in their order.
        batch: what it was found on.
    """
    parts = () if found.gates is None else found.gates.chunk(len(gates), 1)
    return Steps(
        batch.like(found.y),
        {name: batch.like(part) for name, part in zip(gates, parts, strict=False)},
        None if found.cells is None else batch.like(found.cells),
    )
