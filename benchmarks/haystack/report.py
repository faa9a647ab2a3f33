"""The page: what was found on every haystack, and the ablations; the text above the marker is written by hand."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bold import bold_columns

from haystack.cells import SEEDS, SHORT_LENGTHS, Ablation, Cell, ablations, grid, results
from haystack.models import ABLATIONS
from haystack.testing import CAPACITIES, CAPACITY_LENGTHS, LENGTHS

PAGE = Path(__file__).parent.parent.parent / "docs" / "needle.md"
MARK_BELOW = "<!-- below: written by benchmarks/needle.py --report -->\n"
NAMES = {  # of the arms that are trained for long
    "lmm_online": "LMM, online gradients",
    "mal": "MAL",
    "lmm": "LMM",
    "mag": "MAG",
    "mac": "MAC",
    "transformer": "window attention alone",
    "lmm_online_one_head": "LMM, online gradients, one head",
    "deep": "LMM, memory of two layers",
}
TRAININGS = {"plain": "", "far": ", questions from afar", "penalty": ", penalty on open gates"}
HAYSTACKS = {
    "bytes": "Four pairs in random bytes",
    "passkey": "A passkey in a repeated filler",
    "text": "A number and a word in source code",
}
CLAIMS = (  # claim of the paper or implied by it, the arm that should be better, the arm that should be worse
    ("LMM remembers beyond a window", "lmm", "transformer"),
    ("MAL remembers beyond its window", "mal", "transformer"),
    ("MAG remembers beyond its window", "mag", "transformer"),
    ("MAC remembers beyond its segment", "mac", "transformer"),
    ("MAC is the best of the four", "mac", "lmm"),
    ("MAC is better than MAL", "mac", "mal"),
    ("MAG is better than MAL", "mag", "mal"),
    ("LMM beats online gradients without momentum", "lmm", "delta"),
    ("momentum helps (Table 5)", "lmm", "no_momentum"),
    ("forgetting helps (Table 5)", "lmm", "no_forgetting"),
    ("the convolution helps (Table 5)", "lmm", "no_convolution"),
    ("persistent tokens help (Table 5)", "lmm", "no_persistent"),
    ("a deep memory is better than a matrix (Table 5)", "deep", "lmm"),
    ("online gradients are better than a chunk's (not in the paper)", "lmm_online", "lmm"),
    ("MAC is better than LMM, both with four times the steps", "mac_4x_steps", "lmm_4x_steps"),
)

Row = dict[str, Any]


def summary() -> list[Row]:
    """Return mean, spread (standard deviation) and values over seeds of every condition with a result."""
    conditions: dict[tuple[str, ...], list[Cell | Ablation]] = {}
    for cell in (*grid(), *ablations()):
        kind = ("short", cell.arm) if isinstance(cell, Ablation) else ("long", *cell[:-1])
        conditions.setdefault(kind, []).append(cell)
    rows = []
    for (budget, arm, *rest), cells in conditions.items():
        found = [figures for cell in cells if (figures := results(cell))]
        if not found:
            continue
        gates, hay, training = rest or ("sigmoid", "bytes", "plain")
        row: Row = {"budget": budget, "arm": arm, "gates": gates, "hay": hay, "training": training}
        rows.append(row | _over_seeds(found))
    return rows


def _over_seeds(found: Sequence[Row]) -> Row:
    learned = [figures for figures in found if "diverged_at_step" not in figures]
    row: Row = {"seeds": [figures["seed"] for figures in found]}
    row["diverged"] = [figures["seed"] for figures in found if figures not in learned]
    row["parameters"] = learned[0]["parameters"] if learned else None
    row["seconds_training"] = spread([figures["seconds_training"] for figures in learned])
    if learned and "answer_by_pairs" in learned[0]:
        row |= {
            f"answer_{pairs}_{length}": spread([f["answer_by_pairs"][str(pairs)][str(length)] for f in learned])
            for pairs in CAPACITIES
            for length in CAPACITY_LENGTHS
        }
        return row
    for metric in ("answer", "haystack", "microseconds_per_byte", "state_bytes"):
        for length in LENGTHS:
            values = [figures[metric][str(length)] for figures in learned if str(length) in figures.get(metric, {})]
            row[f"{metric}_{length}"] = spread(values)
    row["gates_on_noise"] = [figures["gates_on_noise"] for figures in learned if "gates_on_noise" in figures]
    return row


def spread(values: Sequence[float]) -> Row | None:
    """Return mean, standard deviation and values; None without values."""
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "spread": deviation, "all": list(values)}


def name(row: Row) -> str:
    """Name of a condition in tables and figures."""
    if row["budget"] == "short":
        return str(row["arm"])
    gates = "" if row["arm"] == "transformer" else f", {row['gates']} gates"
    return NAMES[row["arm"]] + gates + TRAININGS[row["training"]]


def size(length: int) -> str:
    """1,024 is 1K, 2,097,152 is 2M."""
    return f"{length >> 20}M" if length >= 1 << 20 else f"{length >> 10}K"


def table(rows: Iterable[Row], keys: Sequence[str], titles: Sequence[str]) -> list[str]:
    """Return a table with a condition a line and, by column, the mean and deviation under a key; the best are bold."""
    lines = ["| condition | seeds | parameters | " + " | ".join(titles) + " |"]
    lines.append("|---" * (3 + len(titles)) + "|")
    body = []
    for row in rows:
        seeds = f"{len(row['seeds'])}" + (f", {len(row['diverged'])} diverged" if row["diverged"] else "")
        count = f"{row['parameters']:,}" if row["parameters"] else "-"
        body.append([name(row), seeds, count, *(_figure(row.get(key)) for key in keys)])
    return lines + [f"| {' | '.join(texts)} |" for texts in bold_columns(body, slice(3, None))]


def _figure(found: Row | None) -> str:
    if found is None:
        return "-"
    return f"{found['mean']:.2f}" + (f" ± {found['spread']:.2f}" if found["spread"] is not None else "")


def verdict(better: Row | None, worse: Row | None) -> str:
    """Compare seeds: whether all of one arm are above all of the other (probability 1/20 by chance)."""
    if better is None or worse is None:
        return "-"
    if min(len(better["all"]), len(worse["all"])) < len(SEEDS):
        return "seeds missing"
    difference = f"{better['mean'] - worse['mean']:+.2f}"
    if min(better["all"]) > max(worse["all"]):
        return f"holds ({difference})"
    if max(better["all"]) < min(worse["all"]):
        return f"the reverse ({difference})"
    return f"undecided ({difference})"


def claims(rows: Iterable[Row]) -> list[str]:
    """Return the table of the paper's claims, from the ablations."""
    by_arm = {row["arm"]: row for row in rows}
    lengths = SHORT_LENGTHS[::2]
    lines = ["| claim | compared | " + " | ".join(map(size, lengths)) + " |"]
    lines.append("|---" * (2 + len(lengths)) + "|")
    for claim, better, worse in CLAIMS:
        found = [verdict(by_arm[better][f"answer_{n}"], by_arm[worse][f"answer_{n}"]) for n in lengths]
        lines.append(f"| {claim} | {better} > {worse} | " + " | ".join(found) + " |")
    return lines


