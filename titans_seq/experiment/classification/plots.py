"""Plots of a classification run."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from titans_seq.plots import HISTORY_COLOUR, PALETTE, new_figure

_LONGEST = 20  # characters of a class at an axis or in the legend


def plot_classes(
    path: Path,
    *,
    curves: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    counts: NDArray[np.int64],
    classes: Sequence[str],
    title: str,
) -> None:
    """Plot ROC curves next to the confusion matrix `counts` (K, K), whose rows are the true classes.

    `curves` maps what the legend says to false and true positive rates; the area under each is added.
    """
    side = max(4.2, 0.45 * len(classes) + 1.6)
    labels = [short_class(name) for name in classes]
    longest = max(map(len, labels))
    with new_figure(path, (2 * side + 0.08 * longest, side), (1, 2), title) as axes:
        rates, matrix = axes[0]
        for (name, (false, true)), colour, dash in zip(curves.items(), cycle(PALETTE), cycle("-----:"), strict=False):
            area = float((np.diff(false) * (true[1:] + true[:-1]) / 2).sum())
            rates.plot(false, true, linewidth=1.2, color=colour, linestyle=dash, label=f"{name}: AUROC {area:.3f}")
        rates.plot([0, 1], [0, 1], color=HISTORY_COLOUR, linewidth=0.8, linestyle="--", label="chance: AUROC 0.5")
        rates.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
        rates.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14))
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        matrix.imshow(share, cmap="Blues", vmin=0, vmax=1)
        size = 9 if len(classes) <= 8 else 6
        for (row, column), count in np.ndenumerate(counts):
            text = {"ha": "center", "va": "center", "color": "white" if share[row, column] > 0.5 else "black"}
            matrix.text(column, row, f"{count:,}\n{share[row, column]:.1%}", fontsize=size, **text)
        is_long = len(classes) * longest > 30
        matrix.set_xticks(
            range(len(classes)), labels, rotation=45 if is_long else 0, ha="right" if is_long else "center"
        )
        matrix.set_yticks(range(len(classes)), labels)
        matrix.set(xlabel="predicted class (percent of each true class)", ylabel="true class")
        matrix.spines[:].set_visible(False)


def short_class(name: str) -> str:
    """A class name, cut where it would not fit at an axis or in a legend."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def plot_variant_effects(
    path: Path, *, effects: NDArray[Any], sequence: str, letters: str, title: str, measure: str
) -> None:
    """Plot a heat map of variant effects (4, T): rows are alternative bases, columns positions, NaN the reference.

    `measure` says what the colours are, at the colour bar.
    """
    length = len(sequence)
    width = min(40.0, 3.6 + 0.12 * length)
    title = "\n".join(textwrap.fill(line, int(11 * width)) for line in title.splitlines())
    with new_figure(path, (width, 2.5 + 0.16 * title.count("\n")), title=title) as axes:
        axis = axes[0, 0]
        limit = float(np.nanmax(np.abs(effects))) or 1.0
        colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="#bbbbbb")
        image = axis.imshow(effects, cmap=colours, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        axis.set(xlabel="position (grey: the reference base)", ylabel="alternative base")
        axis.set_yticks(range(len(letters)), letters)
        step = max(1, length // 12)
        axis.set_xticks(range(0, length, step), [str(place + 1) for place in range(0, length, step)])
        if length <= 200:
            for place, base in enumerate(sequence):
                axis.text(place, -0.6, base, ha="center", va="bottom", fontsize=7)
        label = textwrap.fill(measure, 24)
        axis.figure.colorbar(image, ax=axis, fraction=0.02, pad=0.01).set_label(label, fontsize=8)
