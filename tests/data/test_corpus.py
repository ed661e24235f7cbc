"""A text, encoded once."""

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from peephole.data import alphabet as alphabets
from peephole.data import corpus as corpora
from peephole.data import decoding, fingerprint
from peephole.data.alphabet import BYTES, RARE, UNKNOWN, Alphabet
from peephole.data.cache import Cache, _digest
from peephole.data.corpus import Corpus, chosen, of_texts, open_corpus
from peephole.errors import UserError

CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")


def documents(corpus: Corpus) -> list[str]:
    """Each document as text again; what is not known as a question mark."""
    found = []
    for begin, end in zip(corpus.bounds[:-1], corpus.bounds[1:], strict=True):
        ids = corpus.ids.read(int(begin), int(end)).tolist()
        if corpus.alphabet.unit == "byte":
            found.append(bytes(ids).decode("latin-1"))
        else:
            character = corpus.alphabet.character
            found.append("".join("?" if id == UNKNOWN else character(id) for id in ids))
    return found


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def opened(tmp_path: Path, said: list[str]) -> Callable[..., Corpus]:
    """Open a text by way of a cache."""

    def open_it(path: Path | None, unit: decoding.Unit = "char") -> Corpus:
        return open_corpus(path, unit, Cache(tmp_path / "cache", said.append), option="file")

    return open_it


Opened = Callable[..., Corpus]


