"""ETTh1, horizon 96: the shipped config with each variant on three seeds, selected on validation, tested once each.

Runs `titans-seq fit configs/forecasting/etth1.yaml configs/model/<variant>.yaml` per seed (a run whose result exists
is skipped), copies each run's results.json to `results/`, and prints means and spreads next to the target for the
shipped config (LMM): MSE 0.385, MAE 0.405.

    python benchmarks/etth1.py                              # LMM
    python benchmarks/etth1.py --variants lmm mal mag mac
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from record import RESULTS

SEEDS = (0, 1, 2)
ROOT = Path(__file__).parent.parent


def result_path(variant: str, seed: int) -> Path:
    """Return the path of one run's result."""
    return RESULTS / f"etth1_96_{variant}_seed{seed}.json"


def run(variant: str, seed: int, runs: Path) -> dict[str, float]:
    """Train and test unless the result exists."""
    kept = result_path(variant, seed)
    if not kept.exists():
        results = runs / variant / f"seed{seed}" / "results.json"
        files = ["configs/forecasting/etth1.yaml", f"configs/model/{variant}.yaml"]
        words = [*files, f"seed={seed}", f"run.dir={results.parent}", "trainer.progress_bar=false"]
        subprocess.run([sys.executable, "-m", "titans_seq.cli", "fit", *words], cwd=ROOT, check=True)
        kept.write_text(results.read_text())
    return json.loads(kept.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=["lmm"])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "etth1_benchmark")
    arguments = parser.parse_args()
    for variant in arguments.variants:
        results = [run(variant, seed, arguments.runs) for seed in SEEDS]
        cells = []
        for key in ("test/mse", "test/mae", "best_val/mse"):
            values = [r[key] for r in results if key in r]
            if values:
                cells.append(f"{key} {statistics.mean(values):.4f} +- {statistics.stdev(values):.4f}")
        print(f"{variant}: {', '.join(cells)}; longest run {max(r['seconds'] for r in results):.0f} s", flush=True)


if __name__ == "__main__":
    main()
