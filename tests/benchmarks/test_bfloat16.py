"""``python -m benchmarks bfloat16``: all contenders compute the same, and what is kept of them."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.contenders import check_agreement, of_dtypes
from benchmarks.sizes import Size

SIZE = Size(5, 7, 3, 20)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_all_compute_the_same(kind: str, mode: str) -> None:
    all = of_dtypes(kind, SIZE, "auto")
    assert list(all) == ["float32", "bfloat16", "autocast", "padded", "packed"]
    check_agreement(all, mode)
    for name, contender in all.items():
        dtype = torch.float32 if name == "float32" else torch.bfloat16
        assert contender.infer().dtype == dtype


def test_another_function_is_refused() -> None:
    all = of_dtypes("LSTM", SIZE, "auto")
    with torch.no_grad():
        all["bfloat16"].layer.weight_hh_l0.mul_(1.5)
    with pytest.raises(ValueError, match=r"^bfloat16 computes something else"):
        check_agreement(all, "infer")


def test_appends_a_line_a_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bfloat16.jsonl"
    words = ["bfloat16", "--sizes", "1", "--seconds", "0.01", "--threads", "1", "--out", str(out)]
    assert main(words) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["mode"] for line in lines] == ["train", "infer"]
    assert {line["dtype"] for line in lines} == {"bfloat16"}
    assert all(line["ratios"]["float32 / bfloat16"]["median"] > 0 for line in lines)
    assert "geometric mean" in capsys.readouterr().out