class TestAlphabet:
    @hypothesis.given(text=st.text(CHARACTERS, min_size=1))
    def test_characters_to_ids_and_back(self, text: str) -> None:
        alphabet = of_texts([text, ""], [False, True]).alphabet
        ids = alphabet.encode(text)
        assert "".join(map(alphabet.character, ids.tolist())) == text
        assert alphabet.characters == "".join(sorted(set(text)))
        assert alphabet.unknown(text) == ""
        assert ids.max() < alphabet.size <= 1 << 8 * alphabet.dtype.itemsize

    def test_what_it_does_not_know(self) -> None:
        alphabet = Alphabet("char", "abc")
        assert alphabet.encode("abxcyx\U0010ffff\ud800").tolist() == [1, 2, 0, 3, 0, 0, 0, 0]
        assert alphabet.unknown("abxcyx") == "xy"
        assert alphabet.others == 0x110000 - 2048 - 3
        assert Alphabet("byte").others == 0
        assert Alphabet("byte").encode("aé").tolist() == [97, 0xC3, 0xA9]
        assert Alphabet("byte").unknown("é") == ""

    @pytest.mark.parametrize(("size", "bits"), [(255, 8), (256, 16), (65535, 16), (65536, 32)])
    def test_ids_take_as_little_as_can_be(self, size: int, bits: int) -> None:
        characters = "".join(map(chr, [*range(1, 0xD800), *range(0xE000, 0x20000)][:size]))
        assert Alphabet("char", characters).dtype == np.dtype(f"uint{bits}")

    def test_rare_characters_are_unknown_where_there_are_many(self) -> None:
        counts = np.zeros(3000, np.int64)
        counts[100:600] = RARE
        counts[1000:1200] = RARE - 1
        assert Alphabet.of(counts).characters == "".join(map(chr, range(100, 600)))
        counts[200:600] = 1
        kept = Alphabet.of(counts).characters
        assert len(kept) == BYTES - 1
        assert (
            set(map(chr, range(100, 200))) <= set(kept) <= set(map(chr, np.flatnonzero(counts > 1)))
        )
        assert len(Alphabet.of(np.ones(255, np.int64)).characters) == 255

    @pytest.mark.parametrize(
        ("unit", "characters", "message"),
        [
            ("char", "ba", "must be sorted"),
            ("char", "aa", "must be sorted"),
            ("char", "a\ud800", "must be sorted"),
            ("char", "", "an alphabet of chars cannot have 0 characters"),
            ("byte", "ab", "an alphabet of bytes cannot have 2 characters"),
        ],
    )
    def test_what_a_stranger_may_write(
        self, unit: decoding.Unit, characters: str, message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            Alphabet(unit, characters)


class TestFile:
    @hypothesis.given(text=st.text(CHARACTERS, min_size=2))
    @hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
    def test_the_last_tenth_is_held_out(
        self, text: str, opened: Opened, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        file = tmp_path_factory.mktemp("text") / "t.txt"
        file.write_bytes(text.encode())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(decoding, "READ_BYTES", 5)
            corpus = opened(file)
        # As nanoGPT cuts it.
        cut = int(len(text) * 0.9)
        train, held = text[:cut], text[cut:]
        assert documents(corpus) == [train, "".join(c if c in train else "?" for c in held)]
        assert corpus.held_out.tolist() == [False, True]
        assert corpus.alphabet.characters == "".join(sorted(set(train)))
        assert list(corpus.names) == ["t.txt"] * 2

    def test_bytes(self, tmp_path: Path, opened: Opened) -> None:
        data = random.Random(0).randbytes(100)
        (tmp_path / "b").write_bytes(data)
        corpus = opened(tmp_path / "b", "byte")
        assert "".join(documents(corpus)) == data.decode("latin-1")
        assert corpus.lengths.tolist() == [90, 10]

    def test_errors_name_the_file(self, tmp_path: Path, opened: Opened) -> None:
        (tmp_path / "t").write_bytes(b"ab\xff")
        with pytest.raises(UserError, match=r"file: .*/t is not text: its byte 3 is 0xff"):
            opened(tmp_path / "t")


class TestFolder:
    @pytest.fixture
    def texts(self, tmp_path: Path) -> dict[str, str]:
        draw = random.Random(0)
        texts = {f"{k % 3}/{k}.txt": "".join(draw.choices("abcdé", k=k)) for k in range(1, 24)}
        for name, text in texts.items():
            (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "texts" / name).write_text(text)
        return texts

    def test_files_are_documents_and_a_tenth_is_held_out(
        self, texts: dict[str, str], tmp_path: Path, opened: Opened
    ) -> None:
        held = dict(zip(sorted(texts), chosen(sorted(texts)).tolist(), strict=True))
        for name in [name for name in texts if held[name]]:
            with (tmp_path / "texts" / name).open("a") as file:
                file.write("X")
            texts[name] += "?"
        corpus = opened(tmp_path / "texts")
        assert dict(zip(corpus.names, documents(corpus), strict=True)) == texts
        assert dict(zip(corpus.names, corpus.held_out.tolist(), strict=True)) == held
        assert sum(held.values()) == 2
        assert corpus.alphabet.characters == "abcdé"

    def test_the_choice_depends_on_names_alone_and_is_the_one_it_was(self) -> None:
        names = [f"{k}.py" for k in range(30)]
        held = {name for name, out in zip(names, chosen(names), strict=True) if out}
        assert held == {"13.py", "27.py", "8.py"}
        again = chosen(names[::-1])
        assert held == {name for name, out in zip(names[::-1], again, strict=True) if out}
        assert chosen(["a", "b"]).sum() == 1

    def test_a_file_that_is_no_text_is_told(
        self, texts: object, tmp_path: Path, opened: Opened
    ) -> None:
        (tmp_path / "texts" / "image.png").write_bytes(b"\x89PNG\r\n")
        with pytest.raises(UserError, match=r"image.png is not text: its byte 1 is 0x89"):
            opened(tmp_path / "texts")

    def test_one_file_in_a_folder_is_as_that_file(self, tmp_path: Path, opened: Opened) -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "t").write_text("abcdefghij")
        assert documents(opened(tmp_path / "one")) == ["abcdefghi", "?"]


class TestCache:
    @pytest.fixture
    def read(self, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
        """The files that were decoded."""
        files: list[Path] = []

        def watched(path: Path, unit: decoding.Unit, option: str | None = None) -> object:
            files.append(path)
            return decoding.decoded(path, unit, option)

        monkeypatch.setattr(corpora, "decoded", watched)
        # A file is settled as soon as it is written: the tests cannot wait.
        monkeypatch.setattr(fingerprint, "SETTLED_NS", -(10**12))
        return files

    def test_a_text_is_encoded_once(
        self, tmp_path: Path, opened: Opened, read: list[Path], said: list[str]
    ) -> None:
        (tmp_path / "t").write_text("hello world")
        first = opened(tmp_path / "t")
        assert read
        read.clear()
        again = opened(tmp_path / "t")
        assert not read
        assert documents(again) == documents(first)
        assert again.fingerprint == first.fingerprint
        assert opened(tmp_path / "t", "byte").alphabet.unit == "byte"
        assert not said

    def test_another_text_is_encoded_anew(
        self, tmp_path: Path, opened: Opened, read: list[Path], said: list[str]
    ) -> None:
        folder = tmp_path / "f"
        folder.mkdir()
        for name in "abc":
            (folder / name).write_text("text of " + name)
        first = opened(folder)
        (folder / "b").write_text("other text")
        second = opened(folder)
        (folder / "d").write_text("text of d")
        third = opened(folder)
        (folder / "a").unlink()
        fourth = opened(folder)
        assert [line.partition("; ")[0].removeprefix(f"{folder}") for line in said] == [
            "/b has changed",
            ": d is new",
            ": a is gone",
        ]
        prints = {c.fingerprint for c in (first, second, third, fourth)}
        assert len(prints) == 4
        assert documents(first)[1] == "text of b"

    @pytest.mark.parametrize(("unit", "word"), [("char", "character"), ("byte", "byte")])
    def test_a_single_character(
        self, tmp_path: Path, opened: Opened, unit: decoding.Unit, word: str
    ) -> None:
        (tmp_path / "t").write_text("a")
        with pytest.raises(UserError, match=f"file: .*/t has a single {word}, .* give more text"):
            opened(tmp_path / "t", unit)

    def test_a_file_that_is_removed_while_it_is_read(
        self, tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "t").write_text("hello world")

        times = itertools.count()

        def removing(path: Path, unit: decoding.Unit, option: str | None = None) -> object:
            pieces = list(decoding.decoded(path, unit, option))
            if next(times) == 1:
                path.unlink()
            return pieces

        monkeypatch.setattr(corpora, "decoded", removing)
        with pytest.raises(UserError, match=r"file: cannot read .*/t: No such file"):
            opened(tmp_path / "t", "byte")

    def test_a_file_that_changes_while_it_is_read(
        self, tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "t").write_text("hello world")

        def changing(path: Path, unit: decoding.Unit, option: str | None = None) -> object:
            yield from decoding.decoded(path, unit, option)
            path.write_text("good bye, world")

        monkeypatch.setattr(corpora, "decoded", changing)
        with pytest.raises(UserError, match="the text changed while it was read; try again"):
            opened(tmp_path / "t")

    def test_damage_is_mended(
        self, tmp_path: Path, opened: Opened, read: list[Path], said: list[str]
    ) -> None:
        (tmp_path / "t").write_text("hello world")
        first = documents(opened(tmp_path / "t"))
        (ids,) = (tmp_path / "cache").glob("text-*/ids.bin")
        ids.write_bytes(b"\1" * ids.stat().st_size)
        assert documents(opened(tmp_path / "t")) == first
        assert "ids.bin is not as it was written; it is made anew" in said[0]

    def test_an_index_that_does_not_fit_its_ids(
        self, tmp_path: Path, opened: Opened, read: list[Path], said: list[str]
    ) -> None:
        (tmp_path / "t").write_text("hello world")
        first = documents(opened(tmp_path / "t"))
        (index,) = (tmp_path / "cache").glob("text-*/index.json")
        data = json.loads(index.read_text())
        data["about"]["lengths"][0] += 1
        data.pop("digest")
        index.write_text(json.dumps(data | {"digest": _digest(data)}))
        assert documents(opened(tmp_path / "t")) == first
        assert "ids.bin does not fit the documents" in said[0]


def test_counting_does_not_look_past_the_training_part(tmp_path: Path, opened: Opened) -> None:
    """Rare characters are those of the training part, in whatever pieces it is read."""
    text = "".join(chr(200 + k % 300) for k in range(3000)) + "".join(map(chr, range(200, 500))) * 2
    (tmp_path / "t").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "READ_BYTES", 7)
        corpus = opened(tmp_path / "t")
    counts = Counter(text[: int(len(text) * 0.9)])
    often = {c for c, n in counts.items() if n >= alphabets.RARE}
    assert set(corpus.alphabet.characters) == often
