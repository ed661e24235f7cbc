"""Errors that a test waits for."""

import re

import pytest


def raises(message: str, error: type[Exception] = ValueError) -> pytest.RaisesExc[Exception]:
    """``pytest.raises`` with the whole message, as it is written."""
    return pytest.raises(error, match=f"^{re.escape(message)}$")
