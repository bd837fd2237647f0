"""Imports point one way: a module may import from layers below its own, never upwards, and nothing runs at import."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import newslora

PACKAGE = Path(newslora.__file__).parent
# lowest first; a folder is one layer
LAYERS = [
    "errors", "arguments", "stock_names", "config", "files", "records", "hub", "runtime", "runfolder", "metrics", "data",
    "model", "training", "predict", "explanation", "prediction", "serving", "evaluation", "report", "exporting", "pipeline",
    "plan", "estimator", "auditing", "bench", "cli",
]  # fmt: skip
FREE = {"__init__", "__main__"}  # the public face, which imports lazily, and the entry point


def modules() -> dict[str, Path]:
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """Modules of ours that a file imports anywhere, inside functions too."""
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("newslora."):
            found.add(node.module.removeprefix("newslora."))
        elif isinstance(node, ast.ImportFrom) and node.module == "newslora":
            found.update(alias.name for alias in node.names if alias.name in LAYERS)
        elif isinstance(node, ast.Import):
            found.update(a.name.removeprefix("newslora.") for a in node.names if a.name.startswith("newslora."))
    return frozenset(found)


def test_every_module_has_a_layer() -> None:
    assert {name.split(".")[0] for name in modules()} - FREE == set(LAYERS)


def test_imports_point_downwards() -> None:
    edges = 0
    wrong = []
    for name, path in modules().items():
        layer = name.split(".")[0]
        if layer in FREE:
            continue
        for other in imported(path):
            edges += 1
            if other.split(".")[0] != layer and LAYERS.index(other.split(".")[0]) > LAYERS.index(layer):
                wrong.append(f"{name} imports {other}")
    assert edges > 50  # the walk saw the package
    assert wrong == []


def test_no_cycle_inside_a_layer() -> None:
    known = modules()
    graph = {name: imported(path) & known.keys() for name, path in known.items()}
    done: set[str] = set()
    while ready := {name for name in graph if name not in done and graph[name] - {name} <= done}:
        done |= ready
    assert set(graph) - done == set()


def test_predict_needs_no_training_code() -> None:
    for name, path in modules().items():
        if name.split(".")[0] == "predict":
            assert not [other for other in imported(path) if other.split(".")[0] in ("training", "evaluation")]


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = (
        "import sys, newslora, newslora.cli.app\n"
        "heavy = {'torch', 'transformers', 'peft', 'sklearn', 'scipy', 'numpy', 'matplotlib', 'pyarrow', 'datasets'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
