"""Architecture: import directions, independence of packages and unique public names (docs/architecture.md)."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

# Layers from bottom to top: a module may import its own package and lower layers. A new package gets a line here.
LAYERS = (
    ("titans_seq.errors", "titans_seq.batch", "titans_seq.schema"),
    ("titans_seq.system", "titans_seq.shipped"),
    ("titans_seq.config",),
    ("titans_seq.plots",),
    ("titans_seq.ops",),
    ("titans_seq.nn",),
    ("titans_seq.backbone",),
    ("titans_seq.models",),
    ("titans_seq.tasks",),
    ("titans_seq.callbacks",),
    ("titans_seq.experiment",),
    ("titans_seq.studies",),
    ("titans_seq.cli",),
)
LAYER = {package: level for level, packages in enumerate(LAYERS) for package in packages}
# Stricter than the layers: the only packages of this repository that these may import, besides themselves.
ONLY = {
    "titans_seq.errors": set(),
    "titans_seq.batch": set(),
    "titans_seq.schema": set(),
    "titans_seq.system": {"titans_seq.errors"},
    "titans_seq.shipped": {"titans_seq.errors"},
    "titans_seq.config": {"titans_seq.schema", "titans_seq.shipped", "titans_seq.errors"},
    "titans_seq.plots": {"titans_seq.system"},
    "titans_seq.ops": set(),
    "titans_seq.nn": {"titans_seq.ops"},
    "titans_seq.experiment.base": {"titans_seq.tasks", "titans_seq.schema", "titans_seq.errors"},
    "titans_seq.ops.memory.triton.__init__": set(),
    "titans_seq.studies.__init__": set(),
    "datamodules.common": {"titans_seq.batch", "titans_seq.errors"},
    "datamodules.time_series": {"datamodules.common", "titans_seq.batch", "titans_seq.errors"},
    "datamodules.dna": {"datamodules.common", "titans_seq.batch", "titans_seq.errors"},
}
# Pairs (importer, imported) that must not occur.
TASKS = ("forecasting", "classification", "pretraining", "universal")
FORBIDDEN = [
    ("titans_seq.ops.memory.chunked", "titans_seq.ops.memory.triton"),
    # The run engine is independent of the tasks.
    *(
        ("titans_seq.experiment.run", f"titans_seq.experiment.{name}")
        for name in (*TASKS, "registry", "fit", "evaluate")
    ),
    # A task imports neither another task nor modules built on the registry.
    *(
        (f"titans_seq.experiment.{task}", f"titans_seq.experiment.{name}")
        for task in TASKS
        for name in (*TASKS, "registry", "fit", "evaluate", "export")
        if name != task
    ),
    # The parts of datamodules.dna, from top to bottom: audit, datasets, pretraining, classification, the other files.
    ("datamodules.dna.datasets", "datamodules.dna.audit"),
    ("datamodules.dna.pretraining", "datamodules.dna.datasets"),
    ("datamodules.dna.pretraining", "datamodules.dna.audit"),
    ("datamodules.dna.classification", "datamodules.dna.pretraining"),
    ("datamodules.dna.classification", "datamodules.dna.datasets"),
    ("datamodules.dna.classification", "datamodules.dna.audit"),
]
FRAMEWORKS = {"lightning", "pytorch_lightning", "omegaconf", "polars", "wandb", "torchmetrics", "yaml", "matplotlib"}
MAX_MODULES = 15  # per folder
# Public names that are defined more than once in a package, and why.
DUPLICATE_NAMES: dict[str, str] = {}

FILES = sorted([*(REPOSITORY / "titans_seq").rglob("*.py"), *(REPOSITORY / "datamodules").rglob("*.py")])
FOLDERS = sorted({file.parent for file in FILES})


def module_name(path: Path) -> str:
    """Full name of a module; `__init__` is kept, which distinguishes a package's own file from its other modules."""
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@cache
def imported(path: Path) -> tuple[str, ...]:
    """Full names of all modules that a file imports, including within functions and under TYPE_CHECKING."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; use the full name"
            assert node.module
            found += [_module_of(node.module, alias.name) for alias in node.names]
    return tuple(found)


def _module_of(module: str, name: str) -> str:
    """Full name of the module that `from module import name` loads."""
    inner = REPOSITORY / module.replace(".", "/") / name
    module = f"{module}.{name}" if inner.is_dir() or inner.with_suffix(".py").is_file() else module
    return f"{module}.__init__" if (REPOSITORY / module.replace(".", "/")).is_dir() else module


def internal_imports(path: Path) -> list[str]:
    """Modules of this repository that a file imports; the bare package `titans_seq` holds only the version."""
    names = [name for name in imported(path) if name.split(".")[0] in ("titans_seq", "datamodules")]
    return [name for name in names if name not in ("titans_seq", "titans_seq.__init__")]


def layer_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    here, found = module_name(path), internal_imports(path)
    if is_within(here, "datamodules"):
        return  # see ONLY
    if layer_of(here) in ("titans_seq.__init__", "titans_seq.__main__"):  # `load_forecaster` and the command line
        assert set(found) <= {"titans_seq.experiment.__init__", "titans_seq.cli.main"}
        return
    level = LAYER[layer_of(here)]
    for name in found:
        if is_within(name, "datamodules"):
            assert layer_of(here) == "titans_seq.experiment", (
                f"{name}: only titans_seq.experiment may import both packages"
            )
        elif layer_of(name) != layer_of(here):
            assert LAYER[layer_of(name)] < level, f"{here} imports {name}, which is not below it"


@pytest.mark.parametrize("package", ONLY)
def test_packages_import_only_what_is_listed(package: str) -> None:
    files = [path for path in FILES if is_within(module_name(path), package)]
    assert files, f"{package}: no such module"
    for path in files:
        for name in internal_imports(path):
            allowed = {package, *ONLY[package]}
            assert any(is_within(name, each) for each in allowed), f"{module_name(path)} imports {name}"


@pytest.mark.parametrize(("importer", "other"), FORBIDDEN)
def test_forbidden_imports(importer: str, other: str) -> None:
    files = [path for path in FILES if is_within(module_name(path), importer)]
    assert files, f"{importer}: no such module"
    assert any(is_within(module_name(path), other) for path in FILES), f"{other}: no such module"
    for path in files:
        assert not any(is_within(name, other) for name in internal_imports(path)), (
            f"{module_name(path)} imports {other}"
        )


def graph_of(folder: Path) -> Mapping[str, set[str]]:
    """Map each module and sub-package of a folder to those of the same folder that it imports."""
    package = ".".join(folder.relative_to(REPOSITORY).parts)
    graph: dict[str, set[str]] = defaultdict(set)
    depth = package.count(".") + 1
    for path in FILES:
        here = module_name(path)
        if not here.startswith(f"{package}."):
            continue
        node = here.split(".")[depth]
        targets = {name.split(".")[depth] for name in internal_imports(path) if name.startswith(f"{package}.")}
        graph[node] |= targets - {node}
    return graph


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(REPOSITORY)))
def test_no_circular_imports_in_a_folder(folder: Path) -> None:
    # Each sub-package is one node, so that cycles between sub-packages are found at every level.
    try:
        list(TopologicalSorter(graph_of(folder)).static_order())
    except CycleError as error:
        pytest.fail(f"circular imports: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(REPOSITORY)))
def test_folder_has_few_modules_and_a_docstring(folder: Path) -> None:
    modules = [path for path in folder.glob("*.py") if not path.name.startswith("__")]
    assert len(modules) <= MAX_MODULES
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))


def public_definitions(path: Path) -> Iterator[str]:
    """Yield the names of classes, public functions and public variables at the top level of a module."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) or (isinstance(node, ast.FunctionDef) and not node.name.startswith("_")):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and not target.id.startswith("_"):
                yield target.id


