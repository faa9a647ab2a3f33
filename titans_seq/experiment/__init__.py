"""One run, from a configuration to results: the Python interface behind the command line."""

from titans_seq.experiment.classification.variant_effects import mutagenesis, score_variants
from titans_seq.experiment.evaluate import load_run, measure, predict
from titans_seq.experiment.export import export
from titans_seq.experiment.fit import fit
from titans_seq.experiment.forecasting.backtest import backtest
from titans_seq.experiment.forecasting.explain import explain, explanation_text
from titans_seq.experiment.forecasting.forecast import forecast
from titans_seq.experiment.forecasting.pretrained.forecaster import PretrainedForecaster, load_forecaster
from titans_seq.experiment.forecasting.scores import backtest_text

__all__ = [
    "PretrainedForecaster",
    "backtest",
    "backtest_text",
    "explain",
    "explanation_text",
    "export",
    "fit",
    "forecast",
    "load_forecaster",
    "load_run",
    "measure",
    "mutagenesis",
    "predict",
    "score_variants",
]
