"""Draws docs/concepts.png: the coefficient of every write in the memory, from the op's own decay tables.

python docs/make_concepts.py
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from titans_seq.ops.memory.chunked.decay import decay_tables


def coefficients(length: int, momentum: float, forget: float) -> torch.Tensor:
    """[t, j]: the coefficient of write j in W_t; with momentum m it grows to about 1 / (1 - m)."""
    table, _ = decay_tables(torch.full((length,), momentum), torch.full((length,), forget))
    return table[:, 2:]


def main() -> None:
    """Draw it."""
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    one, chunk = figure.subplots(1, 2, width_ratios=(1.25, 1))
    gates = {(0.5, 0.002): "fresh layer", (0.9, 0.002): "more momentum", (0.5, 0.02): "more forgetting"}
    for ((momentum, forget), name), colour, dash in zip(
        gates.items(), ("#0072B2", "#D55E00", "#009E73"), ("-", "--", "-."), strict=True
    ):
        label = f"{name}: momentum {momentum}, forget {forget}"
        one.plot(range(1, 401), coefficients(400, momentum, forget)[:, 0], color=colour, linestyle=dash, label=label)
    one.set(
        xscale="log",
        xlabel="tokens since the write (1: the writing token itself)",
        ylabel="coefficient of the write in W",
    )
    one.xaxis.set_major_formatter("{x:g}")
    one.set_title("One write: momentum adds it up, forgetting lets it decay", fontsize=10)
    one.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    one.spines[["top", "right"]].set_visible(False)
    image = chunk.imshow(coefficients(16, 0.5, 0.02), cmap="Blues", vmin=0)
    chunk.set(xlabel="written by token j", ylabel="read by token t", xticks=range(0, 16, 5), yticks=range(0, 16, 5))
    chunk.set_title("A chunk of 16: row t has the writes' coefficients in W_t", fontsize=10)
    figure.colorbar(image, ax=chunk, label="coefficient")
    figure.savefig(Path(__file__).with_name("concepts.png"), dpi=120)


if __name__ == "__main__":
    main()
