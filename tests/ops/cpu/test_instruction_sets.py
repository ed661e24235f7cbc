"""Which kernels are loaded, and that PEEPHOLE_CPU chooses them."""

import os
import subprocess
import sys

import pytest

from peephole.ops import cpu


def loaded(name: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: what runs is chosen once, when the extension is loaded."""
    code = "from peephole.ops import cpu; print(cpu.instruction_set())"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PEEPHOLE_CPU": name},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_best_is_taken() -> None:
    forced = os.environ.get("PEEPHOLE_CPU")
    assert cpu.instruction_set() == (forced or cpu.instruction_sets()[0])


@pytest.mark.parametrize("name", cpu.instruction_sets())
def test_each_is_taken_when_it_is_named(name: str) -> None:
    assert loaded(name).stdout.strip() == name


def test_an_unknown_name_is_an_error_that_lists_what_there_is() -> None:
    process = loaded("mmx")
    assert process.returncode != 0
    expected = (
        f"PEEPHOLE_CPU=mmx: this build and this processor have {', '.join(cpu.instruction_sets())}"
    )
    assert expected in process.stderr
