"""The wheel, installed outside the clone, runs the first commands of the README."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import titans_seq
from tests.helpers import CONFIGS, DATA_VARIABLE, REPOSITORY, TWO_STEPS

SOURCES = ("titans_seq", "datamodules", "configs", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
SMALL = ["model.dim=8", "model.num_layers=1", "model.memory.num_heads=2"]


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command without the PYTHONPATH and data folder of this process; return its output."""
    hidden = ("PYTHONPATH", DATA_VARIABLE)
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources, so that nothing is left in the clone."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (REPOSITORY / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(REPOSITORY / name, folder / "source" / name, ignore=ignored)
        else:
            (folder / "source").mkdir(exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / "source" / name)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "dist")
    run(sys.executable, "-m", "pip", "wheel", *options, "./source", cwd=folder)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a new environment that shares the dependencies of this one, but not the clone."""
    folder = tmp_path_factory.mktemp("environment")
    venv.EnvBuilder(symlinks=True).create(folder)
    python = folder / "bin" / "python"
    purelib = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    # Python reads no .pth files in a folder that a .pth file adds, so an editable install of the clone stays hidden.
    shared = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (purelib / "shared.pth").write_text("\n".join(shared) + "\n")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--ignore-installed")
    run(*pip, wheel, cwd=folder)
    return folder / "bin"


def test_wheel_contains_configurations_examples_and_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
        for path in CONFIGS.rglob("*.yaml"):
            inside = f"titans_seq/_configs/{path.relative_to(CONFIGS).as_posix()}"
            assert archive.read(inside).decode() == path.read_text()
    assert {"titans_seq/py.typed", "datamodules/py.typed", "titans_seq/examples/sales/sales.csv"} <= names
    assert {
        f"titans_seq/weights/universal/{name}" for name in ("config.json", "model.safetensors", "README.md")
    } <= names
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"titans_seq", "datamodules"}
    fields = [line.partition(": ") for line in metadata.partition("\n\n")[0].splitlines()]
    found = {key: [value for name, _, value in fields if name == key] for key, _, _ in fields}
    assert found["Version"] == [titans_seq.__version__]
    assert found["Author"] == ["titans_seq developers"]
    assert {url.partition(", ")[0] for url in found["Project-URL"]} >= {"Homepage", "Documentation", "Changelog"}
    for version in ("3.11", "3.12", "3.13", "3.14"):
        assert f"Programming Language :: Python :: {version}" in found["Classifier"]


def test_the_installed_package_runs_outside_the_clone(environment: Path, tmp_path: Path) -> None:
    def titans(*arguments: str) -> str:
        return run(environment / "titans-seq", *arguments, cwd=tmp_path)

    where = "import titans_seq, datamodules; print(titans_seq.__file__, datamodules.__file__)"
    for file in run(environment / "python", "-c", where, cwd=tmp_path).split():
        assert Path(file).is_relative_to(environment.parent), "the package was imported from the clone"
    assert titans("--version") == f"titans-seq {titans_seq.__version__}\n"
    assert "  forecasting/etth1 " in run(environment / "python", "-m", "titans_seq", "configs", cwd=tmp_path)
    assert "task.learning_rate=0.001  (number, at least 0)\n    peak learning rate" in titans("keys", "task")
    assert "missing" in titans("benchmark", "forecasting/suite", "--list", "--only", "seed=0", "--only", "data=ETTh1")

    titans("fit", "forecasting/synthetic", *TWO_STEPS)
    titans("example", "sales")
    titans("forecast", "--data", "sales.csv", "--horizon", "28", "--out", "first.csv", "data.target=[sales]")
    assert len((tmp_path / "first.csv").read_text().splitlines()) == 1 + 3 * 28
    columns = ["data.path=sales.csv", "data.id=store", "data.target=[sales]", "data.known=[promo]"]
    titans("fit", "forecasting/table", *columns, *TWO_STEPS)
    titans("forecast", "runs/table/last", "--future", "plans.csv", "--out", "forecast.csv")
    assert len((tmp_path / "forecast.csv").read_text().splitlines()) == 1 + 3 * 14

    assert "Audit of simulated" in titans("audit", "simulated")
    titans("fit", "genomics/motif", *SMALL, *TWO_STEPS)
    titans("example", "dna")
    files = ("--vcf", "changes.vcf", "--reference", "genome.fa", "--out", "variants.csv")
    titans("variants", "runs/motif/last", *files, "data.length=60")
    assert len((tmp_path / "variants.csv").read_text().splitlines()) == 1 + 5
