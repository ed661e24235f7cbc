"""Options: flags and config files with hyphens, and errors of one line."""

from pathlib import Path

import pytest
import yaml

from peephole.cli.parser import Parser, UsageError, optional, real, text, whole
from tests.helpers.errors import raises


@pytest.fixture
def parser() -> Parser:
    parser = Parser("train table", "FILE --target COL [options]", "Train.")
    parser.add_argument("file", metavar="FILE", help="the data")
    parser.add_argument("--target", type=text, metavar="COL", required=True)
    parser.add_argument("--features", type=text, nargs="+", metavar="COL")
    parser.add_argument("--missing", choices=["error", "forward", "mean"], default="error")
    parser.add_argument("--model.cell", choices=["lstm", "gru"], default="lstm")
    parser.add_argument("--model.hidden-size", type=whole(1), default=32)
    parser.add_argument("--model.dropout", type=real(at_least=0, below=1), default=0.1)
    parser.add_argument("--train.learning-rate", type=real(above=0), default=0.01)
    parser.add_argument("--train.patience", type=optional(whole(1)), default=5)
    parser.add_argument("--overwrite", action="store_true")
    parser.add_general()
    return parser


GIVEN = ["data.csv", "--target", "y"]


def config(folder: Path, text: str) -> list[str]:
    path = folder / "options.yaml"
    path.write_text(text)
    return [*GIVEN, "--config", str(path)]


def test_several_values_follow_one_flag(parser: Parser) -> None:
    options = parser.parse_args([*GIVEN, "--features", "a", "b", "--overwrite"])
    assert options.features == ["a", "b"]
    assert options.overwrite is True


def test_none_is_a_value(parser: Parser) -> None:
    assert parser.parse_args([*GIVEN, "--train.patience", "none"]).train.patience is None


@pytest.mark.parametrize("name", ["5", "null", "true", "1e3", "a: b", "[x]"])
def test_a_column_name_stays_text(parser: Parser, name: str) -> None:
    options = parser.parse_args(["data.csv", f"--target={name}", "--features", name])
    assert options.target == name
    assert options.features == [name]


def test_a_config_file_has_hyphens_and_the_command_line_wins(
    parser: Parser, tmp_path: Path
) -> None:
    text = "model:\n  hidden-size: 99\n  dropout: 0.5\nfeatures: [a, b]\n"
    options = parser.parse_args([*config(tmp_path, text), "--model.dropout", "0.2"])
    assert options.model.hidden_size == 99
    assert options.model.dropout == 0.2
    assert options.features == ["a", "b"]


def test_print_config_gives_what_config_reads(
    parser: Parser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args([*GIVEN, "--model.hidden-size", "7", "--print-config"])
    text = capsys.readouterr().out
    printed = yaml.safe_load(text)
    assert printed["model"] == {"cell": "lstm", "hidden-size": 7, "dropout": 0.1}
    assert printed["train"] == {"learning-rate": 0.01, "patience": 5}
    assert "_" not in text
    (tmp_path / "printed.yaml").write_text(text)
    again = parser.parse_args(["--config", str(tmp_path / "printed.yaml")])
    first = parser.parse_args([*GIVEN, "--model.hidden-size", "7"])
    assert parser.dump(again) == parser.dump(first)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.csv"], "--target must be given"),
        ([], "FILE and --target must be given"),
        ([*GIVEN, "--tagret", "y"], "--tagret: there is no such option; did you mean --target?"),
        ([*GIVEN, "--targ=y"], "--targ: there is no such option; did you mean --target?"),
        ([*GIVEN, "--qqq"], "--qqq: there is no such option"),
        (
            [*GIVEN, "more.csv"],
            "'more.csv': nothing of that kind is expected here; see peephole train table --help",
        ),
        (["data.csv", "--target"], "--target: expected one argument"),
        (
            [*GIVEN, "--model.cell", "lstn"],
            "--model.cell: 'lstn' is not one of 'lstm', 'gru'; did you mean lstm?",
        ),
        (
            [*GIVEN, "--model.hidden-size", "0"],
            "--model.hidden-size: '0' is not a whole number of at least 1",
        ),
        (
            [*GIVEN, "--model.hidden-size", "1.5"],
            "--model.hidden-size: '1.5' is not a whole number of at least 1",
        ),
        (
            [*GIVEN, "--model.dropout", "nan"],
            "--model.dropout: 'nan' is not a number at least 0 and below 1",
        ),
        (
            [*GIVEN, "--model.dropout", "1"],
            "--model.dropout: '1' is not a number at least 0 and below 1",
        ),
        (
            [*GIVEN, "--train.learning-rate", "inf"],
            "--train.learning-rate: 'inf' is not a number above 0",
        ),
        (
            [*GIVEN, "--train.patience", "-1"],
            "--train.patience: '-1' is not a whole number of at least 1",
        ),
    ],
)
def test_an_error_names_the_flag_as_typed(parser: Parser, words: list[str], message: str) -> None:
    with raises(message, UsageError):
        parser.parse_args(words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model:\n  cel: lstm\n",
            "--model.cel: there is no such option in the config file; did you mean --model.cell?",
        ),
        (
            "model:\n  hidden-size: 0\n",
            "--model.hidden-size: 0 is not a whole number of at least 1",
        ),
        (
            "model:\n  class_path: os.system\n  init_args: {}\n",
            "--model.class-path: there is no such option in the config file; "
            "did you mean --model.cell?",
        ),
        ("missing: maen\n", "--missing: 'maen' not among choices ['error', 'forward', 'mean']"),
    ],
)
def test_an_error_in_a_config_file_names_the_option(
    parser: Parser, tmp_path: Path, text: str, message: str
) -> None:
    with raises(message, UsageError):
        parser.parse_args(config(tmp_path, text))


@pytest.mark.parametrize("text", ["model: [1\n", "model: 3\n", "just words", "- a\n- b\n", "\x00"])
def test_a_damaged_config_file_is_one_line(parser: Parser, tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as error:
        parser.parse_args(config(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_name_that_is_a_number_needs_no_quotes(parser: Parser, tmp_path: Path) -> None:
    options = parser.parse_args(config(tmp_path, "features: [1, x]\n"))
    assert options.features == ["1", "x"]
    (tmp_path / "t.yaml").write_text("target: 5\n")
    assert parser.parse_args(["f", "--config", str(tmp_path / "t.yaml")]).target == "5"
    with raises("--target: True is not text; put it in quotes", UsageError):
        parser.parse_args(["f", *config(tmp_path, "target: true\n")[-2:]])


def test_a_config_file_that_does_not_exist(parser: Parser) -> None:
    with pytest.raises(UsageError, match=r"--config: .*nowhere\.yaml"):
        parser.parse_args([*GIVEN, "--config", "nowhere.yaml"])


def test_an_option_is_found_without_its_group(parser: Parser) -> None:
    assert parser.typed("learning_rate") == "--train.learning-rate"
    assert parser.typed("target") == "--target"
    assert parser.typed("file") == "FILE"
