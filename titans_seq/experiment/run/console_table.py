"""What a run says on the console."""

from collections.abc import Mapping


def format_table(rows: Mapping[str, Mapping[str, float]], columns: Mapping[str, str], spec: str = ".4f") -> str:
    """Rows of named numbers as aligned text, "-" where a row lacks one; columns map the keys to their headings."""
    width = max(len(name) for name in rows)
    lines = [" " * width + "".join(f"{heading:>12}" for heading in columns.values())]
    for name, numbers in rows.items():
        cells = [f"{numbers[key]:{spec}}" if key in numbers else "-" for key in columns]
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)
