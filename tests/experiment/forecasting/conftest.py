"""Fixture: the run shared by the tests of forecast and backtest."""

import pytest

from tests.experiment.forecasting.sales import OVERRIDES, Panel, sales
from tests.helpers import CONFIGS, run_cli


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Panel:
    folder = tmp_path_factory.mktemp("panel")
    table, plans = folder / "sales.csv", folder / "plans.csv"
    sales().write_csv(table)
    sales(21).drop("sales", "kind").write_csv(plans)
    overrides = [CONFIGS / "forecasting" / "table.yaml", f"data.path={table}", *OVERRIDES, f"run.dir={folder / 'run'}"]
    answer = run_cli("fit", *overrides, cwd=folder)
    assert answer.status == 0, answer.err
    assert "sales, 3 series: 28 steps to 7" in answer.out
    assert "CRPS" in answer.out
    assert "Coverage of the conformal intervals on the test split" in answer.out
    return Panel(folder, table, plans, folder / "run" / "checkpoints" / "best.ckpt")