def gates(rows: Iterable[Row]) -> list[str]:
    """Return the table of what gates do on noise: by seed, layer and head."""
    lines = ["| condition | learning rate open | forgetting open | left after 1,024 bytes |", "|---" * 4 + "|"]
    for row in rows:
        columns = []
        for key in ("lr_open", "forget_open", "left"):
            seeds = [", ".join(f"{x:.3f}" for layer in seed for x in layer[key]) for seed in row["gates_on_noise"]]
            columns.append("; ".join(seeds))
        lines.append(f"| {name(row)} | " + " | ".join(columns) + " |")
    return lines


def write_page(rows: Sequence[Row], page: Path = PAGE) -> None:
    """Write the page below the marker."""
    long, short = ([row for row in rows if row["budget"] == budget] for budget in ("long", "short"))
    long.sort(key=lambda row: list(NAMES).index(row["arm"]))
    short.sort(key=lambda row: ABLATIONS.index(row["arm"]))
    parts = []
    if long:
        parts += ["## Accuracy by length", "", "Mean ± standard deviation over seeds. Bold: best of its column.", ""]
        parts += ["![accuracy, time per byte and state against length](needle.png)", ""]
    for hay, title in HAYSTACKS.items():
        if chosen := [row for row in long if row["hay"] == hay]:
            columns = table(chosen, [f"answer_{n}" for n in LENGTHS], list(map(size, LENGTHS)))
            parts += [f"### {title}", "", *columns, ""]
    for length in CAPACITY_LENGTHS if (pairs := [row for row in long if row["hay"] == "pairs"]) else ():
        columns = table(pairs, [f"answer_{n}_{length}" for n in CAPACITIES], [f"{n} pairs" for n in CAPACITIES])
        parts += [f"### 1 to 64 pairs in {size(length)} of random bytes", "", *columns, ""]
    if watched := [row for row in long if row.get("gates_on_noise")]:
        explained = (
            "Fraction of the haystack's bytes at which a gate is not exactly 0, and fraction of a write that is left "
            "after\n1,024 bytes; by head, layer after layer, seeds separated by semicolons."
        )
        parts += ["## Gates on the haystack", "", explained, "", *gates(watched), ""]
    parts += ["## Ablations", "", "Sigmoid gates, 1,500 steps, random bytes. Mean ± standard deviation over seeds.", ""]
    parts += table(short, [f"answer_{n}" for n in SHORT_LENGTHS], list(map(size, SHORT_LENGTHS)))
    parts += ["", "![accuracy against length, ablations](needle_ablations.png)", "", "### The paper's claims", ""]
    parts += ['"holds": every seed of the first condition is above every seed of the second. "the reverse": every seed']
    parts += ["is below. In parentheses: difference of the means.", "", *claims(short)]
    by_hand = page.read_text().partition(MARK_BELOW)[0] if page.exists() else "# Needle in a haystack\n\n"
    page.write_text(by_hand + MARK_BELOW + "\n" + "\n".join(parts) + "\n")
