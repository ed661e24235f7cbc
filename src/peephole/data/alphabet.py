"""The characters or bytes that a model knows, and their numbers."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from peephole.data.decoding import Codes, Unit
from peephole.errors import UserError

UNKNOWN = 0
BYTES = 256
CODE_POINTS = 0x110000
# Half of a pair in UTF-16, and no character of a text.
SURROGATES = range(0xD800, 0xE000)
# Where there are more characters than a byte can tell apart, rarer ones than this are unknown.
# A model learns little about them, and a wide output costs as much as another layer.
RARE = 10


@dataclass(frozen=True)
class Alphabet:
    """What stands for what: ids from 0 to ``size - 1``.

    Attributes:
        unit: whether an id is a character (a Unicode code point) or a byte.
        characters: those of the ids 1, 2, 3, ..., in the order of their code points. Id 0 is any
            other one. Empty for bytes, whose ids are their values.
    """

    unit: Unit
    characters: str = ""

    def __post_init__(self) -> None:
        codes = [ord(character) for character in self.characters]
        if codes != sorted(set(codes)) or any(code in SURROGATES for code in codes):
            raise UserError("the characters of an alphabet must be sorted, each there once")
        if bool(codes) != (self.unit == "char"):
            raise UserError(f"an alphabet of {self.unit}s cannot have {len(codes)} characters")

    @classmethod
    def of(cls, counts: Codes) -> "Alphabet":
        """The characters that a text has.

        Args:
            counts: ``[C]``, how often each code point occurs; those from C on do not.
        """
        there = np.flatnonzero(counts)
        if len(there) >= BYTES:
            frequent = there[counts[there].argsort(kind="stable")[::-1]]
            enough = max(BYTES - 1, int((counts >= RARE).sum()))
            there = np.sort(frequent[:enough])
        return cls("char", "".join(map(chr, there.tolist())))

    @property
    def size(self) -> int:
        return BYTES if self.unit == "byte" else 1 + len(self.characters)

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[np.typing.NBitBase]]:
        """The smallest that holds the ids."""
        return np.min_scalar_type(self.size - 1)

    @property
    def others(self) -> int:
        """How many characters there are that it does not know."""
        if self.unit == "byte":
            return 0
        return CODE_POINTS - len(SURROGATES) - len(self.characters)

    def ids(self, codes: Codes) -> Codes:
        """The ids of code points, or of bytes."""
        return codes if self.unit == "byte" else self._table[codes]

    def encode(self, text: str) -> Codes:
        """A text's ids; what it does not know is ``UNKNOWN``."""
        if self.unit == "byte":
            return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)
        encoded = text.encode("utf-32-le", "surrogatepass")
        return self.ids(np.frombuffer(encoded, "<u4"))

    def unknown(self, text: str) -> str:
        """Those of a text's characters that it does not know, each once, in their order."""
        return "".join(c for c in dict.fromkeys(text) if self.unit == "char" and not self._has(c))

    def character(self, id: int) -> str:
        """The character of an id other than ``UNKNOWN``."""
        return self.characters[id - 1]

    def _has(self, character: str) -> bool:
        return bool(self._table[ord(character)])

    @cached_property
    def _table(self) -> Codes:
        table = np.zeros(CODE_POINTS, self.dtype)
        table[[ord(character) for character in self.characters]] = np.arange(1, self.size)
        return table
