"""Mark the best numbers of a Markdown table in bold."""

import re
from collections.abc import Callable, Iterable, Sequence


def bold_best(cells: Sequence[str], best: Callable[[Iterable[float]], float] = max) -> list[str]:
    """Return the cells with the best ones, by their first number as printed, in bold; ties are all bold.

    Cells that do not begin with a number are ignored; nothing is marked if all numbers are equal.
    """
    numbers = [float(found[0]) if (found := re.match(r"-?\d*\.?\d+", cell)) else None for cell in cells]
    known = {number for number in numbers if number is not None}
    if len(known) < 2:
        return list(cells)
    wanted = best(known)
    return [f"**{cell}**" if number == wanted else cell for cell, number in zip(cells, numbers, strict=True)]


def bold_columns(rows: Sequence[Sequence[str]], columns: slice) -> list[list[str]]:
    """Return the rows of a table with the greatest number of each of `columns` in bold."""
    texts = list(zip(*rows, strict=True))
    texts[columns] = [tuple(bold_best(column)) for column in texts[columns]]
    return [list(row) for row in zip(*texts, strict=True)]
