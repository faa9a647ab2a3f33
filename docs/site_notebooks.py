"""Convert an executed notebook to a page of the site, with its outputs and figures."""

import base64
import json
import posixpath
from pathlib import Path
from typing import Any


def notebook_files(path: Path, site_path: str) -> dict[str, str | bytes]:
    """Return the page and its figures by their paths in the site."""
    files: dict[str, str | bytes] = {}
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"````python\n{source}\n````")
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                figure = f"{site_path.removesuffix('.md')}-{len(files) + 1}.png"
                files[figure] = base64.b64decode("".join(output["data"]["image/png"]))
                parts.append(f"![output]({posixpath.basename(figure)})")
            elif text := _text(output):
                parts.append(f"````text\n{text}\n````")
    files[site_path] = "\n\n".join(parts) + "\n"
    return files


def _text(output: dict[str, Any]) -> str:
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    return "".join(text).rstrip()
