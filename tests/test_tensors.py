"""Safetensors files, beside the library's own."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from peephole.errors import UserError
from peephole.tensors import DTYPES, Form, chunks, difference, forms, load
from tests.helpers.errors import raises

shapes = st.lists(st.integers(0, 4), max_size=3)
drawn = st.dictionaries(
    st.text().filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(sorted(DTYPES)), shapes),
    max_size=5,
)


def made(kinds: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {
        name: torch.randint(0, 2, shape).to(DTYPES[dtype]) for name, (dtype, shape) in kinds.items()
    }


@given(drawn)
def test_the_bytes_are_the_librarys(kinds: dict[str, Any]) -> None:
    tensors = made(kinds)
    assert b"".join(chunks(tensors)) == save(tensors)


def test_any_layout_and_shared_memory() -> None:
    whole = torch.arange(12.0).reshape(3, 4).requires_grad_()
    tensors = {"t": whole.T, "row": whole[1], "whole": whole, "spread": whole.detach()[:, ::2]}
    copies = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    assert b"".join(chunks(tensors)) == save(copies)


@given(drawn)
def test_there_and_back(kinds: dict[str, Any]) -> None:
    tensors = made(kinds)
    wanted = {name: Form.of(tensor) for name, tensor in tensors.items()}
    with TemporaryDirectory() as folder:
        file = Path(folder, "file")
        file.write_bytes(b"".join(chunks(tensors)))
        assert forms(file) == wanted
        found = load(file, wanted, "it")
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_differences() -> None:
    forms = {"a": Form("float32", (2, 3)), "b": Form("int64", ())}
    assert difference(forms, dict(reversed(forms.items()))) is None
    assert difference({}, forms) == "lacks 'a'"
    assert difference(forms, {"a": forms["a"]}) == "has 'b', which does not belong there"
    assert difference({"x" * 10**7: forms["a"]}, {}) == (
        "has '" + "x" * 56 + "..., which does not belong there"
    )
    assert difference(forms, forms | {"b": Form("int64", (1,))}) == (
        "has 'b' as int64 [], which must be int64 [1]"
    )


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"not tensors at all")
    with pytest.raises(UserError, match=r"^cannot read .*/file: Error while deserializing header"):
        load(tmp_path / "file", {}, "it")


def test_a_file_that_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(save({"a": torch.zeros(2)}))
    with raises(f"{tmp_path}/file does not go with it: it lacks 'b'", UserError):
        load(tmp_path / "file", {"b": Form("float32", (2,))}, "it")
