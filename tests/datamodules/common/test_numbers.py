"""Numbers in text: which format a table uses, and what its cells are in it."""

import polars as pl
import pytest

from datamodules.common.numbers import PLAIN, NumberFormat, find_number_format, plain_text
from titans_seq.errors import InputError


def read(*columns: list[str | None], decimal: str | None = None, thousands: str | None = None) -> list[list[float]]:
    """Return the values of columns in the format that is found for all of them."""
    texts = [pl.Series(f"c{i}", column, dtype=pl.String) for i, column in enumerate(columns)]
    found, _ = find_number_format(texts, "t.csv", decimal, thousands)
    return [plain_text(text, found).cast(pl.Float64, strict=False).to_list() for text in texts]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ([["1000,00", "-15,5", "7"]], [[1000, -15.5, 7]]),
        ([["1.234,50", "999", "1.234"]], [[1234.5, 999, 1234]]),
        ([["1,234.50", "999", "1,234"]], [[1234.5, 999, 1234]]),
        ([["1,234,567", "8"]], [[1234567, 8]]),
        ([["1.234.567", "8"]], [[1234567, 8]]),
        ([["12,34,567", "8"]], [[1234567, 8]]),  # Indian groups
        ([["1 234,5", "12"], ["1\u00a0234", "1\u202f234"]], [[1234.5, 12], [1234, 1234]]),
        ([["1'234.5", "12\u2019345"]], [[1234.5, 12345]]),
        ([["0,234", "1,5e3", ",5", None, "true"]], [[0.234, 1500, 0.5, None, None]]),
        ([["1,234", "2,345"], ["0,5", "1,5"]], [[1.234, 2.345], [0.5, 1.5]]),  # the second column decides
        ([["1.234", "2.345"]], [[1.234, 2.345]]),  # as ever
    ],
)
def test_formats_that_only_one_reading_fits(columns: list[list[str | None]], expected: list[list[float]]) -> None:
    assert read(*columns) == expected


def test_columns_of_other_things_do_not_decide() -> None:
    dates, names = ["01.02.2022", "02.02.2022"], ["shop 1,5", "a.b"]
    found, notes = find_number_format(
        [pl.Series("d", dates), pl.Series("n", names), pl.Series("y", ["1,5", "2,25"]), pl.Series("f", [0.5, 1.5])],
        "t.csv",
        None,
        None,
    )
    assert found == NumberFormat(",")
    assert notes == ["t.csv: numbers are read with a decimal ',' (data.decimal)"]


def test_numbers_in_two_formats_are_left_as_they_are() -> None:
    assert read(["1.5", "2,5", "3"]) == [[1.5, None, 3]]
    found, notes = find_number_format([pl.Series("y", ["1.5", "n/a", "2.5"])], "t.csv", None, None)
    assert (found, notes) == (PLAIN, [])


def test_an_ambiguous_table_names_the_key() -> None:
    with pytest.raises(InputError) as caught:
        read(["1,234", "950"])
    assert str(caught.value) == "t.csv: '1,234' is 1.234 or 1234: set data.decimal=, or data.decimal=."
    assert read(["1,234", "950"], decimal=",") == [[1.234, 950]]
    assert read(["1,234", "950"], decimal=".") == [[1234, 950]]
    assert read(["1,234", "950"], thousands=",") == [[1234, 950]]


def test_a_format_that_is_set_is_held_to() -> None:
    assert read(["1.5", "2,5"], decimal=",") == [[None, 2.5]]
    assert read(["1.234", "2,5"], decimal=",", thousands=".") == [[1234, 2.5]]
    assert read(["1.23.4", "1.2345", "1..234"], decimal=",", thousands=".") == [[None, None, None]]
