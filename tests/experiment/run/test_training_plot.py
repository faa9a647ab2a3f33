"""The training curve: what it shows of the rows, and runs that leave few of them."""

from pathlib import Path

from matplotlib.figure import Figure

from tests.helpers import CONFIGS, SMALL_MODEL, TWO_STEPS, run_cli
from titans_seq.experiment.run.plots import plot_training

ROWS = [
    {"step": "9", "train/loss": "0.5", "memory/0/lr": "0.01", "memory/1/lr": "0.03", "memory/0/forget": "0.002"},
    {"step": "9", "lr-AdamW/pg1": "0.001", "lr-AdamW/pg2": "0.001"},
    {"step": "15", "val/mse": "0.7", "epoch": "0"},
    {"step": "19", "train/loss": "0.4"},
    {"step": "31", "val/mse": "0.6", "epoch": "1"},
    {"step": "47", "val/mse": "nan"},
    {"step": "47", "test/mse": "0.61"},
]


def panels(figure: Figure) -> dict[str, list[tuple[list[float], list[float]]]]:
    """The lines of each panel, by its label, without the marks."""
    return {
        axis.get_ylabel(): [
            (list(map(float, line.get_xdata())), list(map(float, line.get_ydata())))
            for line in axis.get_lines()
            if not str(line.get_label()).startswith("_")
        ]
        for axis in figure.axes
    }


def test_it_shows_loss_metric_learning_rate_and_gates(tmp_path: Path, figures: list[Figure]) -> None:
    assert plot_training(tmp_path / "training.png", ROWS, "val/mse", "min")
    found = panels(figures[0])
    assert list(found) == ["training loss", "val/mse", "learning rate", "gates\n(mean over layers)"]
    assert found["training loss"] == [([9, 19], [0.5, 0.4])]
    assert found["val/mse"] == [([15, 31], [0.7, 0.6])]
    assert found["learning rate"] == [([9], [0.001])]
    assert found["gates\n(mean over layers)"] == [([9], [0.02]), ([9], [0.002])]
    assert figures[0].axes[-1].get_xlabel() == "optimiser step"
    texts = [text.get_text() for axis in figures[0].axes for text in axis.texts]
    assert texts == ["best 0.6"]
    assert plot_training(tmp_path / "training.png", ROWS, "val/mse", "max")
    assert [text.get_text() for text in figures[1].axes[1].texts] == ["best 0.7"]


def test_one_row_is_enough_and_an_untrained_baseline_has_no_curve(tmp_path: Path, figures: list[Figure]) -> None:
    assert plot_training(tmp_path / "one.png", [{"step": "0", "train/loss": "1"}], "val/mse", "min")
    assert len(figures[0].axes) == 1
    assert figures[0].axes[0].get_lines()[0].get_marker() == "o", "one point needs a marker"
    for rows in ([], [{"step": "0", "val/mse": "1"}, {"step": "0", "test/mse": "1"}]):
        assert not plot_training(tmp_path / "none.png", rows, "val/mse", "min")
    assert not (tmp_path / "none.png").exists()


def test_a_baseline_that_is_not_trained_runs_to_its_end(tmp_path: Path) -> None:
    words = [*SMALL_MODEL, *TWO_STEPS, "model.baseline=last_value", f"run.dir={tmp_path / 'run'}"]
    answer = run_cli("fit", CONFIGS / "forecasting" / "synthetic.yaml", *words)
    assert answer.status == 0, answer.err
    assert [path.name for path in (tmp_path / "run" / "plots").iterdir()] == ["forecast.png"]
    assert (tmp_path / "run" / "results.json").is_file()
    assert "training.png" not in answer.out


def test_the_gates_of_a_run_are_drawn_when_logged(tmp_path: Path, figures: list[Figure]) -> None:
    words = [*SMALL_MODEL, *TWO_STEPS, "logging.memory=true", "logging.every_n_steps=1", f"run.dir={tmp_path / 'run'}"]
    answer = run_cli("fit", CONFIGS / "forecasting" / "synthetic.yaml", *words)
    assert answer.status == 0, answer.err
    assert str(tmp_path / "run" / "plots" / "training.png") in answer.out
    forecast, training = figures
    gates = panels(training)["gates\n(mean over layers)"]
    assert len(gates) == 3
    assert [len(x) for x, _ in gates] == [2, 2, 2]
    first = forecast.axes[0]
    labels = [str(part.get_label()) for part in (*first.get_lines(), *first.collections)]
    assert {"history", "truth", "forecast", "linear path alone", "80 % interval", "95 % interval"} <= set(labels)
    assert "linear path" in forecast.get_suptitle()
    assert all("MAE " in axis.get_title(loc="left") for axis in forecast.axes)
    assert forecast.axes[-1].get_xlabel() == "time"
