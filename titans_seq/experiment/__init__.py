"""From a configuration to a run: the only floor that knows tasks and datamodules. Used by the CLI and by notebooks."""

from titans_seq.experiment.backtest import backtest, backtest_text
from titans_seq.experiment.evaluate import load_run, measure, predict
from titans_seq.experiment.fit import fit
from titans_seq.experiment.future import forecast
from titans_seq.experiment.mutations import mutagenesis, score_variants

__all__ = [
    "backtest",
    "backtest_text",
    "fit",
    "forecast",
    "load_run",
    "measure",
    "mutagenesis",
    "predict",
    "score_variants",
]
