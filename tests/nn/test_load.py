"""``peephole.load`` of a folder that is damaged, or that somebody means harm with."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import peephole
from peephole.errors import UserError
from tests.helpers.errors import raises

CLASSES = "GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell, Recurrent"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    peephole.LSTM(3, 4, 2).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def argument(name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda config: config["arguments"].update({name: value})


def key(name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda config: config.update({name: value})


SIZES = "must be a whole number or a list (of a whole number)"
# What is changed of a good config, and what is said after the file's name.
CONFIGS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (key("format", 2), ": format is 2; this reads 1"),
    (key("format", True), ": format is True; this reads 1"),
    (key("format", 1.0), ": format is 1.0; this reads 1"),
    (lambda c: c.pop("format"), ": format is null; this reads 1"),
    (key("class", "Module"), f": class is 'Module'; it is one of {CLASSES}"),
    (key("class", "Layer"), f": class is 'Layer'; it is one of {CLASSES}"),
    (key("class", "os.system"), f": class is 'os.system'; it is one of {CLASSES}"),
    (key("class", ["LSTM"]), f": class is ['LSTM']; it is one of {CLASSES}"),
    (key("class", None), f": class is null; it is one of {CLASSES}"),
    (lambda c: c.pop("dtype"), " lacks 'dtype'"),
    (
        key("dtype", "float8_e5m2"),
        ": dtype is 'float8_e5m2'; it is one of float16, bfloat16, float32, float64",
    ),
    (key("dtype", {}), ": dtype is {}; it is one of float16, bfloat16, float32, float64"),
    (key("author", "me"), " has 'author'; there are format, class, dtype, arguments"),
    (key("arguments", []), ": arguments must be names and values, got []"),
    (lambda c: c["arguments"].pop("bias"), ": arguments lacks 'bias'"),
    (argument("hidden_size", True), f": hidden_size is True; it {SIZES}"),
    (argument("hidden_size", 4.0), f": hidden_size is 4.0; it {SIZES}"),
    (argument("hidden_size", "4"), f": hidden_size is '4'; it {SIZES}"),
    (argument("hidden_size", [4, True]), f": hidden_size is [4, True]; it {SIZES}"),
    (argument("hidden_size", [[4]]), f": hidden_size is [[4]]; it {SIZES}"),
    (argument("input_size", None), ": input_size is null; it must be a whole number"),
    (argument("bias", 1), ": bias is 1; it must be true or false"),
    (argument("dropout", True), ": dropout is True; it must be a number"),
    (argument("zoneout", [0.1]), ": zoneout is [0.1]; it must be a number or a list (of a number)"),
    (argument("peephole", 0), ": peephole is 0; it must be a text or null"),
    (
        argument("initialization", ["chrono"]),
        ": initialization is ['chrono']; it must be a text or a list (of a text, a number)",
    ),
    (argument("hidden_size", 0), ": no such LSTM can be made: hidden_size=0; it must be at "),
    (argument("hidden_size", []), ": no such LSTM can be made: hidden_size=[] has a width for"),
    (argument("dropout", 1.5), ": no such LSTM can be made: dropout should be a number in "),
    (argument("backend", "mine"), ": no such LSTM can be made: backend='mine'; there are "),
    (argument("initialization", "os.system"), ": no such LSTM can be made: initialization='os."),
    (argument("peephole", "x" * 999), ": no such LSTM can be made: peephole='xxxx"),
    # More than fits any memory: before torch would say so, or by torch's arithmetic.
    (argument("hidden_size", 10**9), ": no such LSTM can be made: Storage size calculation "),
    (argument("input_size", 10**18), ": no such LSTM can be made: Storage size calculation "),
]

# The whole text, and what is said after the file's name.
TEXTS: list[tuple[str | bytes, str]] = [
    ("", " is not JSON as peephole writes it: Expecting value"),
    ("[]", " must hold names and values, got []"),
    ("[" * 100_000, " is not JSON as peephole writes it: maximum recursion depth"),
    ('{"format": 1, "format": 1}', " is not JSON as peephole writes it: it has 'format' twice"),
    ('{"a": {"b": 1, "b": 2}}', " is not JSON as peephole writes it: it has 'b' twice"),
    ('{"format": NaN}', " is not JSON as peephole writes it: NaN is no number of JSON"),
    ('{"a": -Infinity}', " is not JSON as peephole writes it: -Infinity is no number of JSON"),
    ('{"format": 1e999}', " is not JSON as peephole writes it: the number '1e999' is too large"),
    (f'{{"format": {2**63}}}', f" is not JSON as peephole writes it: the number '{2**63}' is too"),
    ('{"a": ' + "9" * 9999 + "}", " is not JSON as peephole writes it: the number '99999999"),
    (b"\xff", ": 'utf-8' codec can't decode"),
    (" " * (1 << 20) + "{}", " has 1,048,578 bytes; at most 1,048,576 are read"),
]


def assert_refused(folder: Path, file: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        peephole.load(folder)
    text = str(refused.value)
    assert f"{folder / file}{message}" in text
    assert "\n" not in text
    assert len(text) < 600


class TestConfig:
    @pytest.mark.parametrize(("change", "message"), CONFIGS, ids=[m for _, m in CONFIGS])
    def test_is_a_closed_schema(
        self, folder: Path, change: Callable[[dict[str, Any]], Any], message: str
    ) -> None:
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))
        assert_refused(folder, "config.json", message)

    @pytest.mark.parametrize(("text", "message"), TEXTS, ids=[m for _, m in TEXTS])
    def test_is_strict_json(self, folder: Path, text: str | bytes, message: str) -> None:
        (folder / "config.json").write_bytes(text.encode() if isinstance(text, str) else text)
        assert_refused(folder, "config.json", message)

    def test_an_unknown_argument(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["arguments"]["__class__"] = "x"
        (folder / "config.json").write_text(json.dumps(config))
        assert_refused(
            folder, "config.json", ": arguments has '__class__'; there are input_size, hidden_size"
        )

    def test_arguments_of_another_class(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["class"] = "GRU"
        (folder / "config.json").write_text(json.dumps(config))
        assert_refused(folder, "config.json", ": arguments has 'peephole'; there are input_size")


class TestWeights:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda w: w.pop("bias_hh_l1"), "it lacks 'bias_hh_l1'"),
            (
                lambda w: w.update(weight_ch_l0=torch.ones(3, 4)),
                "it has 'weight_ch_l0', which does not belong there",
            ),
            (
                lambda w: w.update(weight_hh_l0=torch.ones(16, 5)),
                "it has 'weight_hh_l0' as float32 [16, 5], which must be float32 [16, 4]",
            ),
            (
                lambda w: w.update(weight_hh_l0=torch.ones(16, 4).half()),
                "it has 'weight_hh_l0' as float16 [16, 4], which must be float32 [16, 4]",
            ),
            (
                lambda w: w.update(weight_hh_l0=torch.ones(16, 4, dtype=torch.float8_e5m2)),
                "it has 'weight_hh_l0' as F8_E5M2 [16, 4], which must be float32 [16, 4]",
            ),
        ],
    )
    def test_go_with_the_config(
        self, folder: Path, change: Callable[[dict[str, Any]], Any], message: str
    ) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors")
        assert_refused(folder, "model.safetensors", f" does not go with config.json: {message}")

    # Were memory taken for these, that would fail first, and in other words.
    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("hidden_size", 10**8, "it has 'weight_ih_l0' as float32 [16, 3], which must be "),
            ("input_size", 10**15, "it has 'weight_ih_l0' as float32 [16, 3], which must be "),
            ("num_layers", 10**12, "it has 8 tensors, too few for 1000000000000 layers"),
            ("hidden_size", [1] * 20_000, "it has 8 tensors, too few for 20000 layers"),
        ],
    )
    @pytest.mark.parametrize("initialization", ["torch", "orthogonal", ["chrono", 9]])
    def test_are_compared_before_memory_is_taken(
        self, folder: Path, name: str, value: Any, message: str, initialization: Any
    ) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["arguments"] |= {name: value, "initialization": initialization}
        (folder / "config.json").write_text(json.dumps(config))
        assert_refused(folder, "model.safetensors", f" does not go with config.json: {message}")

    def test_nothing_is_unpickled(self, folder: Path) -> None:
        class Harm:
            def __reduce__(self) -> Any:
                return Path.touch, (folder / "harm",)

        file = folder / "model.safetensors"
        file.write_bytes(pickle.dumps(Harm()))
        with pytest.raises(UserError, match=r"^cannot read .*model\.safetensors: "):
            peephole.load(folder)
        torch.save({"weight": nn.Parameter(torch.ones(2))}, file)
        with pytest.raises(UserError, match=r"^cannot read .*model\.safetensors: "):
            peephole.load(folder)
        assert not (folder / "harm").exists()

    @pytest.mark.parametrize("keep", [0, 7, 100, -1])
    def test_a_file_cut_short(self, folder: Path, keep: int) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:keep])
        with pytest.raises(UserError, match=r"^cannot read .*model\.safetensors: "):
            peephole.load(folder)


class TestFiles:
    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_must_be_plain(self, folder: Path, name: str) -> None:
        file = folder / name
        moved = file.rename(folder.parent / name)
        with raises(f"cannot read {file}: No such file or directory", UserError):
            peephole.load(folder)
        file.symlink_to(moved)
        with raises(f"{file} is a link; it must be a plain file", UserError):
            peephole.load(folder)
        file.unlink()
        # Opening one waits for a writer, for good.
        os.mkfifo(file)
        with raises(f"{file} is no file; it must be a plain file", UserError):
            peephole.load(folder)
        file.unlink()
        file.mkdir()
        with raises(f"{file} is no file; it must be a plain file", UserError):
            peephole.load(folder)

    def test_no_folder(self, folder: Path) -> None:
        for place in (folder / "config.json", folder / "nowhere"):
            with raises(f"there is no folder {place}", UserError):
                peephole.load(place)
