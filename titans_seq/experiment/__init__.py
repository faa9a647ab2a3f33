"""From a configuration to a run: the only floor that knows tasks and datamodules. Used by the CLI and by notebooks."""

from titans_seq.experiment.backtest import backtest, backtest_text
from titans_seq.experiment.compare import compare
from titans_seq.experiment.evaluate import load_run, measure, predict
from titans_seq.experiment.export import export
from titans_seq.experiment.fit import fit
from titans_seq.experiment.future import forecast
from titans_seq.experiment.mutations import mutagenesis, score_variants
from titans_seq.experiment.repeats import fit_seeds
from titans_seq.experiment.sweeps import run_sweep

__all__ = [
    "backtest",
    "backtest_text",
    "compare",
    "export",
    "fit",
    "fit_seeds",
    "forecast",
    "load_run",
    "measure",
    "mutagenesis",
    "predict",
    "run_sweep",
    "score_variants",
]
