"""Which part of the data is held out to choose the best model by."""

import numpy as np

from peephole.data.sequences import Array

HELD_OUT = 0.2
HELD_OUT_OF_SERIES = 0.15


def hold_out(sequences: int, classes: Array | None, seed: int) -> Array:
    """Choose sequences to hold out, a fifth of them.

    With ``classes`` each is represented as it is in the whole, and keeps at least one sequence
    for training: the share is spread over the sequences in the order of their classes.

    Args:
        sequences: how many there are, B.
        classes: ``[B]``, a number for each; None where there are none.
        seed: of the choice.

    Returns:
        ``[B]`` bool. None are held out where there is but one of each class.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(sequences)
    if classes is not None:
        order = order[classes[order].argsort(kind="stable")]
    count = max(1, round(HELD_OUT * sequences))
    # The places k * B / count, from a random start: as near to a fifth of each class as it gets.
    start = generator.random() * sequences / count
    places = (start + np.arange(count) * sequences / count).astype(np.int64)
    held = np.zeros(sequences, dtype=bool)
    held[order[places]] = True
    if classes is None:
        return held
    for label in np.unique(classes):
        own = classes == label
        if held[own].all():
            held[np.flatnonzero(own)[0]] = False
    if not held.any() and (larger := np.bincount(classes)).max() > 1:
        held[np.flatnonzero(classes == larger.argmax())[-1]] = True
    return held


def cut_series(steps: int) -> int:
    """Where the held-out last part of a series of so many steps begins."""
    return steps - max(1, round(HELD_OUT_OF_SERIES * steps))
