"""The figures: accuracy, time and state against length, and the ablations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from haystack.cells import SHORT_LENGTHS
from haystack.hiding import HAYSTACKS
from haystack.report import NAMES, PAGE, Row, size
from haystack.testing import LENGTHS

CHANCE = HAYSTACKS["bytes"].chance
TRAINED = 1024
FIGURE, ABLATIONS_FIGURE = PAGE.with_suffix(".png"), PAGE.with_name("needle_ablations.png")
# Arm: colour and marker; solid lines are closing gates, dashed ones sigmoids.
ARMS = {
    "lmm_online": ("#AA4499", "D"),
    "mal": ("#009E73", "s"),
    "lmm": ("#000000", "o"),
    "mag": ("#E69F00", "P"),
    "mac": ("#D55E00", "^"),
    "transformer": ("#999999", "v"),
}
# Panels of the ablations. Every arm has one name and one colour in all of them; the LMM is in all, to compare with.
PANELS = {
    "The four variants, and attention alone": ("lmm", "mal", "mag", "mac", "transformer"),
    "LMM without one component": ("lmm", "no_momentum", "no_forgetting", "no_convolution", "no_persistent"),
    "Other memory rules": ("lmm", "deep", "lmm_online", "delta"),
    "Four times the training steps": ("lmm", "lmm_4x_steps", "mac", "mac_4x_steps"),
}
STYLES = {  # name, colour, marker
    "lmm": ("LMM", "#000000", "o"),
    "mal": ("MAL", "#009E73", "s"),
    "mag": ("MAG", "#E69F00", "D"),
    "mac": ("MAC", "#D55E00", "^"),
    "transformer": ("sliding-window attention alone", "#999999", "v"),
    "no_momentum": ("no momentum", "#0072B2", "s"),
    "no_forgetting": ("no forgetting", "#56B4E9", "D"),
    "no_convolution": ("no convolution", "#CC79A7", "^"),
    "no_persistent": ("no persistent tokens", "#882255", "v"),
    "deep": ("memory of two layers", "#117733", "s"),
    "lmm_online": ("online gradients", "#AA4499", "D"),
    "delta": ("online gradients, no momentum", "#332288", "^"),
    "lmm_4x_steps": ("LMM, 4 x steps", "#6B6B00", "s"),
    "mac_4x_steps": ("MAC, 4 x steps", "#7F3300", "D"),
}


def end(values: Sequence[Any], pick: Any) -> list[Any]:
    """Return the least or greatest value over seeds at each length."""
    return [pick(value["all"]) for value in values]


def draw(panel: Any, row: Row, metric: str, lengths: Sequence[int], **style: Any) -> None:
    """Draw a condition's means over seeds, and their range as a shade."""
    points = [row[f"{metric}_{length}"] for length in lengths]
    panel.plot(lengths, [p["mean"] for p in points], markersize=5, **style)
    panel.fill_between(lengths, end(points, min), end(points, max), color=style["color"], alpha=0.1, linewidth=0)


def picture(rows: Sequence[Row], path: Path = FIGURE) -> None:
    """Plot accuracy, time per byte and the state's size against length, in random bytes."""
    shown = [row for row in rows if (row["budget"], row["hay"], row["training"]) == ("long", "bytes", "plain")]
    shown = [row for row in shown if row["parameters"]]
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    accuracy, time, state = figure.subplots(1, 3, width_ratios=(2.2, 1, 1))
    for row in shown:
        colour, marker = ARMS[row["arm"]]
        closing = row["gates"] == "closing"
        gates = "" if row["arm"] == "transformer" else f", {row['gates']} gates"
        style = {"color": colour, "marker": marker, "linestyle": "-" if closing else "--"}
        draw(accuracy, row, "answer", LENGTHS, label=NAMES[row["arm"]] + gates, **style)
        if closing:
            draw(time, row, "microseconds_per_byte", LENGTHS, **style)
            kib = [row[f"state_bytes_{n}"]["mean"] / 1024 for n in LENGTHS]
            state.plot(LENGTHS, kib, markersize=5, **style)
    accuracy.axhline(CHANCE, color="grey", linestyle=":", label="chance")
    accuracy.axvspan(LENGTHS[0] / 1.5, TRAINED, color="#DDDDDD", label="trained on")
    accuracy.set(title="answers that are right", ylim=(-0.03, 1.03))
    time.set(title="time per byte (µs, one CPU thread)", ylim=(0, None))
    state.set(title="state (KiB)", ylim=(0, None))
    for panel in (accuracy, time, state):
        panel.set(xscale="log", xlabel="length (bytes)", xlim=(LENGTHS[0] / 1.5, LENGTHS[-1] * 1.5))
        ticks = LENGTHS if panel is accuracy else (LENGTHS[0], 1 << 16, LENGTHS[-1])
        panel.set(xticks=ticks, xticklabels=map(size, ticks))
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle("Recall of key-value pairs in noise: trained at up to 1,024 bytes, tested up to 2,097,152")
    figure.savefig(path, dpi=110)


def ablations(rows: Sequence[Row], path: Path = ABLATIONS_FIGURE) -> None:
    """Plot the ablations' accuracy against length in a few panels; lines are means over seeds, shades their range."""
    by_arm = {row["arm"]: row for row in rows if row["budget"] == "short"}
    figure = Figure(figsize=(11, 8), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    for panel, (title, arms) in zip(grid.flat, PANELS.items(), strict=True):
        for arm in arms:
            name, colour, marker = STYLES[arm]
            if arm not in by_arm or not by_arm[arm]["parameters"]:
                panel.plot([], [], color=colour, marker=marker, label=f"{name}: no result")
                continue
            draw(panel, by_arm[arm], "answer", SHORT_LENGTHS, color=colour, marker=marker, label=name)
        panel.axhline(CHANCE, color="grey", linestyle=":", label="chance")
        panel.set(title=title, xscale="log", xticks=SHORT_LENGTHS, xticklabels=list(map(size, SHORT_LENGTHS)))
        panel.set(ylim=(-0.03, 1.03))
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    for panel in grid[:, 0]:
        panel.set_ylabel("accuracy per query")
    for panel in grid[1]:
        panel.set_xlabel("length tested (bytes)")
    title = "Ablations, 1,500 steps, trained at up to 1,024 bytes; line: mean over seeds, shade: their range"
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)
