"""The zero-shot benchmark: metrics against hand values, the halves of the series, resuming, and its page."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from titans_seq.errors import InputError

pytestmark = pytest.mark.usefixtures("_scripts_import_each_other")


@pytest.fixture
def _scripts_import_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.helpers import REPOSITORY

    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))


class Recorder:
    """Forecasts the context's last value plus 0, 1, ... 8 as quantiles; fails at a given call."""

    def __init__(self, fail_at: int = -1) -> None:
        self.calls: list[list[NDArray[np.float32]]] = []
        self.fail_at = fail_at

    def predict_arrays(
        self, contexts: Sequence[NDArray[np.float32]], horizon: int, periods: Sequence[int]
    ) -> NDArray[np.float32]:
        if len(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        self.calls.append(list(contexts))
        last = np.array([context[-1] for context in contexts], np.float32)
        return np.broadcast_to(last[:, None, None] + np.arange(9, dtype=np.float32), (len(last), horizon, 9)).copy()


def series(name: str, frequency: str = "yearly", rows: int = 60, group: str = "") -> Any:
    from zero_shot.short_series import PERIODS, ShortSeries

    values = np.sin(np.arange(rows)) + np.arange(rows)
    return ShortSeries(name, group or name, frequency, PERIODS[frequency], "none", values)


# metrics


def test_metrics_have_the_values_computed_by_hand() -> None:
    from zero_shot import metrics

    quantiles = np.array([[0.0, 1, 2, 3, 4, 5, 6, 7, 8]])
    target = np.array([6.0])
    # sum over levels q of max(q (6 - f), (q - 1) (6 - f)): below .6+1+1.2+1.2+1+.6, equal 0, above .2+.2
    assert metrics.pinball(quantiles, target).sum() == pytest.approx(6.0)
    assert metrics.weighted_quantile_loss(quantiles, target) == pytest.approx(2 * 6.0 / 9 / 6)
    assert metrics.seasonal_scale(np.array([1.0, 2, 4, 8, np.nan]), 2) == pytest.approx((3 + 6) / 2)
    assert metrics.mase(np.array([1.0, 2]), np.array([3.0, 6]), 1.5) == pytest.approx(3 / 1.5)
    assert metrics.geometric_mean([1.0, 4.0]) == pytest.approx(2)


def test_metrics_leave_missing_targets_out() -> None:
    from zero_shot import metrics

    quantiles = np.tile(np.arange(9.0), (4, 1))
    target = np.array([np.nan, 0.0, 8.0, 9.0])
    assert metrics.coverage(quantiles, target) == pytest.approx(2 / 3)  # both ends are inside
    assert metrics.weighted_quantile_loss(quantiles, target) == pytest.approx(
        metrics.weighted_quantile_loss(quantiles[1:], target[1:])
    )
    assert metrics.mase(quantiles[:, 4], target, 1.0) == pytest.approx((4 + 4 + 5) / 3)


# seasonal naive


def test_seasonal_naive_repeats_the_last_season_with_growing_intervals() -> None:
    from zero_shot.forecaster import SeasonalNaive

    context = np.array([1, 2, 4, 2, 4, 6], np.float32)  # seasonal differences 1, 2, 2: mean square 3
    forecast = SeasonalNaive().predict_arrays([context], 5, [3])[0]
    np.testing.assert_allclose(forecast[:, 4], [2, 4, 6, 2, 4])
    np.testing.assert_allclose(forecast[0, 8] - 2, 1.28155 * np.sqrt(3), rtol=1e-5)
    np.testing.assert_allclose(forecast[3, 0] - 2, -1.28155 * np.sqrt(6), rtol=1e-5)


def test_seasonal_naive_handles_missing_values_short_and_unknown_periods() -> None:
    from zero_shot.forecaster import SeasonalNaive

    gaps = np.array([1, 2, 3, 4, np.nan, 6], np.float32)
    contexts = [gaps, gaps[:3], gaps[:3]]
    forecasts = SeasonalNaive().predict_arrays(contexts, 3, [3, 7, 0])
    np.testing.assert_allclose(forecasts[0, :, 4], [4, 2, 6])
    np.testing.assert_allclose(forecasts[1:, :, 4], 3)
    empty = SeasonalNaive().predict_arrays([np.full(5, np.nan, np.float32)], 2, [2])
    assert np.isfinite(empty).all()


# halves of the short series


def test_halves_are_balanced_deterministic_and_keep_groups_together() -> None:
    from zero_shot.short_series import split_halves

    many = [
        series(f"{frequency}{n}", frequency, group=f"g{n // 3}{frequency}")
        for n in range(12)
        for frequency in ("yearly", "daily")
    ]
    many += [series(f"{kind}{n}", kind, group=f"both{n}") for n in range(6) for kind in ("quarterly", "weekly")]
    many += [series(f"own{n}", "weekly") for n in range(4)]
    halves = split_halves(many)
    again = split_halves(many[::-1])
    names = {half: {one.name for one in found} for half, found in halves.items()}
    assert names == {half: {one.name for one in found} for half, found in again.items()}
    assert not names["develop"] & names["judge"]
    assert len(names["develop"] | names["judge"]) == 40
    sides: dict[str, set[str]] = {}
    for half, found in halves.items():
        for one in found:
            sides.setdefault(one.group, set()).add(half)
        counts = Counter(one.frequency for one in found)
        assert counts == {"yearly": 6, "daily": 6, "quarterly": 3, "weekly": 5}
    assert all(len(found) == 1 for found in sides.values())


def test_the_judge_half_is_refused_without_permission(tmp_path: Path) -> None:
    from zero_shot import short_series

    path = tmp_path / "series.npz"
    written = [series(name) for name in "abcdef"]
    short_series.write_series(path, written)
    develop = short_series.read_half("develop", path=path)
    with pytest.raises(InputError, match="--judge"):
        short_series.read_half("judge", path=path)
    judge = short_series.read_half("judge", judge=True, path=path)
    assert {one.name for one in develop} | {one.name for one in judge} == set("abcdef")
    assert len(develop) == len(judge) == 3
    np.testing.assert_array_equal(develop[0].values, written[0].values)
    with pytest.raises(InputError, match="half must be"):
        short_series.read_half("both", judge=True, path=path)


def test_the_command_line_refuses_the_judge_half_and_a_second_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zeroshot
    from zero_shot import short_series

    path = tmp_path / "series.npz"
    short_series.write_series(path, [series(name) for name in "abcd"])
    monkeypatch.setenv(short_series.FILE_VARIABLE, str(path))
    monkeypatch.setattr(zeroshot, "FOLDER", tmp_path)
    for words in (["short", "--half", "judge"], ["short", "--half", "judge", "--judge"]):
        options = zeroshot.parse(words)
        if options.judge:
            options.run(options)
            figures = json.loads((tmp_path / "short_seasonal-naive_judge.json").read_text())["figures"]
            assert figures["summary"]["all"]["mase_ratio"] == pytest.approx(1)
            assert figures["summary"]["all"]["series"] == len(figures["series"]) == 2
        with pytest.raises(InputError, match="--judge" if not options.judge else "has been evaluated"):
            options.run(options)


# origins and scores of the short series


def test_origins_are_a_tenth_apart_or_the_last_one_alone() -> None:
    assert series("long", "hourly", 8192).origins() == [8144, 7325, 6506]
    assert series("year", "yearly", 60).origins() == [54, 48, 42]
    assert series("short", "yearly", 41).origins() == [35]


def test_short_series_are_scored_per_series_over_its_origins() -> None:
    from zero_shot import metrics, short_series

    one = series("a", "yearly", 60)
    recorder = Recorder()
    results = short_series.evaluate(recorder, [one])
    assert [len(context) for context in recorder.calls[0]] == [54, 48, 42]
    errors = []
    for origin in (54, 48, 42):
        scale = np.abs(np.diff(one.values[:origin])).mean()
        errors.append(np.abs(one.values[origin : origin + 6] - np.float32(one.values[origin - 1]) - 4).mean() / scale)
    assert results["a"]["mase"] == pytest.approx(np.mean(errors), rel=1e-6)
    targets = np.stack([one.values[origin : origin + 6] for origin in (54, 48, 42)])
    forecasts = Recorder().predict_arrays(recorder.calls[0], 6, [1, 1, 1])
    assert results["a"]["wql"] == pytest.approx(metrics.weighted_quantile_loss(forecasts, targets))
    better = {"a": results["a"] | {"mase": 2 * results["a"]["mase"], "wql": 4 * results["a"]["wql"]}}
    summary = short_series.summarise([one], results, better)
    assert summary["yearly"]["mase_ratio"] == summary["all"]["mase_ratio"] == pytest.approx(0.5)
    assert summary["all"]["wql_ratio"] == pytest.approx(0.25)


def test_contexts_are_cut_and_nonfinite_forecasts_raise() -> None:
    from zero_shot import short_series

    recorder = Recorder()
    short_series.evaluate(recorder, [series("long", "hourly", 8192)])
    assert {len(context) for context in recorder.calls[0]} == {short_series.CONTEXT}

    class Broken(Recorder):
        def predict_arrays(self, *arguments: Any) -> NDArray[np.float32]:
            return np.nan * super().predict_arrays(*arguments)

    with pytest.raises(ValueError, match="not finite"):
        short_series.evaluate(Broken(), [series("a")])


# long-term datasets


def long_series(rows: int = 1000) -> Any:
    from zero_shot.long_term import LongSeries

    values = np.random.default_rng(0).normal(size=(rows, 2)).astype(np.float32)
    return LongSeries("none", values, 150, 24, np.array([0.5, 2.0]))


def test_long_term_metrics_match_a_loop_over_windows() -> None:
    from zero_shot import long_term
    from zero_shot.metrics import weighted_quantile_loss

    data = long_series()
    found = long_term.evaluate(Recorder(), data, every=7, context=100)
    assert found["windows"] == len(range(0, data.windows(96), 7))
    for horizon in long_term.HORIZONS:
        errors, scaled, forecasts, targets = [], [], [], []
        for start in range(0, data.windows(horizon), 7):
            origin = 150 + start
            for channel in range(2):
                target = data.values[origin : origin + horizon, channel]
                last = data.values[origin - 1, channel]
                errors.append(target - last - 4)
                scaled.append(np.abs(errors[-1]) / data.scales[channel])
                forecasts.append(np.broadcast_to(last + np.arange(9), (horizon, 9)))
                targets.append(target)
        metrics = found["horizons"][str(horizon)]
        assert metrics["windows"] == len(errors) // 2
        for metric in ("mse", "mse_of_mean"):  # quantiles are symmetric
            assert metrics[metric] == pytest.approx(np.square(errors).mean(), rel=1e-5)
        assert metrics["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-5)
        assert metrics["mase"] == pytest.approx(np.mean(scaled), rel=1e-5)
        quantiles = np.stack(forecasts)
        assert metrics["wql"] == pytest.approx(weighted_quantile_loss(quantiles, np.stack(targets)), rel=1e-5)
        inside = (quantiles[..., 0] <= np.stack(targets)) & (np.stack(targets) <= quantiles[..., 8])
        assert metrics["coverage"] == pytest.approx(inside.mean(), rel=1e-5)


def test_an_interrupted_run_resumes_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zero_shot import long_term

    monkeypatch.setattr(long_term, "BLOCK", 64)
    data, partial = long_series(), tmp_path / "x.partial"
    whole = long_term.evaluate(Recorder(), data, every=5)
    with pytest.raises(KeyboardInterrupt):
        long_term.evaluate(Recorder(fail_at=3), data, every=5, partial=partial)
    kept = partial.read_text()
    second = Recorder()
    resumed = long_term.evaluate(second, data, every=5, partial=partial)
    total = -(-len(range(0, data.windows(96), 5)) // 32)
    assert len(second.calls) == total - 3
    assert resumed["horizons"] == whole["horizons"]
    assert not partial.exists()
    partial.write_text(kept)  # sums of other settings are not mixed in
    other = long_term.evaluate(Recorder(), data, every=9, partial=partial)
    assert other["horizons"] == long_term.evaluate(Recorder(), data, every=9)["horizons"]


def test_a_forecast_whose_start_depends_on_the_horizon_is_seen() -> None:
    from zero_shot import long_term

    class Dependent(Recorder):
        def predict_arrays(self, contexts: Any, horizon: int, periods: Any) -> NDArray[np.float32]:
            return super().predict_arrays(contexts, horizon, periods) + np.float32(horizon / 96)

    assert long_term.difference_of_cut(Recorder(), long_series()) == 0
    assert long_term.difference_of_cut(Dependent(), long_series()) == pytest.approx(720 / 96 - 1, rel=1e-5)


def test_values_are_scaled_by_the_training_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from zero_shot import long_term

    from datamodules.time_series.series import Series, SplitBoundaries

    values = np.array([[1.0], [-9999.0], [3.0], [4.0], [9.0], [5.0], [7.0]])
    borders = SplitBoundaries(train=4, validation=5, test=6)

    class Source:
        seasonal_period = 2

        def __init__(self, root: str | None) -> None: ...

        def load(self) -> Series:
            return Series("Weather", np.arange(7).astype("datetime64[h]"), ["a"], values, borders)

    monkeypatch.setattr(long_term, "Weather", Source)
    data = long_term.read_dataset("Weather")
    mean, std = values[:4].mean(), values[:4].std()  # with -9999, as in published results
    np.testing.assert_allclose(data.values, (values[:6] - mean) / std, rtol=1e-5)
    assert (data.first, data.period, data.windows(1)) == (5, 2, 1)
    np.testing.assert_allclose(data.scales, [2 / std])  # the difference of 1 and 3 alone: -9999 is no measurement


def test_stored_seasonal_naive_equals_that_of_the_supervised_benchmark() -> None:
    import zeroshot
    from zero_shot import long_term

    for dataset in long_term.DATASETS:
        stored = json.loads((zeroshot.FOLDER / f"long_seasonal-naive_{dataset}.json").read_text())["figures"]
        for horizon, found in stored["horizons"].items():
            path = zeroshot.RESULTS / "forecasting" / f"seed0_{dataset}_{horizon}_seasonal-naive.json"
            results = json.loads(path.read_text())["results"]
            assert found["windows"] == results["test_windows"]
            assert found["mse"] == pytest.approx(results["test/mse"], rel=1e-4)
            assert found["mae"] == pytest.approx(results["test/mae"], rel=1e-4)


# statistical baselines, catalogue and page


def test_gaps_are_interpolated_for_the_statistical_methods() -> None:
    from zero_shot.statistical import interpolate

    values = np.array([np.nan, 1, np.nan, np.nan, 4, np.nan])
    np.testing.assert_allclose(interpolate(values), [1, 1, 2, 3, 4, 4])


def test_the_catalogue_names_every_file_once() -> None:
    from zero_shot.package_series import PACKAGES, TABLES
    from zero_shot.short_series import HORIZONS

    assert {table.frequency for table in TABLES} == set(HORIZONS)
    assert {table.package for table in TABLES} == set(PACKAGES)
    assert max(Counter(table.name for table in TABLES).values()) == 1
    assert max(Counter((table.package, table.file) for table in TABLES).values()) == 1


def test_the_page_matches_the_results(tmp_path: Path) -> None:
    import zeroshot
    from zero_shot.report import write_page

    copy = tmp_path / "page.md"
    copy.write_text(zeroshot.PAGE.read_text())
    write_page(copy, zeroshot.FOLDER)
    assert copy.read_text() == zeroshot.PAGE.read_text()
