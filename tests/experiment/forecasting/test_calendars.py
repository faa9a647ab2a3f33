"""Fit, forecast and backtest of tables with integers as times, business days, and local days of a time zone."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.helpers import TWO_STEPS, run_cli

SMALL = ["data.context_length=28", "data.horizon=7", "model.dim=16", "trainer.accelerator=cpu", *TWO_STEPS]
INTEGERS = [str(5 * i) for i in range(150)]
WORKDAYS = [str(d) for d in (date(2024, 1, 1) + timedelta(days=i) for i in range(210)) if d.weekday() < 5]
LOCAL = [f"{date(2024, 1, 1) + timedelta(days=i)}" for i in range(150)]  # clocks go forward on 2024-03-31


@pytest.mark.parametrize(
    ("times", "words", "ahead"),
    [
        (INTEGERS, [], ["750", "755", "760"]),
        (WORKDAYS, [], ["2024-07-29 00:00:00", "2024-07-30 00:00:00", "2024-07-31 00:00:00"]),
        (LOCAL, ["data.timezone=Europe/Berlin"], ["2024-05-30 00:00:00+02:00", "2024-05-31 00:00:00+02:00"]),
    ],
    ids=["integers", "business days", "time zone"],
)
def test_a_run_and_its_forecasts(tmp_path: Path, times: list[str], words: list[str], ahead: list[str]) -> None:
    rows = "\n".join(f"{time},{100 + i % 7}" for i, time in enumerate(times))
    (tmp_path / "t.csv").write_text(f"date,y\n{rows}\n")
    answer = run_cli("fit", "forecasting/table", "data.path=t.csv", *SMALL, *words, cwd=tmp_path)
    assert answer.status == 0, answer.err
    assert ("data.calendar has no effect" in answer.out) == (times is INTEGERS)
    out = ["--data", "t.csv", "--out", "out.csv", "trainer.accelerator=cpu"]
    answer = run_cli("forecast", "runs/table/last", *out, "--plot", "out.png", cwd=tmp_path)
    assert answer.status == 0, answer.err
    written = [line.split(",")[0] for line in (tmp_path / "out.csv").read_text().splitlines()[1:]]
    assert written[: len(ahead)] == ahead
    answer = run_cli("backtest", "runs/table/last", *out, "--windows", "12", cwd=tmp_path)
    assert answer.status == 0, answer.err
    assert "windows begin within the training period (until" in answer.out
    untrained = run_cli("forecast", "--data", "t.csv", "--horizon", "3", "--out", "out.csv", *words, cwd=tmp_path)
    assert untrained.status == 0, untrained.err
    written = [line.split(",")[0] for line in (tmp_path / "out.csv").read_text().splitlines()[1:]]
    assert written[: len(ahead)] == ahead[:3]
