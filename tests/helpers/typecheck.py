"""The type checker that jaxtyping's import hook puts on every function of ``peephole``."""

from typing import Annotated, Self

from beartype import BeartypeConf, FrozenDict, beartype
from beartype.vale import Is

# The hook decorates methods one by one, and there beartype refuses Self: it does not know the
# class. So Self lets everything through, by a test: beartype trips over Any within a union.
ANYTHING = Annotated[object, Is[lambda _: True]]
# A whole number where a float is wanted is right, as it is to mypy.
check = beartype(
    conf=BeartypeConf(hint_overrides=FrozenDict({Self: ANYTHING}), is_pep484_tower=True)
)
