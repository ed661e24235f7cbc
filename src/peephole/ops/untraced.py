"""Functions that no compiler looks into."""

import functools
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def untraced(reason: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """``torch.compiler.disable`` as a decorator, without torch's compiler until somebody loads it.

    That takes as long as loading torch. Where nobody has, there is none to keep away.

    Args:
        reason: what a person is told who asks for one graph.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        disabled: list[Callable[..., R]] = []

        def choose() -> Callable[..., R]:
            if "torch._dynamo" not in sys.modules:
                return function
            if not disabled:
                disable: Any = torch.compiler.disable
                disabled.append(disable(function, reason=reason))
            return disabled[0]

        call: Any = functools.wraps(function)(lambda *args, **kwargs: choose()(*args, **kwargs))
        # As torch's own decorator marks a function, for a compiler that comes to its call.
        call._torchdynamo_disable = True
        call._torchdynamo_disable_msg = reason
        chosen: Callable[P, R] = call
        return chosen

    return decorate
