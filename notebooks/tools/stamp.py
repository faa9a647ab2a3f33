"""Store hashes of the plotting code in executed notebooks, so that a test can detect outdated figures.

python tools/stamp.py 01_quickstart.ipynb ...   (in notebooks/; `make notebooks` does so after the execution)
"""

import ast
import hashlib
import sys
from pathlib import Path

import nbformat

PACKAGE = Path(__file__).parents[2] / "titans_seq"
KEY = "titans_seq"  # of the notebook's metadata
# Folders whose plots a notebook shows; all use the common code of titans_seq/plots.py too.
SHOWS = {
    "01_quickstart": ["experiment/forecasting"],
    "02_inside_the_memory": [],
    "03_forecasting": ["experiment/forecasting"],
    "04_genomics": ["experiment/classification"],
    "05_your_own_data": ["experiment/forecasting", "experiment/classification"],
}


def plotting_code(notebook: str, package: Path = PACKAGE) -> dict[str, str]:
    """Return the hash of each file that draws figures of a notebook, without comments and docstrings."""
    folders = [package, *(package / folder for folder in SHOWS[notebook])]
    files = [file for folder in folders for pattern in ("plots.py", "plots/**/*.py") for file in folder.glob(pattern)]
    return {file.relative_to(package).as_posix(): _digest(file) for file in sorted(files)}


def stamped(path: Path) -> dict[str, str] | None:
    """Return the hashes stored in a notebook, None if there are none."""
    return nbformat.read(path, as_version=4).metadata.get(KEY, {}).get("plotting_code")


def stamp(path: Path, package: Path = PACKAGE) -> None:
    """Store the hashes of the current plotting code in the metadata of an executed notebook."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata[KEY] = {"plotting_code": plotting_code(path.stem, package)}
    nbformat.write(notebook, path)


def _digest(file: Path) -> str:
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        stamp(Path(name))
