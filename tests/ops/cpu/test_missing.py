"""Where the extension was not built: everything works but ``backend="cpu"``, and one is told."""

import os
import subprocess
import sys
from pathlib import Path

MISSING = (
    "the compiled extension peephole.ops.cpu._kernels is missing; install peephole from a wheel, "
    "or from its sources where there is a C++ compiler"
)

# As if there were no file of that name.
HIDE = """
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "peephole.ops.cpu._kernels":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
import logging
logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stdout)
import torch, peephole
from peephole import Ragged, ops
from peephole.ops import cpu
x = Ragged(torch.randn(60, 3), torch.tensor([0, 50, 52, 60]))
"""


def printed(script: str) -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-c", HIDE + script],
        capture_output=True,
        text=True,
        timeout=120,
        env={name: value for name, value in os.environ.items() if name != "PEEPHOLE_CPU"},
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.splitlines()


def test_layers_run_on_another_backend_and_say_so_once() -> None:
    lines = printed(
        "for options in ({}, {'peephole': 'diagonal'}):\n"
        "    layer = peephole.LSTM(3, 4, **options)\n"
        "    for _ in range(3):\n"
        "        y, _ = layer(x)\n"
        "        y.values.sum().backward()\n"
        "    print(layer.backend_used)\n"
    )
    told = [line for line in lines if line.startswith("peephole: ")]
    assert [line for line in lines if line not in told][1] == "reference"
    assert told
    assert len(told) == len(set(told)) <= 2
    assert all(MISSING in line for line in told)


def test_ops_run_on_the_reference() -> None:
    assert printed(
        "gates_x, weight_hh = torch.randn(60, 16), torch.randn(16, 4)\n"
        "given = ops.lstm(gates_x, x.offsets, weight_hh)\n"
        "wanted = ops.lstm(gates_x, x.offsets, weight_hh, backend='reference')\n"
        "print(torch.equal(given[0], wanted[0]))\n"
    )[-1:] == ["True"]


def test_the_backend_by_name_says_what_is_missing() -> None:
    calls = (
        "ops.lstm(torch.randn(60, 16), x.offsets, torch.randn(16, 4), backend='cpu')",
        "peephole.LSTM(3, 4, backend='cpu')(x)",
        "cpu.instruction_set()",
        "cpu.instruction_sets()",
    )
    script = "".join(
        f"try:\n    {call}\nexcept (ValueError, RuntimeError) as error:\n    print(error)\n"
        for call in calls
    )
    lines = printed(script)
    assert len(lines) == len(calls)
    assert all(MISSING in line for line in lines)


def test_another_import_error_is_not_taken_for_a_missing_extension() -> None:
    script = HIDE.replace("No module named", "broken").replace("name=name", "name='numpy.none'")
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode != 0
    assert "ModuleNotFoundError: broken" in ended.stderr
