"""The command line as a person meets it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from peephole import __version__
from peephole.cli import COMMANDS, PATIENCE_SECONDS, main

HEAVY = (
    "torch",
    "lightning_fabric",
    "pyarrow",
    "matplotlib",
    "numpy",
    "rich",
    "tensorboard",
    "pandas",
    "polars",
    "datasets",
)


def loaded_by(words: list[str], folder: Path) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run a command in a process of its own; also what it had loaded when it ended."""
    script = (
        "import sys; from peephole.cli import main; status = main(sys.argv[1:]); "
        f"print('LOADED', *[name for name in {HEAVY!r} if name in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    *_, last = done.stdout.splitlines()
    return done, set(last.split()[1:])


@pytest.mark.parametrize("words", [["--help"], *([*name.split(), "--help"] for name in COMMANDS)])
def test_help_loads_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    done, loaded = loaded_by(words, tmp_path)
    assert done.returncode == 0
    assert loaded == set()
    assert len(done.stdout.splitlines()) > 5
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize(
    "words",
    [
        ["tran"],
        ["train", "tabel"],
        ["reproduce", "--quik"],
        ["train", "table", "x.csv"],
        ["train", "table", "x.csv", "--target", "y", "--model.hidden-size", "-3"],
    ],
)
def test_usage_errors_load_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    done, loaded = loaded_by(words, tmp_path)
    assert done.returncode == 2
    assert loaded == set()
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["tran"], "peephole: there is no command 'tran'; did you mean train?"),
        (["xyz"], "peephole: there is no command 'xyz'; see peephole --help"),
        (["train"], "peephole: train what? there is table and text"),
        (["train", "tabel"], "peephole: train: there is no 'tabel'; there is table and text"),
        (
            ["reproduce", "--sede", "3"],
            "peephole reproduce: --sede: there is no such option; did you mean --seeds?",
        ),
        (
            ["reproduce", "--seeds", "0"],
            "peephole reproduce: --seeds: '0' is not a whole number of at least 1",
        ),
        (["evaluate"], "peephole evaluate: RUN and FILE must be given"),
        (["predict", "run", "file.csv"], "peephole predict: --out must be given"),
        (
            ["reproduce", "--only", "lstm", "rnm"],
            "peephole reproduce: --only: there is no model 'rnm'; did you mean 'rnn'? there are "
            "mlp-1, mlp-1-fail, mlp-2, rnn, lstm, lstm-variable, lstm-reversed, gru-variable, "
            "bilstm-direct",
        ),
    ],
)
def test_an_error_is_one_line_and_status_2(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.err == line + "\n"
    assert captured.out == ""


def test_the_menu_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["help"], ["train", "--help"]):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert all(f"peephole {name}" in out for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"peephole {__version__}\n"


def test_python_m_peephole_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "peephole", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"peephole {__version__}\n"


@pytest.mark.slow
def test_reproduce_prints_its_table_and_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", "--quick", "--only", "mlp-2", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    # The first evaluation after a quarter of the updates.
    assert re.match(r"mlp-2: 2[5-9]%, test error \d", lines[0])
    assert [line.split()[0] for line in lines[4:6]] == ["model", "mlp-2"]
    assert lines[-1].startswith(str(tmp_path / "out" / "report.html"))
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("peephole reproduce: --out: ")
    assert main([*words, "--overwrite"]) == 0


@pytest.mark.parametrize("words", [["predict"], ["predict", "no-run", "no-file", "--out", "x.csv"]])
def test_of_several_processes_the_first_one_tells_of_an_error_first(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are ended by torchrun meanwhile, unless the error is theirs alone."""
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    assert main(words) == 2
    first = capsys.readouterr().err
    assert waited == []
    monkeypatch.setenv("RANK", "1")
    assert main(words) == 2
    assert waited == [PATIENCE_SECONDS]
    assert capsys.readouterr().err == first.replace("predict:", "predict (process 1):")
