"""The design's arrows: which room may use which, and what ``import peephole`` loads."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import peephole

PACKAGE = Path(peephole.__file__).parent
CSRC = Path(__file__).parents[1] / "csrc"

# What each room may import of ours besides itself and errors: rooms, or single modules of one. A
# room may be missing; one that is not listed is an error, so that none comes in silence.
ALLOWED: dict[str, set[str]] = {
    "__init__": {"ragged", "ops", "nn", "jobs"},
    "errors": set(),
    "folders": set(),
    "untrusted": set(),
    "tensors": {"untrusted"},
    "offsets": set(),
    "ragged": {"offsets"},
    "ops": {"offsets", "ragged"},
    "nn": {"ops", "ragged", "offsets", "folders", "untrusted", "tensors"},
    "data": {"ragged", "folders", "untrusted"},
    "run": {"folders", "untrusted", "tensors", "data.schema"},
    "tasks": {"nn", "data", "ragged"},
    "train": {
        "tasks.protocol",
        "run",
        "data.schema",
        "data.streams",
        "folders",
        "tensors",
        "untrusted",
    },
    "report": {"run"},
}
# These use anything that is listed before them.
ALLOWED["jobs"] = set(ALLOWED)
ALLOWED["cli"] = set(ALLOWED)
ALLOWED["__main__"] = {"cli"}


def violations(package: Path) -> list[str]:
    """Every import that breaks an arrow, and every room that the design does not have.

    Modules are named without ``peephole.``; the package's own file is ``__init__``.
    """
    modules = {module_name(path, package): path for path in sorted(package.rglob("*.py"))}
    # A folder within ops is a backend.
    backends = {
        name
        for name, path in modules.items()
        if path.name == "__init__.py" and path.parent.parent == package / "ops"
    }
    found = []
    for module, path in modules.items():
        if room(module) not in ALLOWED:
            found.append(f"{module}: the design has no room called {room(module)}")
            continue
        found += [
            f"{module} imports {imported}"
            for imported in imports(path, package, modules)
            if not may_import(module, imported, backends)
        ]
    return found


def may_import(module: str, imported: str, backends: set[str]) -> bool:
    if room(module) == room(imported):
        of_ours, of_theirs = (".".join(name.split(".")[:2]) for name in (module, imported))
        return of_ours == of_theirs or not {of_ours, of_theirs} <= backends
    allowed = ALLOWED[room(module)] | {"errors"}
    return any(imported == name or imported.startswith(name + ".") for name in allowed)


def room(module: str) -> str:
    return module.partition(".")[0]


def module_name(path: Path, package: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and parts[1:] else parts)


def imports(path: Path, package: Path, modules: dict[str, Path]) -> Iterator[str]:
    """The modules of ours that a file imports, at its top or within a function."""
    here = ["peephole", *path.relative_to(package).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) + 1 - node.level] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == "peephole":
                # What is imported may be a name within a module: the module is what counts.
                while rest and rest not in modules:
                    rest = rest.rpartition(".")[0]
                yield rest or "__init__"


def test_imports_follow_the_design() -> None:
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "source", "wrong"),
    [
        ("ragged.py", "from peephole import nn", "ragged imports nn"),
        ("ragged.py", "from peephole import LSTM", "ragged imports __init__"),
        ("ops/lstm.py", "import peephole.nn.recurrent", "ops.lstm imports nn.recurrent"),
        ("ops/lstm.py", "from peephole.nn import LSTM", "ops.lstm imports nn"),
        ("ops/lstm.py", "from ..nn import recurrent", "ops.lstm imports nn.recurrent"),
        ("ops/lstm.py", "def f():\n    from peephole import nn", "ops.lstm imports nn"),
        (
            "ops/cpu/lstm.py",
            "from peephole.ops.reference.lstm import lstm",
            "ops.cpu.lstm imports ops.reference.lstm",
        ),
        (
            "ops/reference/lstm.py",
            "from ..cpu import lstm",
            "ops.reference.lstm imports ops.cpu.lstm",
        ),
        ("tasks/toy.py", "from peephole import run", "tasks.toy imports run"),
        ("train/loop.py", "from peephole.tasks import toy", "train.loop imports tasks.toy"),
        ("report/page.py", "import peephole", "report.page imports __init__"),
        ("jobs/seed.py", "from peephole.cli import main", "jobs.seed imports cli"),
        ("cellar/wine.py", "", "cellar.wine: the design has no room called cellar"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, source: str, wrong: str) -> None:
    write_package(tmp_path)
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(source)
    assert violations(tmp_path) == [wrong]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("__init__.py", "from peephole import ops\nfrom peephole.ragged import Ragged"),
        ("ops/lstm.py", "from peephole.ragged import Ragged\nimport peephole.ops.reference.lstm"),
        ("ops/cpu/gru.py", "from peephole.ops.cpu.lstm import lstm\nfrom . import lstm"),
        ("ops/reference/lstm.py", "from peephole.ops.lstm import lstm"),
        ("tasks/toy.py", "import torch\nfrom peephole import nn, ragged, errors"),
        ("train/loop.py", "from peephole.tasks.protocol import Task\nfrom peephole import run"),
        ("jobs/seed.py", "from peephole.train.loop import fit\nimport peephole"),
        ("cli.py", "from peephole.jobs import seed"),
        ("__main__.py", "from peephole.cli import main"),
    ],
)
def test_a_right_import_is_let_through(tmp_path: Path, file: str, source: str) -> None:
    write_package(tmp_path)
    (tmp_path / file).write_text(source)
    assert violations(tmp_path) == []


def write_package(package: Path) -> None:
    """Every room, with empty files."""
    files = ["__init__", "__main__", "cli", "errors", "ragged", "run"]
    for folder, inside in {
        "ops": ["lstm"],
        "ops/reference": ["lstm"],
        "ops/cpu": ["lstm"],
        "nn": ["recurrent"],
        "tasks": ["protocol", "toy"],
        "train": ["loop"],
        "report": ["page"],
        "jobs": ["seed"],
    }.items():
        (package / folder).mkdir()
        files += [f"{folder}/{name}" for name in ["__init__", *inside]]
    for file in files:
        (package / f"{file}.py").touch()


def test_the_kernels_know_nothing_of_torch() -> None:
    """So that one build serves every torch: they take its threads by their addresses."""
    files = [path for path in sorted(CSRC.iterdir()) if path.suffix in (".h", ".cpp")]
    assert files
    for path in files:
        found = re.findall(r'#include\s*[<"]([^>"]*)', path.read_text(encoding="utf-8"))
        assert not [name for name in found if re.match("torch|ATen|c10", name)], path


HEAVY = {
    "matplotlib",
    "pyarrow",
    "jinja2",
    "rich",
    "jsonargparse",
    "lightning_fabric",
    "tensorboard",
    "pandas",
    "polars",
    "datasets",
}


def loaded_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after one statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(out.stdout))


def test_import_peephole_loads_nothing_heavy() -> None:
    loaded = loaded_after("import peephole")
    assert "peephole" in loaded
    # Not even torch, which takes seconds: the command line's help is to be quick.
    assert not loaded & (HEAVY | {"torch"})


def test_the_layers_load_torch_and_nothing_heavier() -> None:
    loaded = loaded_after("from peephole import GRU, LSTM, RNN, Ragged, ops")
    assert {"torch", "peephole.nn", "peephole.ops"} <= loaded
    assert not loaded & HEAVY


def test_a_training_step_loads_no_compiler() -> None:
    step = "y, _ = peephole.LSTM(2, 3)(torch.ones(4, 1, 2)); y.sum().backward()"
    loaded = loaded_after(f"import peephole, torch; {step}")
    assert "peephole.ops.cpu.lstm" in loaded
    # It takes as long to load as torch.
    assert "torch._dynamo" not in loaded
