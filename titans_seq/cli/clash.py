"""Check that `datamodules` is the package of this project, because other packages may use this general name."""

from importlib.util import find_spec
from pathlib import Path

import titans_seq
from titans_seq.errors import InputError

_PACKAGE = "datamodules"
_PARTS = ("common", "dna", "time_series")  # sub-packages of our `datamodules`


def check_names() -> None:
    """Raise InputError if Python would import another package as `datamodules`; nothing is imported."""
    ours = Path(titans_seq.__file__).resolve().parents[1] / _PACKAGE
    spec = find_spec(_PACKAGE)
    places = [Path(place).resolve() for place in (spec and spec.submodule_search_locations) or ()]
    if places == [ours] and all((ours / part).is_dir() for part in _PARTS):
        return
    if spec is None or places == [ours]:
        raise InputError(f"{ours}: is missing or another package's; uninstall that one and install titans-seq again")
    raise InputError(
        f"{places[0] if places else spec.origin}: another package with the name {_PACKAGE} hides that of titans-seq; "
        "start from another folder, take its folder out of PYTHONPATH, or use a new environment"
    )
