"""Shape annotations are checked while the tests run: see ``helpers/typecheck.py``."""

import hypothesis
import jaxtyping
import pytest
import torch

import tests.helpers.typecheck  # noqa: F401  the hook finds it by its name

# Before anything imports peephole.
jaxtyping.install_import_hook("peephole", "tests.helpers.typecheck.check")

torch.set_num_threads(1)
# A slow example is no failure: timings are benchmarks.
hypothesis.settings.register_profile("peephole", deadline=None, max_examples=50)
hypothesis.settings.load_profile("peephole")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extension could not be compiled."""
    from peephole.ops.cpu.extension import CALLS

    for dtype in list(CALLS):
        monkeypatch.delitem(CALLS, dtype)


@pytest.fixture
def unhooked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn the hook off for one test.

    People run without it, so a wrong shape or dtype must reach our own checks and their messages.
    With it, jaxtyping's error comes first.
    """
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
