"""Fine-tuning of the universal forecaster on ETT, horizon 96: test error beside zero-shot and supervised models.

Each set is run twice by `configs/forecasting/finetune.yaml`: with learning rate 0, which is the zero-shot forecast, and
as shipped; validation CRPS selects the epoch. A run whose result exists is skipped. The supervised models are those of
docs/forecasting_results.md, on the same test windows (`results/forecasting/`).

    python benchmarks/finetune.py --sets ETTh1 ETTh2 ETTm1
    python benchmarks/finetune.py --weights runs/universal/last --sets ETTh1 trainer.max_epochs=5
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from record import RESULTS, record

from titans_seq.config import load_config
from titans_seq.experiment import fit

SUPERVISED = {
    "LMM": "LMM",
    "Transformer": "Transformer-attention-only-",
    "linear (least squares)": "linear-least-squares-",
    "linear (least absolute error)": "linear-least-absolute-error-",
    "seasonal naive": "seasonal-naive",
}
KEPT = ("test/mse", "test/mae", "test/crps", "test/coverage_80", "best_val/crps", "best_epoch", "epochs", "seconds")
ZERO_SHOT = ["task.learning_rate=0", "trainer.max_steps=1"]


def run(name: str, kind: str, words: list[str], runs: Path) -> dict[str, Any]:
    """Train and test unless the result exists."""
    folder = runs / f"{name}_{kind}"
    results = folder / "results.json"
    if not results.exists():
        fixed = [f"data.name={name}", "data.horizon=96", "task.intervals=[]", f"run.dir={folder}"]
        fit(load_config(["forecasting/finetune"], [*fixed, *words]))
    found = json.loads(results.read_text())
    return {key: found[key] for key in KEPT}


def supervised(name: str) -> dict[str, dict[str, float]]:
    """Mean test errors of the supervised models over their seeds."""
    rows = {}
    for label, file in SUPERVISED.items():
        found = [
            json.loads(path.read_text()) for path in (RESULTS / "forecasting").glob(f"seed*_{name}_96_{file}.json")
        ]
        rows[label] = {key: statistics.fmean(each[key] for each in found) for key in ("test/mse", "test/mae")}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="universal", help="model.pretrained (default: %(default)s)")
    parser.add_argument("--sets", nargs="+", default=["ETTh1", "ETTh2", "ETTm1"])
    parser.add_argument("--runs", type=Path, default=Path("runs/finetune_benchmark"))
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="overrides of all runs")
    options = parser.parse_intermixed_args()
    words = [f"model.pretrained={options.weights}", "trainer.progress_bar=false", "logging.wandb=off", *options.words]
    figures: dict[str, Any] = {"weights": options.weights, "overrides": options.words, "sets": {}}
    for name in options.sets:
        zero_shot = run(name, "zero-shot", [*words, *ZERO_SHOT], options.runs)
        rows = {"zero-shot": zero_shot, "fine-tuned": run(name, "fine-tuned", words, options.runs), **supervised(name)}
        figures["sets"][name] = rows
        print(name)
        for label, row in rows.items():
            print(f"  {label:<30} MSE {row['test/mse']:.3f}  MAE {row['test/mae']:.3f}")
    record("finetune", figures)


if __name__ == "__main__":
    main()
