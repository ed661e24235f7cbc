"""Marks that several test files share."""

import pytest

DIRECTIONS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])

# torch compiles some of its derivatives with torch.jit.script when forward mode is first used.
forward_mode = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning"
)
