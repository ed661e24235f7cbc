"""What a resumed run is made of: its settings as they stand in config.yaml, and its data."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from peephole.data import tables
from peephole.data.cache import Cache
from peephole.data.schema import to_json
from peephole.errors import Interrupted, UserError
from peephole.jobs import table
from peephole.jobs.table import DataSettings, ModelSettings, TrainSettings
from peephole.jobs.table.config import Config, of
from peephole.jobs.table.prepare import Prepared, prepare
from peephole.jobs.table.train import _plan
from peephole.jobs.training import Watch
from peephole.run import config, state
from tests.jobs.test_table import SHORT, SMALL, shifts, wave

LABEL = DataSettings("label", sequence="id", order="t")
VARIANTS: dict[str, tuple[dict[str, list[Any]], DataSettings, ModelSettings, TrainSettings]] = {
    "classes": (shifts(), LABEL, SMALL, SHORT),
    "some features": (shifts(), replace(LABEL, features=("word", "x")), SMALL, SHORT),
    "one a step": (shifts(), replace(LABEL, target="tag"), SMALL, SHORT),
    "numbers": (shifts(), replace(LABEL, target="total"), SMALL, SHORT),
    "forecast": (shifts(12, lengths=(3, 9)), replace(LABEL, target="x", ahead=1), SMALL, SHORT),
    "by steps": (shifts(), LABEL, SMALL, replace(SHORT, batch_steps=9)),
    "a series": (wave(), DataSettings("y", ahead=3), SMALL, SHORT),
    "classes in a series": (wave(), DataSettings("up"), SMALL, replace(SHORT, epochs=None)),
    "a gru": (shifts(), LABEL, replace(SMALL, cell="gru", layers=2), SHORT),
}


def prepared(file: Path, cache: Path, *settings: Any, seed: int = 3, **given: Any) -> Prepared:
    data, model, training = settings
    return prepare(
        file,
        data,
        model,
        training,
        valid=given.get("valid"),
        test=given.get("test"),
        seed=seed,
        say=lambda line: None,
        cache=Cache(cache, lambda line: None),
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_settings_that_were_resolved_lead_to_the_same(variant: str, tmp_path: Path) -> None:
    columns, data, model, training = VARIANTS[variant]
    file = tmp_path / "data.csv"
    tables.write(pa.table(columns), file)
    first = prepared(file, tmp_path, data, model, training)
    loop, about = _plan(first, training, 3)
    written = of(first, training, loop, file=file, valid=None, test=None, cache=None)
    (tmp_path / "config.yaml").write_text(config.text(written))
    read = config.read(tmp_path, Config)
    assert read == written
    again = prepared(file, tmp_path, read.data, read.model, read.train, seed=read.seed)
    assert to_json(again.task.recipe) == to_json(first.task.recipe)
    assert again.task.settings == first.task.settings
    assert again.sources == first.sources
    assert again.data == first.data
    again_loop, again_about = _plan(again, read.train, read.seed)
    assert again_loop == loop
    assert again_about.updates == about.updates
    for one, other in zip(again.task.train, first.task.train, strict=True):
        values = [v if isinstance(v, torch.Tensor) else v.values for v in (one, other)]
        assert torch.equal(*values)


class Stop(Exception):
    """What a test raises in a training."""


def stop_at(update: int) -> Watch:
    def see(event: dict[str, Any]) -> None:
        if event["update"] >= update:
            raise Stop

    return Watch(on_event=see)


def page(run: Path) -> str:
    """What a run's page says, but for how long it took."""
    return re.sub(r"\d+ s of training", "", (run / "report.html").read_text())


def test_from_python_with_a_table_from_python(tmp_path: Path) -> None:
    frame, test = pa.table(shifts()), pa.table(shifts(6, seed=1))
    settings: dict[str, Any] = {
        "target": "label",
        "sequence": "id",
        "order": "t",
        "test": test,
        "model": SMALL,
        "training": replace(SHORT, epochs=3),
    }
    whole = table.train(frame, out=tmp_path / "whole", **settings)
    with pytest.raises(Stop):
        table.train(frame, out=tmp_path / "run", watch=stop_at(2), **settings)
    assert state(tmp_path / "run") == "interrupted"
    with pytest.raises(UserError, match="it does not hold what it held") as caught:
        table.resume(tmp_path / "run", pa.table(shifts(11)), test=test)
    assert caught.value.option == "file"
    said: list[str] = []
    again = table.resume(tmp_path / "run", frame, test=test, watch=Watch(say=said.append))
    assert any("resumed from" in line for line in said)
    assert again.metrics | {"seconds": 0.0} == whole.metrics | {"seconds": 0.0}
    for name, wanted in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], wanted)
    assert page(again.path) == page(whole.path)
    assert page(again.path).count("<img") == 3
    assert "it holds text" in page(again.path)
    lines = (again.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["evaluation"] * 3 + ["final"]


@pytest.mark.usefixtures("unhooked")
def test_what_may_change_on_resuming(tmp_path: Path) -> None:
    frame = pa.table(shifts())
    with pytest.raises(Stop):
        table.train(
            frame,
            target="label",
            sequence="id",
            order="t",
            model=SMALL,
            training=SHORT,
            out=tmp_path / "run",
            watch=stop_at(1),
        )
    with pytest.raises(UserError, match="on_nonfinite"):
        table.resume(tmp_path / "run", frame, on_nonfinite="stay")  # type: ignore[arg-type]
    table.resume(tmp_path / "run", frame, on_nonfinite="skip", device="auto")
    assert state(tmp_path / "run") == "finished"


@pytest.mark.usefixtures("unhooked")
def test_a_log_that_there_is_not() -> None:
    with pytest.raises(UserError, match="'csv'; it must be 'tensorboard', or None"):
        Watch(log="csv")  # type: ignore[arg-type]


def test_an_interruption_says_how_to_go_on() -> None:
    assert str(Interrupted(15, Path("runs/a"))) == "stopped by SIGTERM; runs/a can be resumed"
    assert (Interrupted(2).exit_code, str(Interrupted(2))) == (130, "stopped by SIGINT")
