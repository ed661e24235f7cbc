"""What the documents show works: commands, code, links, and the tests that they name."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from peephole.cli import main
from tests.tasks.text.texts import words

ROOT = Path(__file__).parents[1]
README, LAYERS = ROOT / "README.md", ROOT / "docs" / "layers.md"
DOCUMENTS = [README, LAYERS]


def blocks(document: Path, language: str) -> list[str]:
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_figures_are_there(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8"))
    assert targets
    for target in targets:
        assert target.startswith("https://") or (document.parent / target).exists(), target


@pytest.mark.slow
def test_the_readme_s_commands_and_code_run_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("input.txt", "other.txt"):
        # Of so small a text the most passes there are take seconds.
        Path(name).write_text("ROMEO: " + words(500))
    lines = [line for block in blocks(README, "console") for line in block.splitlines()]
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ peephole ")]
    assert len(commands) >= 4
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0, command
    capsys.readouterr()
    python = blocks(README, "python")
    assert len(python) >= 2
    for code in python:
        exec(compile(code, str(README), "exec"), {})


@pytest.mark.slow
def test_the_layers_code_runs_as_shown(tmp_path: Path) -> None:
    python = blocks(LAYERS, "python")
    assert len(python) >= 6
    # In an interpreter of its own: a graph cannot hold the tests' checks of shapes. Each block goes
    # on from the one before it, as a reader does.
    program = tmp_path / "shown.py"
    program.write_text("\n".join(python), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_the_layers_table_names_tests_that_exist() -> None:
    named = re.findall(r"`((?:\w+/)+test_\w+\.py)(?:::(\w+))?`", LAYERS.read_text(encoding="utf-8"))
    assert len(named) > 30
    for file, name in named:
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        kinds = (ast.ClassDef, ast.FunctionDef)
        found = {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
        assert not name or name in found, f"{file} has no {name}"
