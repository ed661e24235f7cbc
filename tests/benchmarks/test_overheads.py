"""``python -m benchmarks overheads``: every part does its part."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.overheads import Nothing, parts
from benchmarks.sizes import Size

SIZE = Size(5, 7, 3, 6)
NAMES = ["nothing", "op", "linear", "frame", "layer", "fresh", "padded"]


def shapes(result: Any) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in result]


def test_training_gives_the_gradients_of_each_part() -> None:
    calls: dict[str, Any] = parts("train", SIZE, "auto")
    assert list(calls) == NAMES
    assert shapes(calls["op"]()) == shapes(calls["nothing"]())
    assert shapes(calls["op"]())[1:] == [(24, 6)]
    assert shapes(calls["linear"]()) == [(24, 3), (24,), (24,)]
    assert shapes(calls["frame"]()) == [(24, 3), (24,), (24,), (24, 6)]
    assert sorted(shapes(calls["frame"]())) == sorted(shapes(calls["layer"]()))


def test_inference_gives_an_output_of_each_part() -> None:
    for name, call in parts("infer", SIZE, "auto").items():
        y: Any = call()
        assert y.is_inference()
        if name != "padded":
            assert y.shape[1] == (24 if name == "linear" else 6)


def test_nothing_has_the_ops_outputs_and_gradients() -> None:
    shape = {"gates_x": (9, 24), "weight_hh": (24, 6), "h0": (5, 6), "c0": (5, 6)}
    inputs = [torch.zeros(s, requires_grad=name != "h0") for name, s in shape.items()]
    outputs = Nothing.apply(*inputs)
    assert shapes(outputs) == [(9, 6), (5, 6), (5, 6)]
    wanted = [each for each in inputs if each.requires_grad]
    given = torch.autograd.grad(outputs, wanted, [torch.zeros_like(o) for o in outputs])
    assert shapes(given) == shapes(wanted)


def test_appends_a_line_a_mode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "overheads.jsonl"
    assert main(["overheads", "--seconds", "0.01", "--threads", "1", "--out", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["mode"] for line in lines] == ["train", "infer"]
    assert list(lines[0]["times_us"]) == NAMES
    assert "layer / frame" in capsys.readouterr().out
