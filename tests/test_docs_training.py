"""What docs/training.md shows works: its code, its commands, its options, its links."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from peephole.cli import COMMANDS, main
from peephole.cli.parser import Parser
from peephole.run import state
from tests.test_docs import README, ROOT, blocks

TRAINING = ROOT / "docs" / "training.md"
TEXT = TRAINING.read_text(encoding="utf-8")


def commands(document: Path) -> list[list[str]]:
    """Each command after a prompt, of which there is one for each machine."""
    whole = [block.replace("\\\n", " ") for block in blocks(document, "console")]
    lines = [line for block in whole for line in block.splitlines()]
    prompted = [re.fullmatch(r"\w*\$ +(.*)", line) for line in lines]
    return [shlex.split(match[1]) for match in prompted if match]


def parser(words: list[str]) -> tuple[Parser, list[str]]:
    """The parser of a command of ours, and what it is given."""
    name = next(name for name in COMMANDS if words[: len(name.split())] == name.split())
    return COMMANDS[name].options(name, ""), words[len(name.split()) :]


def options(of: object) -> set[str]:
    actions = of._actions  # type: ignore[attr-defined]
    return {flag for action in actions for flag in action.option_strings}


def unwrapped(words: list[str]) -> list[str]:
    """What ``peephole`` is given, whether ``torchrun`` starts it or not."""
    if words[0] == "torchrun":
        given = get_args_parser().parse_args(words[1:])
        assert given.module
        words = [given.training_script, *given.training_script_args]
    assert words[0] == "peephole"
    return words[1:]


@pytest.mark.parametrize("document", [TRAINING, README], ids=lambda path: path.name)
def test_its_commands_are_ones_that_the_program_takes(document: Path) -> None:
    shown = commands(document)
    assert sum(words[0] == "torchrun" for words in shown) >= 1
    for words in shown:
        if words[0] in ("peephole", "torchrun"):
            of, given = parser(unwrapped(words))
            of.parse_args(given)


def test_the_options_that_it_names_exist() -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z.-]*[a-z]", TEXT))
    known = options(get_args_parser()).union(
        *(options(command.options(name, "")) for name, command in COMMANDS.items())
    )
    # TensorBoard's own.
    known.add("--logdir")
    assert len(named) > 25
    assert not named - known


def test_its_links_lead_somewhere() -> None:
    headings = re.findall(r"^## (.*)$", TEXT, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    targets = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert {target[1:] for target in targets if target.startswith("#")} == anchors
    for target in targets:
        assert target.startswith("#") or (TRAINING.parent / target).exists(), target


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main(["example", "table", "--out", "shifts.csv", "--sequences", "200"]) == 0
    return tmp_path


@pytest.mark.slow
def test_its_code_runs_as_shown(folder: Path) -> None:
    # The last block resumes what is there; the program is run twice, as the text says.
    (folder / "shown.py").write_text("\n".join(blocks(TRAINING, "python")), encoding="utf-8")
    first = subprocess.run(
        [sys.executable, "shown.py"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert first.returncode == 0, first.stderr
    accuracy = float(re.findall(r"^(0\.\d+) torch\.Size\(\[200\]\)$", first.stdout, re.M)[0])
    assert accuracy > 0.85
    assert first.stdout.endswith("there is no checkpoint yet: the training begins anew\n")
    own = "\n".join(blocks(TRAINING, "python")[1:])
    again = subprocess.run(
        [sys.executable, "-c", own], cwd=folder, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert re.search(r"resumed from signs/checkpoints/update-\d{9}, after", again.stdout)


@pytest.mark.slow
def test_the_readme_s_two_processes_train(folder: Path) -> None:
    begin, resume = [words[1:] for words in commands(README) if words[0] == "torchrun"]
    began = torchrun(begin, folder)
    assert began.returncode == 0, began.stderr
    assert state(folder / begin[begin.index("--out") + 1]) == "finished"
    assert "is finished: there is nothing to resume" in torchrun(resume, folder).stderr


def torchrun(words: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words],
        cwd=folder,
        # A free port, whatever else runs here.
        env={**os.environ, "PET_STANDALONE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
