"""Tables for the console."""

from collections.abc import Mapping


def format_table(rows: Mapping[str, Mapping[str, float]], columns: Mapping[str, str], spec: str = ".4f") -> str:
    """Return rows of named numbers as aligned text, "-" for a missing one; columns map the keys to their headings."""
    width = max(len(name) for name in rows)
    widths = {key: max(12, len(heading) + 2) for key, heading in columns.items()}
    lines = [" " * width + "".join(f"{heading:>{widths[key]}}" for key, heading in columns.items())]
    for name, numbers in rows.items():
        cells = {key: f"{numbers[key]:{spec}}" if key in numbers else "-" for key in columns}
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>{widths[key]}}" for key, cell in cells.items()))
    return "\n".join(lines)
