"""What docs/tasks/text.md shows works: its commands, its code, its tables, its links."""

import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from benchmarks import text as benchmark
from peephole.cli import COMMANDS, main
from peephole.jobs.text import ModelSettings, TrainSettings, budget
from peephole.tasks.text import scoring
from tests.tasks.text.texts import words
from tests.test_docs import ROOT, blocks
from tests.test_docs_training import commands, options, parser

PAGE = ROOT / "docs" / "tasks" / "text.md"
TEXT = PAGE.read_text(encoding="utf-8")
SHAKESPEARE = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def section(name: str) -> str:
    return TEXT.split(f"\n## {name}\n")[1].split("\n## ")[0]


def table(heading: str, text: str) -> list[list[str]]:
    """The rows of a table whose head begins so."""
    lines = text[text.index(f"| {heading}") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines[2:]]


def shown() -> Iterator[list[str]]:
    """Every command, in a console or not."""
    yield from commands(PAGE)
    for line in re.findall(r"^    (peephole .*|python -m benchmarks .*)$", TEXT, re.MULTILINE):
        yield shlex.split(line)


def test_its_commands_are_ones_that_the_programs_take() -> None:
    of_benchmark = ArgumentParser()
    benchmark.add_options(of_benchmark)
    kinds = {"peephole": 0, "python": 0}
    for given in shown():
        kinds[given[0]] += 1
        if given[0] == "python":
            assert given[1:4] == ["-m", "benchmarks", "text"]
            of_benchmark.parse_args(given[4:])
        elif given[1:] not in [error[1:] for error, _ in errors()]:
            of, rest = parser(given[1:])
            of.parse_args(rest)
    assert kinds["peephole"] >= 12
    assert kinds["python"] == 2


def test_the_options_that_it_names_exist() -> None:
    of_benchmark = ArgumentParser()
    benchmark.add_options(of_benchmark)
    named = set(re.findall(r"(?<![\w-])--(?![a-z]+\.\*)[a-z][a-z.-]*[a-z]", TEXT))
    known = options(of_benchmark).union(
        *(options(command.options(name, "")) for name, command in COMMANDS.items())
    )
    assert len(named) > 20
    assert not named - known


def test_its_links_lead_somewhere() -> None:
    headings = re.findall(r"^## (.*)$", TEXT, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    targets = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert {target[1:] for target in targets if target.startswith("#")} == anchors
    for target in targets:
        path = target.partition("#")[0]
        assert not path or path.startswith("https://") or (PAGE.parent / path).exists(), target


class TestNumbers:
    """What the page says is chosen is what the program's tables say."""

    def test_sizes(self) -> None:
        rows = table("layers x hidden", section("What the budget chooses"))
        wanted = [
            [
                f"{size.layers} x {size.hidden_size}",
                str(size.embedding_size),
                f"{size.read:,.0f}",
                f"{size.text:,.0f}",
                f"{size.learning_rate:g}",
            ]
            for size in budget.SIZES
        ]
        assert rows == wanted

    def test_dropping(self) -> None:
        rows = table("passes, at least", section("What the budget chooses"))
        assert rows == [[f"{number:g}" for number in row] for row in budget.DROPPING]

    def test_others(self) -> None:
        chosen = " ".join(section("What the budget chooses").split())
        usual = TrainSettings()
        reference = budget.REFERENCE
        for told in (
            f"{reference.layers} layers of {reference.hidden_size} is trained for a second",
            f"{budget.STREAMS} streams x {budget.WINDOW} characters",
            f"more than {budget.MOST_PASSES} passes",
            f"weight decay {usual.weight_decay:g}, the gradient's norm clipped at {usual.clip:g}",
            f"moving average of the weights ({usual.average:g})",
        ):
            assert told in chosen
        assert f"after up to {scoring.WARM_UP} characters" in TEXT

    def test_fields_of_the_settings_that_it_names(self) -> None:
        for name, settings in (("ModelSettings", ModelSettings), ("TrainSettings", TrainSettings)):
            (given,) = re.findall(rf"text\.{name}\((.*?)\)", TEXT)
            there = {field.name for field in fields(settings)}
            assert set(re.findall(r"(\w+)=", given)) <= there


def errors() -> list[tuple[list[str], str]]:
    """Each command with the line that it ends with."""
    lines = blocks(PAGE, "console")[-1].splitlines()
    given = [shlex.split(line.removeprefix("$ ")) for line in lines[::2]]
    return list(zip(given, lines[1::2], strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the page's commands name, and a run on a text of the same characters."""
    made = tmp_path_factory.mktemp("page")
    for name in ("input.txt", "other.txt"):
        (made / name).write_text(SHAKESPEARE * 20 + words(1000) + SHAKESPEARE)
    (made / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (made / "empty.txt").touch()
    (made / "nothing").mkdir()
    (made / "short.txt").write_text("too short")
    quick = ["--model.hidden-size", "8", "--train.updates", "2"]
    run = ["--out", str(made / "runs" / "demo")]
    assert main(["train", "text", str(made / "input.txt"), *quick, *run]) == 0
    return made


def test_errors_are_the_ones_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert len(errors()) >= 8
    for given, line in errors():
        assert main(given[1:]) == 2
        assert capsys.readouterr().err == f"{line}\n"


def test_what_sample_and_evaluate_print_has_the_form_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for block in blocks(PAGE, "console"):
        command, *wanted = block.splitlines()
        given = shlex.split(command.removeprefix("$ "))[1:]
        if given[0] not in ("sample", "evaluate"):
            continue
        assert main(given) == 0
        printed = capsys.readouterr().out
        if given[0] == "sample":
            assert len(printed) == len("\n".join(wanted)) + 1
            assert printed.startswith("ROMEO:")
        else:
            printed_lines = printed.strip().splitlines()
            kinds = [re.sub(r"[\d., ]+", " ", line) for line in printed_lines]
            assert kinds == [re.sub(r"[\d., ]+", " ", line) for line in wanted[1:]]


@pytest.mark.slow
def test_its_code_runs_as_shown(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shown.py").write_text("\n".join(blocks(PAGE, "python")), encoding="utf-8")
    for name in ("input.txt", "other.txt"):
        (tmp_path / name).write_text((folder / name).read_text())
    # Of so small a text a hundred passes are a matter of seconds.
    ran = subprocess.run(
        [sys.executable, "shown.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "held out: the last tenth" in ran.stdout
    assert (tmp_path / "runs" / "python" / "report.html").exists()
