"""Draw docs/simulated_series/: sixteen series of each family that pre-trains the forecaster, and of their mixture.

python docs/make_simulated_series.py
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datamodules.time_series.simulated.mixture import MIXTURE, simulate
from titans_seq.plots import TRUTH_COLOUR, new_figure

FOLDER = Path(__file__).with_name("simulated_series")
LENGTHS = (96, 256, 512, 1024)  # of a row's series
COLUMNS = 4
SEED = 11


def draw(path: Path, rows: list[tuple[NDArray[np.floating], NDArray[np.int64]]]) -> None:
    """Draw rows of series, (values, nominal periods) each."""
    with new_figure(path, (10.4, 5.6), (len(rows), COLUMNS)) as axes:
        for line, (values, nominal) in zip(axes, rows, strict=True):
            for axis, series, period in zip(line, values, nominal, strict=True):
                axis.plot(series, color=TRUTH_COLOUR, linewidth=0.6)
                named = f", period {period}" if period else ""
                axis.set_title(f"{len(series)} steps{named}", fontsize=6)
                axis.tick_params(labelsize=5, length=2)
                axis.locator_params(nbins=4)
    Image.open(path).convert("RGB").quantize(16).save(path, optimize=True)  # a third of the size


def main(folder: Path = FOLDER) -> None:
    """Draw the pictures of all families and of the mixture."""
    folder.mkdir(exist_ok=True)
    for name, (_, simulate_family) in MIXTURE.items():
        rng = np.random.default_rng(SEED)
        draw(folder / f"{name}.png", [simulate_family(rng, COLUMNS, length) for length in LENGTHS])
    rng = np.random.default_rng(SEED)
    batches = [simulate(rng, COLUMNS, length) for length in LENGTHS]
    draw(folder / "mixture.png", [(batch.values, batch.period) for batch in batches])


if __name__ == "__main__":
    main()