@pytest.mark.parametrize("package", ["titans_seq", "datamodules"])
def test_public_names_are_unique_in_a_package(package: str) -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for path in FILES:
        if is_within(module_name(path), package) and path.name != "__init__.py":
            for name in public_definitions(path):
                places[name].add(module_name(path))
    duplicates = {
        name: sorted(modules) for name, modules in places.items() if len(modules) > 1 and name not in DUPLICATE_NAMES
    }
    assert not duplicates


PURE_TORCH = ("titans_seq.ops", "titans_seq.nn", "titans_seq.backbone", "titans_seq.models")


@pytest.mark.parametrize(
    "path", [p for p in FILES if any(is_within(module_name(p), package) for package in PURE_TORCH)], ids=module_name
)
def test_models_use_no_framework_but_torch(path: Path) -> None:
    assert not {name.split(".")[0] for name in imported(path)} & FRAMEWORKS


def test_only_the_registry_imports_all_tasks() -> None:
    def imported_tasks(path: Path) -> set[str]:
        return {
            task
            for task in TASKS
            for name in internal_imports(path)
            if is_within(name, f"titans_seq.experiment.{task}")
        }

    folder = REPOSITORY / "titans_seq" / "experiment"
    found = {path.stem for path in folder.glob("*.py") if imported_tasks(path) == set(TASKS)}
    assert found == {"registry"}


def run_blocked(blocked: set[str], statement: str) -> subprocess.CompletedProcess[str]:
    """Run a statement in a new Python process in which importing any of `blocked` raises ModuleNotFoundError."""
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(blocked)!r}:
            raise ModuleNotFoundError("blocked: " + name)  # the exception that torch expects if numpy is not installed
sys.meta_path.insert(0, Block())
{statement}
"""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )


def test_ops_run_with_nothing_but_torch() -> None:
    # numpy is blocked too: torch works without it, so the op must.
    statement = """
import torch
from titans_seq.ops import titans_memory
x = torch.ones(1, 3, 1, 2)
gate = torch.full((1, 3, 1), 0.5)
y, state = titans_memory(x, x, x, gate, gate, gate, [torch.zeros(1, 2, 2)])
assert y.isfinite().all() and y.abs().sum() > 0
"""
    done = run_blocked(FRAMEWORKS | {"numpy", "tqdm", "triton", "safetensors", "datamodules"}, statement)
    assert done.returncode == 0, done.stderr


def test_config_loads_without_torch() -> None:
    # Importing torch takes seconds; command-line errors must be reported without that delay.
    statement = "from titans_seq.cli import main; sys.exit(main(['show-config', 'model.dim=64']))"
    done = run_blocked({"torch", "lightning", "polars", "wandb", "matplotlib", "numpy"}, statement)
    assert done.returncode == 0, done.stderr
    assert "dim: 64" in done.stdout


@pytest.mark.parametrize(
    "module", ["titans_seq.studies.suite", "titans_seq.studies.sweep_file", "titans_seq.system.files"]
)
def test_suites_and_sweeps_are_read_without_torch(module: str) -> None:
    done = run_blocked({"torch", "lightning", "wandb", "matplotlib"}, f"import {module}")
    assert done.returncode == 0, done.stderr


def test_run_blocked_blocks_imports() -> None:
    done = run_blocked({"torch"}, "import titans_seq.ops")
    assert done.returncode != 0
    assert "blocked: torch" in done.stderr
