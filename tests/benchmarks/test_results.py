"""JSON lines are appended, never overwritten."""

import json
from pathlib import Path

import pytest

from benchmarks import results


def test_lines_are_appended_and_folders_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    results.append(path, {"a": 1})
    results.append(path, {"a": [None, "two"]})
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"a": 1}, {"a": [None, "two"]}]


def test_floats_are_kept_to_six_digits_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    results.append(path, {"a": 1 / 3, "b": {"c": (1e-9 / 3, 12345678)}})
    assert json.loads(path.read_text()) == {"a": 0.333333, "b": {"c": [3.33333e-10, 12345678]}}


def test_no_number_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError, match="JSON"):
        results.append(path, {"a": float("nan")})
    assert not path.exists()


def test_lines_of_all_files_are_read(tmp_path: Path) -> None:
    assert results.read(tmp_path) == []
    for name, numbers in (("b", [3]), ("a", [1, 2])):
        for number in numbers:
            results.append(tmp_path / f"{name}.jsonl", {"k": number})
    (tmp_path / "other.txt").write_text("no JSON")
    assert results.read(tmp_path) == [{"k": 1}, {"k": 2}, {"k": 3}]


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"k": 1}\n{"k": \n')
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: "):
        results.read(tmp_path)
