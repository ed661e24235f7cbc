"""A jsonargparse parser whose help reads like a menu and whose errors are one line."""

import argparse
import math
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace


class BadValue(argparse.ArgumentTypeError, ValueError):
    """A value out of range.

    On the command line argparse expects the one type of error, in a config file jsonargparse the
    other.
    """


class UsageError(Exception):
    """What was typed cannot be served; the message is one line."""


class Parser(ArgumentParser):
    """The options of one command.

    Flags have hyphens, as do the keys of config files: ``--model.hidden-size 32`` is

        model:
          hidden-size: 32

    Raises:
        UsageError: instead of ``argparse``'s exit.
    """

    def __init__(self, command: str, synopsis: str, summary: str, epilog: str = "") -> None:
        super().__init__(
            prog=f"peephole {command}",
            usage=f"peephole {command} {synopsis}",
            description=summary,
            epilog=epilog,
            formatter_class=_Help,
            print_config="--print-config",
            allow_abbrev=False,
            add_help=False,
        )

    def add_general(self) -> None:
        """The options that every command has, at the end of its help."""
        self._optionals.title = "General"
        groups: list[Any] = self._action_groups  # type: ignore[assignment]
        groups.append(groups.pop(groups.index(self._optionals)))
        self.add_argument("-h", "--help", action="help", help="show this and exit")
        self.add_argument(
            "--config", action=_ConfigFile, metavar="FILE", help="read options from YAML"
        )
        for action in self._actions:
            if "--print-config" in action.option_strings:
                action.help = "print all options as YAML, as they would be used, and exit"
                action.metavar = ""

    def dump(self, cfg: Namespace, **_: Any) -> str:
        """The YAML that ``--config`` reads back."""
        return yaml.safe_dump(hyphened(cfg), sort_keys=False, allow_unicode=True)

    def parse_args(self, args: Any = None, **more: Any) -> Namespace:  # type: ignore[override]
        """Options, and in ``typed`` the names of those that were given, here or in a file."""
        found = super().parse_args(args, **more)
        given = super().parse_args(args, **{**more, "defaults": False})
        found["typed"] = frozenset(flat(given))
        return found

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UsageError(self._one_line(message))

    def _one_line(self, message: str) -> str:
        flat = " ".join(message.split())
        if match := re.fullmatch(r"the following arguments are required: (.*)", flat):
            missing = [str(self.typed(key)) for key in match[1].split(", ")]
            return f"{' and '.join(missing)} must be given"
        if match := re.fullmatch(r"unrecognized arguments: (.*)", flat, re.IGNORECASE):
            return self._unknown(match[1].split()[0].partition("=")[0])
        if match := re.fullmatch(r"Option '(.*)' is not accepted", flat):
            return self._unknown("--" + match[1].replace("_", "-"), " in the config file")
        if match := re.fullmatch(
            r"argument (?:-h/)?(\S+): invalid choice: (.*) \(choose from (.*)\)", flat
        ):
            near = _hint(match[2].strip("'"), [word.strip("' ") for word in match[3].split(",")])
            return f"{match[1]}: {match[2]} is not one of {match[3]}{near}"
        if match := re.fullmatch(r"argument (\S+): (.*)", flat):
            return f"{match[1]}: {match[2]}"
        if match := re.fullmatch(r"Parser key ['\"]?([\w.]+)['\"]?: (.*)", flat):
            return f"{self.typed(match[1])}: {match[2]}"
        return flat

    def typed(self, option: str) -> str | None:
        """An option as a person types it; it may be named without its group's prefix.

        None where the command has no such option.
        """
        for action in self._actions:
            if option.replace("-", "_") in (action.dest, action.dest.rpartition(".")[2]):
                return action.option_strings[-1] if action.option_strings else str(action.metavar)
        return None

    def _unknown(self, flag: str, where: str = "") -> str:
        if not flag.startswith("-"):
            return f"{flag!r}: nothing of that kind is expected here; see {self.prog} --help"
        flags = [flag for action in self._actions for flag in action.option_strings]
        return f"{flag}: there is no such option{where}{_hint(flag, flags)}"


class _ConfigFile(ActionConfigFile):
    """Refuses a plain value where a group of options belongs, which jsonargparse passes over."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        groups = {action.dest.partition(".")[0] for action in parser._actions if "." in action.dest}
        for key, value in _loaded(values).items():
            if key in groups and not isinstance(value, dict):
                raise UsageError(f"--config: {key} in {values} must hold options, not {value!r}")
        super().__call__(parser, namespace, values, option_string)  # type: ignore[no-untyped-call]


def _loaded(path: str) -> dict[str, Any]:
    """A config file's options; none where jsonargparse will say what is wrong with it."""
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def hyphened(options: Any) -> Any:
    """Options as they stand in a config file: nested, keys with hyphens, only plain values."""
    if isinstance(options, Namespace):
        options = {key: options[key] for key in vars(options)}
    if isinstance(options, dict):
        return {
            key.replace("_", "-"): hyphened(value)
            for key, value in options.items()
            if key not in ("config", "typed")
        }
    return options


def flat(options: Namespace) -> dict[str, Any]:
    """Options by their whole names, with dots."""
    found: dict[str, Any] = {}
    for name, value in vars(options).items():
        if isinstance(value, Namespace):
            found |= {f"{name}.{key}": item for key, item in flat(value).items()}
        else:
            found[name] = value
    return found


def text(given: Any) -> str:
    """A type for options: text. In a config file a name like 5 may stand without quotes."""
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise BadValue(f"{given!r} is not text; put it in quotes")
    return str(given)


def whole(at_least: int, at_most: float = math.inf) -> Callable[[Any], int]:
    """A type for options: whole numbers from ``at_least`` to ``at_most``."""

    def convert(given: Any) -> int:
        try:
            number = int(str(given))
        except ValueError:
            number = at_least - 1  # refused below
        if not at_least <= number <= at_most:
            most = f" and at most {at_most}" if at_most < math.inf else ""
            raise BadValue(f"{given!r} is not a whole number of at least {at_least}{most}")
        return number

    return convert


def real(above: float | None = None, at_least: float | None = None, below: float = math.inf) -> Any:
    """A type for options: finite numbers in a range."""
    low = f"above {above:g}" if above is not None else f"at least {at_least:g}"
    high = f" and below {below:g}" if below < math.inf else ""

    def convert(given: Any) -> float:
        try:
            number = float(given)
        except (TypeError, ValueError):
            number = math.nan
        inside = number > above if above is not None else number >= (at_least or 0.0)
        if not (inside and number < below):
            raise BadValue(f"{given!r} is not a number {low}{high}")
        return number

    return convert


def optional(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A type for options that may be "none"."""

    def maybe(given: Any) -> Any:
        return None if given in (None, "none") else convert(given)

    return maybe


def yes_no(given: Any) -> bool:
    """A type for options: yes or no."""
    words = {"yes": True, "no": False, "true": True, "false": False}
    if str(given).lower() not in words:
        raise BadValue(f"{given!r} is neither yes nor no")
    return words[str(given).lower()]


def nearest(word: str, words: Iterable[str]) -> str | None:
    return next(iter(get_close_matches(word, list(words), n=1)), None)


def _hint(word: str, words: Iterable[str]) -> str:
    near = nearest(word, words)
    return f"; did you mean {near}?" if near else ""


class _Help(argparse.HelpFormatter):
    """One line an option: its flag, its value, what it does."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=100)
