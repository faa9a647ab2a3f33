"""The commands of docs/your_csv.md run in the order of the page, on a table like the one it shows."""

import re
import shlex
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.helpers import REPOSITORY, TWO_STEPS, run_cli

PAGE = (REPOSITORY / "docs" / "your_csv.md").read_text()
TABLE, PLANS = re.findall(r"```csv\n(.*?)```", PAGE, flags=re.DOTALL)
FIRST, LAST = datetime(2022, 1, 1), datetime(2023, 12, 31)


def rows_like(text: str, first: datetime, last: datetime) -> pl.DataFrame:
    """Generate one row per store and day, with the columns of `text`."""
    rng = np.random.default_rng(0)
    days = [first + timedelta(days=i) for i in range((last - first).days + 1)]
    rows = [
        {
            "date": f"{day:%Y-%m-%d}",
            "store": store,
            "region": region,
            "sales": round(100 + 10 * np.sin(2 * np.pi * i / 7) + rng.normal(), 1),
            "promo": int(rng.random() < 0.2),
            "visitors": int(rng.integers(100, 400)),
        }
        for i, day in enumerate(days)
        for store, region in (("north", "coast"), ("south", "hills"))
    ]
    return pl.DataFrame(rows).select(text.splitlines()[0].split(","))


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    rows_like(TABLE, FIRST, LAST).write_csv("sales.csv")
    assert PLANS.splitlines()[1].startswith(f"{LAST + timedelta(days=1):%Y-%m-%d}")
    rows_like(PLANS, LAST + timedelta(days=1), LAST + timedelta(days=14)).write_csv("plans.csv")
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    commands = []
    for line in block.splitlines():
        program, command, *arguments = shlex.split(line)
        run = sorted((tmp_path / "runs" / "table").glob("*"))[0].name if command != "fit" else ""
        quick = TWO_STEPS if command == "fit" else ["trainer.accelerator=cpu"]
        answer = run_cli(command, *(argument.replace("RUN", run) for argument in arguments), *quick)
        assert (program, answer.status) == ("titans-seq", 0), answer.err
        commands.append(command)
    assert commands == ["fit", "backtest", "forecast"]

    forecast = pl.read_csv("forecast.csv", try_parse_dates=True)
    assert forecast.columns == [
        *("series", "timestamp", "channel", "origin", "step", "forecast"),
        *(f"q{level}" for level in ("0.05", "0.1", "0.25", "0.5", "0.75", "0.9", "0.95")),
        *(f"{end}_{share}" for share in (80, 95) for end in ("lower", "upper")),
    ]
    for _, part in forecast.group_by("series"):
        assert part["timestamp"].to_list() == [LAST + timedelta(days=i) for i in range(1, 15)]
    assert (tmp_path / "forecast.png").stat().st_size > 10_000
    backtest = pl.read_csv("backtest.csv")
    assert backtest["channel"].to_list() == ["sales", "sales", "all", "seasonal naive"]
