"""The floors of the house: imports point down only."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

# A new room gets its floor here.
FLOORS = {
    "titans_seq.errors": 0.0,
    "titans_seq.arguments": 0.0,
    "titans_seq.console": 0.0,
    "titans_seq.batch": 0.0,
    "titans_seq.schema": 0.0,
    "titans_seq.environment": 0.0,
    "titans_seq.files": 0.0,
    "titans_seq.signals": 0.1,
    "titans_seq.plots": 0.2,
    "titans_seq.checkpoint_files": 0.2,
    "titans_seq.rules": 0.4,
    "titans_seq.config": 0.5,  # schema, rules and errors only, see below
    "titans_seq.suite": 0.6,
    "titans_seq.sweep": 0.6,
    "titans_seq.ops": 1.0,
    "titans_seq.nn": 2.0,
    "titans_seq.backbone": 3.0,
    "titans_seq.models": 3.5,
    "titans_seq.tasks": 4.0,
    "titans_seq.callbacks": 4.5,
    "titans_seq.experiment": 5.0,
    "titans_seq.cli": 6.0,
}
# Narrower than the floors: all that these may import of ours besides themselves.
ONLY = {
    "titans_seq.errors": set(),
    "titans_seq.arguments": set(),
    "titans_seq.console": set(),
    "titans_seq.batch": set(),
    "titans_seq.schema": set(),
    "titans_seq.files": set(),
    "titans_seq.signals": {"titans_seq.errors"},
    "titans_seq.plots": {"titans_seq.files"},
    "titans_seq.environment": set(),
    "titans_seq.rules": {"titans_seq.schema", "titans_seq.errors"},
    "titans_seq.config": {"titans_seq.schema", "titans_seq.rules", "titans_seq.errors"},
    "titans_seq.suite": {"titans_seq.config", "titans_seq.schema", "titans_seq.errors"},
    "titans_seq.ops": set(),
    "titans_seq.nn": {"titans_seq.ops"},
    "datamodules": {"titans_seq.batch", "titans_seq.errors"},
}
FRAMEWORKS = {"lightning", "pytorch_lightning", "omegaconf", "polars", "wandb", "torchmetrics", "yaml", "matplotlib"}
FILES = sorted([*(REPOSITORY / "titans_seq").rglob("*.py"), *(REPOSITORY / "datamodules").rglob("*.py")])


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The part of the house a module stands in: `titans_seq.<part>`, or `datamodules`."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "titans_seq" else parts[0]


def imported(path: Path) -> Iterator[str]:
    """Full names of all that a file imports, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; the house writes full names"
            assert node.module
            for alias in node.names:
                # `from titans_seq import ops` imports the module titans_seq.ops, `from x import function` the module x.
                inner = REPOSITORY / node.module.replace(".", "/") / alias.name
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def ours(path: Path) -> set[str]:
    """Rooms of ours that a file imports, its own aside; the bare package holds only the version."""
    rooms = {room(name) for name in imported(path) if name.split(".")[0] in ("titans_seq", "datamodules")}
    return rooms - {room(module_name(path)), "titans_seq"}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_down_only(path: Path) -> None:
    here = room(module_name(path))
    found = ours(path)
    if here in ONLY:
        assert found <= ONLY[here]
    elif here == "titans_seq":
        assert not found, "the package itself must cost nothing to import"
    else:
        assert found | {here} <= FLOORS.keys() | {"datamodules"}, "a room without a floor"
        # Only the experiment knows both packages; tasks and models meet data as batches.
        assert here == "titans_seq.experiment" or "datamodules" not in found
        above = {name for name in found - {"datamodules"} if FLOORS[name] >= FLOORS[here]}
        assert not above


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if room(module_name(p)) in ("titans_seq.ops", "titans_seq.nn", "titans_seq.backbone")]
    + [p for p in FILES if room(module_name(p)) == "titans_seq.models"],
    ids=module_name,
)
def test_models_know_no_framework_but_torch(path: Path) -> None:
    assert not {name.split(".")[0] for name in imported(path)} & FRAMEWORKS


def run_blocked(blocked: set[str], statement: str) -> subprocess.CompletedProcess[str]:
    """Run a statement in a fresh Python in which importing any of `blocked` raises."""
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(blocked)!r}:
            raise ModuleNotFoundError("blocked: " + name)  # what torch expects where numpy is absent
sys.meta_path.insert(0, Block())
{statement}
"""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )


def test_ops_run_with_nothing_but_torch() -> None:
    # numpy is blocked too: torch does without it, so the mathematics must.
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
    # What makes a typing error on the command line answer at once.
    statement = "from titans_seq.cli import main; sys.exit(main(['show-config', 'model.dim=64']))"
    done = run_blocked({"torch", "lightning", "polars", "wandb", "matplotlib", "numpy"}, statement)
    assert done.returncode == 0, done.stderr
    assert "dim: 64" in done.stdout


def test_the_block_blocks() -> None:
    done = run_blocked({"torch"}, "import titans_seq.ops")
    assert done.returncode != 0
    assert "blocked: torch" in done.stderr
