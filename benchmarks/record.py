"""Storage of benchmark results."""

import json
from pathlib import Path
from typing import Any

from titans_seq.system.environment import describe_environment

RESULTS = Path(__file__).parent / "results"


def record(name: str, figures: Any, folder: Path = RESULTS) -> Path:
    """Write results and a description of the environment to `folder`/`name`.json."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"figures": figures, "environment": describe_environment()}, indent=2) + "\n")
    print(f"written to {path}")
    return path
