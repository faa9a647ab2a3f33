"""Plots of a classification run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.dates
import numpy as np
from numpy.typing import NDArray

from titans_seq.plots import HISTORY_COLOUR, new_figure


def plot_classes(
    path: Path,
    *,
    curves: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    counts: NDArray[np.int64],
    classes: Sequence[str],
    title: str,
) -> None:
    """Plot ROC curves next to the confusion matrix `counts` (K, K), whose rows are the true classes.

    `curves` maps names to false and true positive rates.
    """
    with new_figure(path, (8.4 + 0.3 * len(classes), 4.2), (1, 2), title) as axes:
        rates, matrix = axes[0]
        for name, (false, true) in curves.items():
            rates.plot(false, true, linewidth=1.2, label=name)
        rates.plot([0, 1], [0, 1], color=HISTORY_COLOUR, linewidth=0.8)
        rates.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
        rates.legend(frameon=False, loc="lower right")
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        matrix.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if share[row, column] > 0.5 else "black"
            matrix.text(column, row, f"{count:,}\n{share[row, column]:.1%}", ha="center", va="center", color=colour)
        matrix.set_xticks(range(len(classes)), classes)
        matrix.set_yticks(range(len(classes)), classes)
        matrix.set(xlabel="predicted", ylabel="true")
        matrix.spines[:].set_visible(False)


def plot_variant_effects(path: Path, *, effects: NDArray[Any], sequence: str, letters: str, title: str) -> None:
    """Plot a heat map of variant effects (4, T): rows are alternative bases, columns positions, NaN the reference."""
    length = len(sequence)
    with new_figure(path, (min(40.0, 3.0 + 0.12 * length), 2.4), title=title) as axes:
        axis = axes[0, 0]
        limit = float(np.nanmax(np.abs(effects))) or 1.0
        colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="#bbbbbb")
        image = axis.imshow(effects, cmap=colours, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        axis.set(xlabel="position (grey: the reference base)", ylabel="alternative")
        axis.set_yticks(range(len(letters)), letters)
        step = max(1, length // 12)
        axis.set_xticks(range(0, length, step), [str(place + 1) for place in range(0, length, step)])
        if length <= 200:
            for place, base in enumerate(sequence):
                axis.text(place, -0.6, base, ha="center", va="bottom", fontsize=7)
        axis.figure.colorbar(image, ax=axis, fraction=0.02, pad=0.01)
