"""Columns to features."""

import datetime as dt
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from peephole.data import features, sequences
from peephole.data.features import Category, Features, Number
from peephole.data.sequences import Array, Grouping, arrange
from peephole.data.tables import Source
from peephole.errors import UserError


def opened(**columns: Any) -> tuple[Source, Grouping]:
    return arrange(Source(pa.table(columns), "t.csv"), "id", None)


class Encoded(NamedTuple):
    numbers: Array
    codes: Array
    unknown: dict[str, int]


def encode(fitted: Features, source: Source, grouping: Grouping, missing: Any) -> Encoded:
    """All pieces together."""
    unknown: dict[str, int] = {}
    numbers = features.encode_numbers(fitted, source, grouping, missing)
    codes = features.encode_categories(fitted, source, grouping, missing, unknown)
    return Encoded(np.concatenate(list(numbers)), np.concatenate(list(codes)), unknown)


def test_what_is_chosen_and_what_is_left_out() -> None:
    source, grouping = opened(
        id=[0, 0, 1, 1],
        y=[1, 1, 0, 0],
        x=[1.0, 2, 3, 4],
        flag=[True, False, True, True],
        word=["a", "b", "a", "b"],
        speaker=["p", "p", "q", "q"],
        day=[dt.date(2020, 1, k) for k in (1, 2, 3, 4)],
        points=[[1], [2], [3], [4]],
        nothing=pa.nulls(4),
        **{"": [0, 1, 2, 3]},
    )
    chosen = features.choose(source, grouping, named=None, exclude={"id", "y"})
    assert chosen.numbers == ("x", "flag")
    assert chosen.categories == ("word",)
    assert chosen.lines == (
        "left out 'speaker': it never varies within a sequence",
        "left out 'day': it holds times",
        "left out 'points': it holds list<item: int64>",
        "left out 'nothing': it has no values",
        "left out '': it has no name (an index?)",
    )
    named = features.choose(source, grouping, named=["speaker"], exclude={"id", "y"})
    assert named.categories == ("speaker",)
    assert named.numbers == named.lines == ()


def test_sequences_of_one_step_say_nothing_about_what_varies() -> None:
    source, grouping = opened(id=[0, 1], y=[1, 2], x=[5, 6])
    chosen = features.choose(source, grouping, named=None, exclude={"id", "y"})
    assert chosen.numbers == ("x",)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (["spekaer"], "no column 'spekaer' in t.csv; did you mean 'speaker'"),
        (["day"], "column 'day' in t.csv holds times"),
        (None, "no column left to learn from: left out 'speaker'.* left out 'day'"),
    ],
)
def test_no_features(named: list[str] | None, message: str) -> None:
    source, grouping = opened(
        id=[0, 0], speaker=["p", "p"], day=[dt.date(2020, 1, 1), dt.date(2020, 1, 2)]
    )
    with pytest.raises(UserError, match=message):
        features.choose(source, grouping, named=named, exclude={"id"})


def fit(source: Source, grouping: Grouping, steps: list[int], **chosen: Any) -> Any:
    chosen = {"numbers": (), "categories": ()} | chosen
    training = np.isin(np.arange(grouping.steps), steps)
    fitted, _ = features.fit(source, grouping, training, features.Chosen(**chosen, lines=()))
    return fitted


def test_numbers_are_standardised_by_training_rows_alone() -> None:
    source, grouping = opened(id=[0, 0, 1], x=[1.0, 3, 100], flag=[True, False, True], c=[7, 7, 9])
    fitted = fit(source, grouping, [0, 1], numbers=("x", "flag", "c"))
    assert fitted.numbers == (Number("x", 2, 1), Number("flag", 0.5, 0.5), Number("c", 7, 1))
    encoded = encode(fitted, source, grouping, "error")
    assert encoded.numbers.tolist() == [[-1, 1, 0], [1, -1, 0], [98, 1, 2]]
    assert encoded.numbers.dtype == np.float32


def test_categories_and_the_unknown() -> None:
    source, grouping = opened(id=[0, 0, 1, 1], w=["b", "a", "c", "b"])
    fitted = fit(source, grouping, [0, 1], categories=("w",))
    assert fitted.categories == (Category("w", ("a", "b")),)
    encoded = encode(fitted, source, grouping, "error")
    assert encoded.codes[:, 0].tolist() == [2, 1, 0, 2]
    assert encoded.unknown == {"w": 1}


def test_dictionaries_decimals_and_half_floats() -> None:
    source, grouping = opened(
        id=[0, 0],
        w=pa.array(["a", "b"]).dictionary_encode(),
        d=pa.array(["1.5", "2.5"]).cast(pa.decimal128(4, 1)),
        h=pa.array(np.array([1, 2], np.float16)),
    )
    chosen = features.choose(source, grouping, named=None, exclude={"id"})
    assert chosen.numbers == ("d", "h")
    fitted = fit(source, grouping, [0, 1], numbers=("d", "h"), categories=("w",))
    encoded = encode(fitted, source, grouping, "error")
    assert encoded.numbers.tolist() == [[-1, -1], [1, 1]]
    assert encoded.codes.tolist() == [[1], [2]]


