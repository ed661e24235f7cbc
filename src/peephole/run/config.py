"""``config.yaml``: every setting of a run, as ``--config`` reads it. Names have hyphens."""

from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from peephole import untrusted
from peephole.data.schema import from_json, to_json
from peephole.errors import UserError
from peephole.run.names import CONFIG, MAX_CONFIG_BYTES
from peephole.untrusted import one_line, shown

T = TypeVar("T")

MAX_NUMBER = 100


def text(config: object) -> str:
    """A dataclass of settings, or a mapping that has hyphens already, as YAML."""
    data = to_json(config, hyphens=True)
    plain = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    # Some characters, as Unicode's own line break, come back as a space unless they are escaped.
    if yaml.safe_load(plain) == data:
        return plain
    return yaml.safe_dump(data, sort_keys=False)


def read(run: Path, kind: type[T]) -> T:
    """A run's settings: each of them there and of its type, and no other.

    Args:
        run: the run folder.
        kind: the dataclass that they are; see ``peephole.data.schema.from_json``.

    Raises:
        UserError: they are not that; where a name is unknown it tells the nearest.
    """
    try:
        return from_json(kind, load(run), f"{run / CONFIG}", hyphens=True)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error


def load(run: Path) -> dict[str, Any]:
    """What the file holds, not checked further.

    Raises:
        UserError: it is missing or no YAML of the kind that we write.
    """
    where = run / CONFIG
    written = untrusted.text(run, CONFIG, MAX_CONFIG_BYTES)
    try:
        data = yaml.load(written, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where} is not YAML as peephole writes it: {one_line(error)}") from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UserError(f"{where} must hold names and values, got {shown(data)}")
    return data


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases, which can make a few bytes into gigabytes, and no name twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has an alias, which a run's settings never do")
        return super().compose_node(parent, index)

    def compose_scalar_node(self, anchor: Any) -> Any:
        node = super().compose_scalar_node(anchor)
        # YAML has whole numbers to the base of 60, in which a long one takes hours.
        if len(node.value) > MAX_NUMBER and node.tag != "tag:yaml.org,2002:str":
            raise ValueError(f"{shown(node.value)} is too long for what it is")
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for name, times in names.most_common(1):
            if times > 1:
                raise ValueError(f"it has {shown(name)} twice")
        return super().construct_mapping(node, deep)
