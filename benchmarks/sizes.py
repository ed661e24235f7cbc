"""The sizes that are measured: those of the design's table."""

from typing import NamedTuple


class Size(NamedTuple):
    """A batch of B sequences of at most T steps, I features a step; H hidden units."""

    B: int
    T: int
    I: int  # noqa: E741  the field's name
    H: int

    @property
    def shortest(self) -> int:
        """The least steps that are drawn; the most are T."""
        return max(2, self.T // 8)

    def __str__(self) -> str:
        return f"{self.B}, {self.T}, {self.I}, {self.H}"


SIZES = (
    Size(16, 4, 1, 16),
    Size(32, 100, 8, 32),
    Size(64, 100, 64, 128),
    Size(64, 200, 256, 256),
    Size(32, 128, 512, 512),
    Size(64, 64, 1024, 1024),
)
SMALL = SIZES[:3]
EPILOG = "\n".join(
    [
        "sizes: B sequences, T steps at most, I features, H units",
        *(f"  {k}   {size}" for k, size in enumerate(SIZES, 1)),
    ]
)