X = [np.nan, 1.0, np.inf, None, 3.0, -np.inf]
IDS = [0, 0, 0, 1, 1, 1]
W = [None, "a", None, None, "b", None]


@pytest.mark.parametrize(
    ("missing", "numbers", "codes"),
    [
        ("mean", [2, 1, 2, 2, 3, 2], [0, 1, 0, 0, 2, 0]),
        ("forward", [2, 1, 1, 2, 3, 3], [0, 1, 1, 0, 2, 2]),
    ],
)
def test_missing_values_are_filled(missing: Any, numbers: list[float], codes: list[int]) -> None:
    source, grouping = opened(id=IDS, x=X, w=W)
    fitted = fit(source, grouping, [1, 4], numbers=("x",), categories=("w",))
    encoded = encode(fitted, source, grouping, missing)
    assert (encoded.numbers[:, 0] + 2).tolist() == numbers
    assert encoded.codes[:, 0].tolist() == codes
    assert encoded.unknown == {"w": 0}


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("x", [1, 2, None, None], "'x' is missing or NaN in sequence 1, row 3 of t.csv .*of 2"),
        ("x", [1, 2, 3, np.inf], "'x' is infinite in sequence 1, row 4 of t.csv; 'forward'"),
        ("w", ["a", "b", None, "a"], "'w' is missing in sequence 1, row 3"),
    ],
)
def test_missing_values_are_refused_with_their_place(
    column: str, values: list[Any], message: str
) -> None:
    columns = {"x": [1.0, 2, 3, 4], "w": ["a", "b", "a", "b"]} | {column: values}
    source, grouping = opened(id=[0, 1, 1, 1], **columns)
    fitted = Features((Number("x", 0, 1),), (Category("w", ("a", "b")),))
    with pytest.raises(UserError, match=message) as caught:
        encode(fitted, source, grouping, "error")
    assert caught.value.option == "missing"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": ["1", "two"], "w": ["a", "b"]}, "'x' must hold numbers.* row 2 of t.csv has 'two'"),
        ({"x": [[1], [2]], "w": ["a", "b"]}, "'x' must hold numbers.* it holds list"),
        ({"x": [1, 2], "w": [[1], [2]]}, "'w' must hold text.* it holds list"),
        ({"z": [1, 2]}, "t.csv lacks columns .*: 'x', 'w'; it has: 'id', 'z'"),
        ({"x": [1, 2], "W": ["a", "b"]}, "no column 'w' in t.csv"),
    ],
)
def test_another_file_that_does_not_fit(columns: dict[str, Any], message: str) -> None:
    source, grouping = opened(id=[0, 0], **columns)
    fitted = Features((Number("x", 0, 1),), (Category("w", ("a", "b")),))
    with pytest.raises(UserError, match=message):
        encode(fitted, source, grouping, "error")


def test_a_number_column_spoilt_by_a_word_is_pointed_out() -> None:
    source, grouping = opened(id=[0, 0, 0, 0], w=["1", "2.5", "?", "-3e2"])
    chosen = features.Chosen((), ("w",), ())
    _, lines = features.fit(source, grouping, np.ones(4, dtype=bool), chosen)
    assert lines == ["'w' is read as text, though 75% of its values are numbers: row 3 has '?'"]


def test_rare_categories_beyond_the_limit_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MAX_CATEGORIES", 2)
    source, grouping = opened(id=[0] * 5, w=["c", "a", "b", "c", "b"])
    chosen = features.Chosen((), ("w",), ())
    fitted, lines = features.fit(source, grouping, np.ones(5, dtype=bool), chosen)
    assert fitted.categories[0].values == ("b", "c")
    assert len(lines) == 1
    assert "3 categories" in lines[0]


@pytest.mark.parametrize("missing", ["error", "forward", "mean"])
def test_pieces_of_any_size_give_the_same(missing: Any) -> None:
    generator = np.random.default_rng(0)
    N = 60
    x, w = generator.normal(size=N), generator.choice(["a", "b", "c", "1"], N)
    absent = generator.random(N) < (0 if missing == "error" else 0.5)
    source, grouping = opened(
        id=generator.integers(0, 9, N),
        x=pa.array(x, mask=absent),
        w=pa.array(w, mask=absent[::-1]),
        c=generator.integers(0, 9, N) // 9,
    )
    grouping = grouping.take(np.arange(len(grouping)) != 2)
    found = []
    for size in (1, 2, 7, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sequences, "PIECE", size)
            chosen = features.choose(source, grouping, named=None, exclude={"id"})
            assert (chosen.numbers, chosen.categories) == (("x",), ("w",))
            fitted = fit(
                source, grouping, list(range(0, N, 2)), numbers=("x", "c"), categories=("w",)
            )
            encoded = encode(fitted, source, grouping, missing)
        found.append((fitted, encoded))
    wanted, reference = found[-1]
    for fitted, encoded in found:
        assert fitted.categories == wanted.categories
        assert encoded.codes.tolist() == reference.codes.tolist()
        assert encoded.unknown == reference.unknown
        np.testing.assert_allclose(encoded.numbers, reference.numbers, rtol=1e-6)
