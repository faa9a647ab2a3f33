"""Plots of a pre-training run."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from titans_seq.plots import FORECAST_COLOUR, HISTORY_COLOUR, TRUTH_COLOUR, new_figure


def plot_bits_per_base(
    path: Path, *, bases_before: Sequence[int], bits: Sequence[float], levels: Mapping[str, float], title: str
) -> None:
    """Plot bits per base against the bases of the stream before a segment; `levels` are baselines, as lines."""
    with new_figure(path, (8.4, 3.6), title=title) as axes:
        axis = axes[0, 0]
        if len(bases_before) > 1:
            axis.plot(bases_before, bits, color=FORECAST_COLOUR, marker="o", markersize=4, linewidth=1.4, label="model")
            axis.set_xlabel("bases of the stream read before the segment")
        else:  # no state is carried over: there is one value
            axis.axhline(bits[0], color=FORECAST_COLOUR, linewidth=1.4, label="model")
            axis.set_xticks([])
            axis.set_xlabel("segments are read on their own: one value")
        styles = zip(cycle(("-", "--", "-.", ":")), cycle((HISTORY_COLOUR, "black", TRUTH_COLOUR)), strict=False)
        for (name, level), (style, colour) in zip(levels.items(), styles, strict=False):
            axis.axhline(level, color=colour, linestyle=style, linewidth=1, label=name)
        axis.set_ylabel("bits per base")
        axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))  # crosses no line
