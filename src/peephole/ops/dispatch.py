"""Which backend computes a recurrence."""

from types import ModuleType

from peephole.ops import reference

BACKENDS: dict[str, ModuleType] = {"reference": reference}


def pick(backend: str) -> ModuleType:
    """The module whose ``lstm``, ``gru`` and ``rnn`` serve; "auto" is the fastest that can.

    Raises:
        ValueError: there is no backend of that name.
    """
    if backend == "auto":
        return reference
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r}; there are {', '.join(['auto', *BACKENDS])}")
    return BACKENDS[backend]
