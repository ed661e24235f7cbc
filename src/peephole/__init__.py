"""Recurrent networks on sequences of different lengths."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peephole import jobs, ops
    from peephole.nn import GRU, LSTM, RNN
    from peephole.ragged import Ragged

__version__ = "0.1.0"
__all__ = ["GRU", "LSTM", "RNN", "Ragged", "jobs", "ops"]

# Names are looked up when they are first used, so that the command line can answer --help without
# the seconds that torch takes to load.
_HOMES = {
    "GRU": "peephole.nn",
    "LSTM": "peephole.nn",
    "RNN": "peephole.nn",
    "Ragged": "peephole.ragged",
    "jobs": None,
    "ops": None,
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'peephole' has no attribute {name!r}")
    home = _HOMES[name]
    if home is None:
        return importlib.import_module(f"peephole.{name}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
