"""Which files a text is, and their characters."""

import errno
import os
import sysconfig
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from peephole.data import decoding
from peephole.data.decoding import decoded
from peephole.data.text_files import text_files
from peephole.errors import UserError


def names(path: Path | None) -> list[str]:
    return [file.name for file in text_files(path)]


class TestTextFiles:
    def test_a_file_is_one(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("a")
        assert text_files(tmp_path / "a.txt") == [("a.txt", tmp_path / "a.txt")]

    def test_a_folder_is_its_files_at_any_depth_but_not_the_hidden_and_empty(
        self, tmp_path: Path
    ) -> None:
        for name in ("b/c/d", "b/a", "a", ".git/x", "b/.hidden"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("text")
        (tmp_path / "empty").touch()
        (tmp_path / "loop").symlink_to(tmp_path)
        assert names(tmp_path) == ["a", "b/a", "b/c/d"]

    def test_what_was_made_of_the_texts_is_none(self, tmp_path: Path) -> None:
        for name in ("runs/a/run.json", "runs/a/model/c", "cache/CACHEDIR.TAG", "cache/e/ids.bin"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("text")
        (tmp_path / "t").write_text("text")
        assert names(tmp_path) == ["t"]
        assert names(tmp_path / "runs" / "a") == ["model/c", "run.json"]

    def test_a_folder_that_cannot_be_read_is_not_passed_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "secret").mkdir()
        (tmp_path / "t").write_text("text")
        scandir = os.scandir

        def refused(path: str) -> object:
            if str(path).endswith("secret"):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refused)
        with pytest.raises(UserError, match=r"cannot read .*/secret: Permission denied"):
            text_files(tmp_path)

    def test_no_path_is_the_source_of_the_standard_library(self) -> None:
        found = text_files(None)
        assert {"ast.py", "json/decoder.py"} <= {file.name for file in found}
        assert all(file.path.suffix == ".py" for file in found)
        assert not any("site-packages" in file.name for file in found)
        # Of this one the second line says that it is in another encoding.
        strange = "test/encoded_modules/module_koi8_r.py"
        if (Path(sysconfig.get_path("stdlib")) / strange).exists():
            assert strange not in {file.name for file in found}

    @pytest.mark.parametrize(
        ("made", "message"),
        [
            (lambda path: None, "there is no file or folder"),
            (lambda path: path.touch(), "is empty"),
            (lambda path: path.mkdir(), "holds no files"),
            (lambda path: (path.mkdir(), (path / "e").touch()), "holds empty files alone"),
            (lambda path: (path.mkdir(), (path / ".e").write_text("e")), "holds no files"),
            (os.mkfifo, "is neither a file nor a folder"),
        ],
    )
    def test_what_cannot_be_read(self, tmp_path: Path, made: object, message: str) -> None:
        assert callable(made)
        made(tmp_path / "text")
        with pytest.raises(UserError, match=f"file: .*{tmp_path}/text.*|{message}") as error:
            text_files(tmp_path / "text", "file")
        assert message in str(error.value)

    def test_a_name_that_is_too_long(self) -> None:
        with pytest.raises(UserError, match=r"file: cannot read a+: File name too long"):
            text_files(Path("a" * 300), "file")


class TestDecoded:
    @hypothesis.given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0")))
    def test_code_points_are_pythons(
        self, text: str, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        file = tmp_path_factory.mktemp("text") / "t"
        file.write_bytes(text.encode())
        with pytest.MonkeyPatch.context() as patch:
            # So that characters are cut in two.
            patch.setattr(decoding, "READ_BYTES", 3)
            found = [code for codes in decoded(file, "char") for code in codes.tolist()]
        assert found == [ord(c) for c in text]

    def test_bytes_are_any(self, tmp_path: Path) -> None:
        (tmp_path / "b").write_bytes(bytes(range(256)) * 3)
        found = np.concatenate(list(decoded(tmp_path / "b", "byte")))
        assert found.tolist() == list(range(256)) * 3

    @pytest.mark.parametrize("at_once", [1, 2, 3, 100])
    @pytest.mark.parametrize(
        ("data", "what"),
        [
            (b"abc\xff\0def", "its byte 4 is 0xff, which is not UTF-8"),
            ("äöü".encode("latin-1"), "its byte 1 is 0xe4, which is not UTF-8"),
            ("zwölf Boxkämpfer".encode() + b"\xc3", "its byte 19 is 0xc3, which is not UTF-8"),
            ("h€llo".encode("utf-16"), "its byte 1 is 0xff, which is not UTF-8"),
            (b"h\0e\0l\xff", "its byte 2 is 0x00"),
        ],
    )
    def test_what_is_no_text_is_told_with_the_byte_and_what_to_do(
        self, tmp_path: Path, data: bytes, what: str, at_once: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "t").write_bytes(data)
        monkeypatch.setattr(decoding, "READ_BYTES", at_once)
        with pytest.raises(UserError) as error:
            list(decoded(tmp_path / "t", "char"))
        assert str(error.value) == (
            f"{tmp_path}/t is not text: {what}; a model of bytes (--unit byte) reads any file"
        )

    def test_a_file_that_cannot_be_opened(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"cannot read .*: No such file"):
            list(decoded(tmp_path / "gone", "byte"))
