"""``python -m benchmarks report``: all bars, and what the newest results say, in Markdown."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import options as shared
from benchmarks import results
from benchmarks.goals import GOALS, KEPT
from benchmarks.kinds import KINDS, MODES
from benchmarks.sizes import SIZES
from benchmarks.verdict import Found, Goal, Line, newest

HELP = """\
Print every bar with what the newest results say of it, in Markdown, as docs/performance.md has it;
nothing is measured. Of results for the same kind, mode and size the last line counts. Only lines
count whose layers chose their backend themselves, from the machine and the versions of Python and
torch of the newest line.
"""
VERDICTS = {"aim": "yes, and the aim", "met": "yes", "missed": "**no**", "not measured": "–"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = HELP
    parser.add_argument(
        "--results",
        type=Path,
        default=results.FOLDER,
        metavar="DIR",
        help="with *.jsonl files (default: benchmarks/results)",
    )
    parser.add_argument(
        "--threads",
        type=shared.count,
        metavar="N",
        help="of the results to report (default: those of the newest line)",
    )
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 where a bar is missed or not measured"
    )


def run(options: argparse.Namespace) -> int:
    """Print the report.

    Returns:
        1 where a bar is missed or not measured and ``--check`` was given, or where there are no
        results, else 0.
    """
    lines = comparable(results.read(options.results), options.threads)
    if not lines:
        print(f"report: no results in {options.results}", file=sys.stderr)
        return 1
    print("\n".join(report(lines)))
    verdicts = [goal.verdict(goal.find(lines)) for goal in (*GOALS, *KEPT)]
    return int(options.check and any(v in ("missed", "not measured") for v in verdicts))


def comparable(lines: Iterable[Line], threads: int | None = None) -> list[Line]:
    """The lines that may stand in one table, oldest first.

    Args:
        lines: any.
        threads: of torch; those of the newest line if None.
    """
    # Lines from before the bars were judged by lines lack their command, and more.
    known = sorted(
        (line for line in lines if line.get("command") and line["backend"] == "auto"),
        key=lambda line: str(line["date"]),
    )
    if threads is not None:
        known = [line for line in known if line["threads"] == threads]
    if not known:
        return []
    return [line for line in known if _conditions(line) == _conditions(known[-1])]


def _conditions(line: Line) -> tuple[object, ...]:
    versions = line["versions"]
    return line["machine"], line["threads"], versions["python"], versions["torch"]


def report(lines: Sequence[Line]) -> list[str]:
    """The report's lines.

    Args:
        lines: of benchmarks, that may stand in one table, oldest first; at least one.
    """
    last = lines[-1]
    machine, versions = last["machine"], last["versions"]
    kernels = f", kernels for {machine['kernels']}" if machine["kernels"] else ", no kernels"
    text = [
        f"{machine['cpu']}, {machine['cores']} cores, threads: {last['threads']}; "
        f"{machine['instructions']}{kernels}, {machine['system']}; torch {versions['torch']}, "
        f"Python {versions['python']}; float32.",
        "",
    ]
    found = {goal: goal.find(lines) for goal in (*GOALS, *KEPT)}
    commands = list(
        dict.fromkeys(line["command"] for each in found.values() if each for line in each.lines)
    )
    for goals, title in ((GOALS, ""), (KEPT, "held since the layers were made")):
        text += _goals({goal: found[goal] for goal in goals}, title, commands)
        text.append("")
    text += _sizes(lines)
    text += ["Commands:", ""]
    for k, command in enumerate(commands, 1):
        own = [line for line in lines if line["command"] == command]
        text.append(f"{k}. `{command}` ({_when(own)})")
    return text


def _when(lines: Sequence[Line]) -> str:
    dates = sorted({line["date"][:10] for line in lines})
    commits = dict.fromkeys(
        (line["commit"] or "no commit")[:9] + (" with changes" if line["dirty"] else "")
        for line in lines
    )
    return "; ".join([" to ".join(dict.fromkeys([dates[0], dates[-1]])), ", ".join(commits)])


def _goals(found: dict[Goal, Found | None], title: str, commands: list[str]) -> list[str]:
    rows = [
        [title, "at least", "aim", "measured", "ceiling", "met", "over", "command"],
        ["---"] * 8,
    ]
    for goal, each in found.items():
        made = sorted({commands.index(line["command"]) + 1 for line in each.lines} if each else [])
        rows.append(
            [
                goal.what,
                goal.limit(goal.bar),
                goal.limit(goal.aim),
                goal.told(each.value) if each else "–",
                goal.told(each.ceiling) if each else "–",
                VERDICTS[goal.verdict(each)],
                each.over if each else "",
                ", ".join(map(str, made)),
            ]
        )
    return [_row(row) for row in rows]


def _sizes(lines: Sequence[Line]) -> list[str]:
    """How many times as fast ours is at each size, and its ceiling: a table for each mode."""
    rows = newest(
        line for line in lines if line["benchmark"] == "layers" and "auto" in line["gflops"]
    )
    text = []
    for mode in MODES:
        own = {
            (row["kind"], *(row["size"][name] for name in "BTIH")): row
            for row in rows
            if row["mode"] == mode
        }
        kinds = [kind for kind in KINDS if any(key[0] == kind for key in own)]
        if not kinds:
            continue
        what = {"train": "Training", "infer": "Inference"}[mode]
        text += [
            f"{what}, times as fast as the best of torch (diagonal: as the loop), of its ceiling; "
            "share of `torch.mm`'s rate:",
            "",
            _row(["B, T, I, H", *kinds]),
            _row(["---"] * (1 + len(kinds))),
        ]
        for size in SIZES:
            cells = [_cell(own.get((kind, *size))) for kind in kinds]
            text.append(_row([str(size), *cells]))
        text.append("")
    return text


def _cell(line: Line | None) -> str:
    name = "loop / auto" if line and line["kind"] == "diagonal" else "best / auto"
    if line is None or name not in line["ratios"]:
        return "–"
    ratio, ceiling = line["ratios"][name]["median"], line["ceilings"][name]
    return f"{ratio:.2f} of {ceiling:.3g}; {100 * line['shares_of_mm']['auto']:.0f}%"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
