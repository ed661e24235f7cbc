"""The run folder: whole or not at all, and read as data."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from peephole.errors import UserError
from peephole.run import FILES, About, Run, check_out, start

CONFIG = {"file": "a.csv", "target-per": "step", "model": {"hidden-size": 3}, "features": ["a"]}
ABOUT = About.now("table", 100, "loss", "min")
METRICS = {"valid.accuracy": 0.5}
MODEL_CONFIG = {"recipe": {"some_name": ["a_b"]}}


def make(path: Path, overwrite: bool = False, bias: float = 0.0) -> Path:
    model = nn.Linear(2, 1)
    nn.init.constant_(model.bias, bias)
    with start(path, CONFIG, ABOUT, overwrite=overwrite) as run:
        run.events.append({"event": "evaluation", "loss": 0.5})
        run.events.append({"event": "evaluation", "loss": float("nan")})
        run.write_model(MODEL_CONFIG, model)
        run.finish(METRICS)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "run", bias=2.0)


def test_what_was_written_is_read(folder: Path) -> None:
    run = Run.open(folder)
    assert run.config == CONFIG
    assert run.metrics == METRICS
    assert run.model_config == MODEL_CONFIG
    assert run.events() == [
        {"event": "evaluation", "loss": 0.5},
        {"event": "evaluation", "loss": None},
    ]
    model = nn.Linear(2, 1, device="meta")
    run.load_weights(model)
    assert model.bias.item() == 2
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


def test_a_run_is_overwritten_only_on_demand(folder: Path) -> None:
    with pytest.raises(UserError, match=r"run exists; .*--overwrite") as caught:
        make(folder)
    assert caught.value.option == "out"
    make(folder, overwrite=True, bias=3.0)
    model = nn.Linear(2, 1)
    Run.open(folder).load_weights(model)
    assert model.bias.item() == 3
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_run_is_never_overwritten(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "thesis" / "config.yaml").write_text("a: 1")
    (tmp_path / "note").write_text("x")
    make(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name, message in (
        ("thesis", "exists and is left alone"),
        ("note", "is not a folder"),
        ("link", "is not a folder"),
    ):
        with pytest.raises(UserError, match=message):
            make(tmp_path / name, overwrite=overwrite)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    assert (tmp_path / "note").read_text() == "x"


def test_a_run_with_a_persons_own_file_is_left_alone(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"it also holds notes.txt"):
        check_out(folder, overwrite=True)


def test_not_there_and_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no run .*nowhere"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(
        UserError, match=r"is not a run folder: it lacks config.yaml, run.json, metrics"
    ):
        Run.open(tmp_path)
    check_out(tmp_path, overwrite=False)


@pytest.mark.parametrize("name", sorted({*FILES} - {"metrics.json"}))
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"is not a run folder: it lacks {name}"):
        Run.open(folder)


def link_out(folder: Path) -> None:
    outside = folder.parent / "outside.json"
    outside.write_text("{}")
    (folder / "metrics.json").unlink()
    (folder / "metrics.json").symlink_to(outside)


def link_away(folder: Path) -> None:
    (folder / "model").rename(folder.parent / "model")
    (folder / "model").symlink_to(folder.parent / "model")


DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (lambda run: (run / "metrics.json").write_text("{"), "metrics.json is not JSON as"),
    (lambda run: (run / "metrics.json").write_text("[" * 100_000), "metrics.json is not JSON"),
    (lambda run: (run / "metrics.json").write_text('{"a": "x"}'), "'a' is 'x', not a number"),
    (lambda run: (run / "metrics.json").write_text('{"a": true}'), "'a' is True, not a number"),
    (
        lambda run: (run / "metrics.json").write_text(json.dumps({"x" * 10**7: None})),
        "'xx*[.]{3} is null, not a number",
    ),
    (lambda run: (run / "metrics.json").write_text('{"a": NaN}'), "NaN is no number of JSON"),
    (lambda run: (run / "metrics.json").write_text('{"a": 1' + "0" * 400 + "}"), "is too large"),
    (lambda run: (run / "metrics.json").write_bytes(b"\xff"), "cannot read .*metrics.json"),
    (lambda run: (run / "config.yaml").write_text("a: 2001-99-99"), "config.yaml is not YAML"),
    (lambda run: (run / "config.yaml").write_text("a: [1"), "config.yaml is not YAML"),
    (lambda run: (run / "config.yaml").write_text("- 1"), "config.yaml must hold names"),
    (
        lambda run: (run / "config.yaml").write_text("a: !!python/object/apply:os.getcwd []"),
        "config.yaml is not YAML as peephole writes it: could not determine a constructor",
    ),
    (lambda run: (run / "config.yaml").write_text("a: &x [1]\nb: *x"), "has an alias"),
    (lambda run: (run / "model" / "config.json").write_text("[]"), "must hold names and values"),
    (lambda run: os.truncate(run / "config.yaml", 1 << 27), "has 134,217,728 bytes; at most"),
    (lambda run: os.truncate(run / "metrics.json", 1 << 40), "has 1,099,511,627,776 bytes; at"),
    (link_out, "metrics.json is a link; it must be a plain file"),
    (link_away, "model is a link; it must be a plain folder"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_damage_is_one_clear_error(
    folder: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        Run.open(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"weight": torch.zeros(1, 2)}, "it lacks 'bias'"),
        (
            {"weight": torch.zeros(1, 2), "bias": torch.zeros(1), "x": torch.zeros(1)},
            "it has 'x', which does not belong there",
        ),
        (
            {"weight": torch.zeros(2, 1), "bias": torch.zeros(1)},
            r"it has 'weight' as float32 \[2, 1\], which must be float32 \[1, 2\]",
        ),
        (
            {"weight": torch.zeros(1, 2).double(), "bias": torch.zeros(1)},
            "it has 'weight' as float64",
        ),
    ],
)
def test_weights_that_do_not_fit(
    folder: Path, weights: dict[str, torch.Tensor], message: str
) -> None:
    save_file(weights, folder / "model" / "model.safetensors")
    with pytest.raises(UserError, match=message):
        Run.open(folder).load_weights(nn.Linear(2, 1))


def test_weights_that_are_none(folder: Path) -> None:
    (folder / "model" / "model.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(UserError, match=r"cannot read .*model.safetensors"):
        Run.open(folder).load_weights(nn.Linear(2, 1))


@pytest.mark.parametrize("name", sorted({*FILES} - {"metrics.json"}))
def test_a_pipe_is_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=f"it lacks {name}"):
        Run.open(folder)


def test_weights_of_a_stranger(folder: Path) -> None:
    file = folder / "model" / "model.safetensors"
    moved = file.rename(folder.parent / "weights")
    file.symlink_to(moved)
    with pytest.raises(UserError, match=r"model.safetensors is a link; it must be a plain file"):
        Run.open(folder).load_weights(nn.Linear(2, 1))
    file.unlink()
    header = b'{"weight": {"dtype": "F32", "shape": [1073741824], "data_offsets": [0, 4294967296]}}'
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match=r"cannot read .*model.safetensors: Error while"):
        Run.open(folder).load_weights(nn.Linear(2, 1))


def test_figures_that_are_no_numbers_are_null(folder: Path) -> None:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {"event": "evaluation", "loss": None}
