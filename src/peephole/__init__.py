"""Recurrent networks on sequences of different lengths."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peephole import jobs, nn, ops
    from peephole.jobs.text import sample
    from peephole.nn import (
        GRU,
        LSTM,
        RNN,
        GRUCell,
        LSTMCell,
        Recurrent,
        RNNCell,
        from_torch,
        load,
    )
    from peephole.ragged import Ragged

__version__ = "0.1.0"
__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Ragged",
    "Recurrent",
    "from_torch",
    "jobs",
    "load",
    "nn",
    "ops",
    "sample",
]

_ROOMS = ("jobs", "nn", "ops")


# Names are looked up when they are first used, so that the command line can answer --help without
# the seconds that torch takes to load.
def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'peephole' has no attribute {name!r}")
    if name in _ROOMS:
        return importlib.import_module(f"peephole.{name}")
    homes = {"Ragged": "peephole.ragged", "sample": "peephole.jobs.text"}
    home = homes.get(name, "peephole.nn")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
