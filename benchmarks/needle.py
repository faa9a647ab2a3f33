"""Needles in a haystack of bytes: trained at up to 1,024 bytes, tested at 1K to 64K (Titans, arXiv 2501.00663).

A haystack of random bytes contains four needles, each [MARK] key value, at uniformly random positions. At the end all
four keys are queried in random order, [ASK] key value; the value must be predicted after the key. Accuracy is counted
per answer (chance 1/32) and per haystack (all four correct). Keys are 32 bytes, values 32 others, noise is drawn from
126 more. Tests run in pieces of 1,024 bytes and pass on the state, so 64K needs no more memory than 1K.

    python benchmarks/needle.py                 # resumes: skips finished runs
    python benchmarks/needle.py --report        # results/needle.json, docs/needle.md, docs/needle.png
    python benchmarks/needle.py --develop DIR   # only seed 100, on which the budget was set; results go to DIR

Every (arm, seed) writes one JSON to `results/needle/` and is skipped if it exists. One budget for all arms, set on
seed 100 with the arms lmm and mac, for one to four minutes of one CPU thread per training: one layer of width 32 (the
attention baseline has two: one layer of attention cannot bind a value to the key before it), first at 32 bytes, where
recall is learned, then at growing lengths up to 1,024, where retention is learned. Windows and segments are 16, so that
recall needs the memory from the shortest length on. Settings that did not learn are in `LOG.md`.

Arms (a matrix memory, chunks of 16, four persistent tokens, unless stated otherwise):
    lmm, mal, mag, mac      the four Titans variants
    transformer             sliding-window attention alone, two layers
    delta                   LMM with online gradients and without momentum (not the gated delta rule, which takes the
                            error after the decay)
    no_*, deep              LMM without one component; LMM with a memory of two layers (expansion 4)
    lmm_online              LMM with every gradient at the token's own weights, between lmm and delta
    *_4x_steps              MAC and LMM with four times the budget's steps: is MAC slow to learn, or unable to?
Feed-forward widths are set so that the arms' numbers of parameters agree within about 6 %.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from bold import bold_columns
from matplotlib.figure import Figure
from record import RESULTS, record
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.backbone import build_backbone
from titans_seq.nn import NeuralMemory
from titans_seq.schema import AttentionOptions, BackboneOptions, MemoryOptions

FOLDER = RESULTS / "needle"
PAGE = Path(__file__).parent.parent / "docs" / "needle.md"
MARK_BELOW = "<!-- below: written by benchmarks/needle.py --report -->\n"
SEEDS = (0, 1, 2)
MARK, ASK, KEYS, VALUES, NOISE = 254, 255, (0, 32), (64, 96), (128, 254)  # bytes, ranges of bytes
NEEDLES, NEEDLE = 4, 3  # needles per haystack; bytes per needle
CHANCE = 1 / (VALUES[1] - VALUES[0])
LENGTHS = tuple(1024 << i for i in range(7))
PIECE = 1024
STEPS, TOKENS, FEWEST, LEARNING_RATE, WARMUP = 1500, 4096, 8, 6e-3, 50  # TOKENS per batch, with at least FEWEST rows
SHORTEST, RAMP = (
    32,
    (0.55, 0.88),
)  # initial training length; fractions of the steps between which it grows to LENGTHS[0]

MEMORY = MemoryOptions(num_heads=2, chunk_size=16)
LMM = BackboneOptions(
    variant="lmm",
    dim=32,
    num_layers=1,
    ffn_expansion=4,
    dropout=0.0,
    num_persistent=4,
    segment_length=16,
    memory=MEMORY,
    attention=AttentionOptions(num_heads=2, window=16),
)
MAC = replace(LMM, variant="mac", ffn_expansion=2)
ARMS: dict[str, BackboneOptions] = {
    "lmm": LMM,
    "mal": replace(LMM, variant="mal", ffn_expansion=2),
    "mag": replace(LMM, variant="mag", ffn_expansion=2),
    "mac": MAC,
    "transformer": replace(LMM, variant="transformer", num_layers=2, ffn_expansion=1),
    "delta": replace(LMM, variant="delta"),
    "no_momentum": replace(LMM, memory=replace(MEMORY, momentum=False)),
    "no_forgetting": replace(LMM, memory=replace(MEMORY, forgetting=False)),
    "no_convolution": replace(LMM, memory=replace(MEMORY, conv_width=1)),
    "no_persistent": replace(LMM, num_persistent=0),
    "deep": replace(LMM, ffn_expansion=2, memory=replace(MEMORY, depth=2, expansion=4)),
    "lmm_online": replace(LMM, memory=replace(MEMORY, gradient="online")),
    "mac_4x_steps": MAC,
    "lmm_4x_steps": LMM,
}
EXTRA = ("lmm_online", "mac_4x_steps", "lmm_4x_steps")  # not in the paper's table: they run last
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


class Cell(NamedTuple):
    """One training."""

    arm: str
    seed: int

    def path(self) -> Path:
        """Path of the result."""
        return FOLDER / f"{self.arm}_{self.seed}.json"

    def steps(self) -> int:
        """Number of training steps: the budget's, except for the arms with four times as many."""
        return STEPS * (4 if self.arm.endswith("_4x_steps") else 1)


def sample(batch: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw bytes (B, T) and the queried values (B, NEEDLES)."""
    haystack = length - NEEDLES * NEEDLE
    tokens = torch.randint(*NOISE, (batch, length), generator=generator)
    keys = KEYS[0] + torch.rand(batch, KEYS[1] - KEYS[0], generator=generator).argsort(1)[:, :NEEDLES]
    values = torch.randint(*VALUES, (batch, NEEDLES), generator=generator)
    needles = torch.stack([torch.full_like(keys, MARK), keys, values], dim=2)
    room = haystack - NEEDLES * NEEDLE + 1
    starts = (torch.rand(batch, NEEDLES, generator=generator) * room).long().sort(1).values
    starts += NEEDLE * torch.arange(NEEDLES)  # so that needles do not overlap
    tokens.scatter_(1, (starts[..., None] + torch.arange(NEEDLE)).flatten(1), needles.flatten(1))
    order = torch.rand(batch, NEEDLES, generator=generator).argsort(1)
    asked = needles.gather(1, order[..., None].expand(-1, -1, NEEDLE))
    asked[..., 0] = ASK
    tokens[:, haystack:] = asked.flatten(1)
    return tokens, asked[..., 2]


class Model(nn.Module):
    """Byte model: embedding, backbone, norm, linear head over all bytes."""

    def __init__(self, options: BackboneOptions) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, options.dim)
        self.backbone = build_backbone(options)
        self.norm = nn.RMSNorm(options.dim, eps=1e-6)
        self.head = nn.Linear(options.dim, 256)

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Map bytes (B, T) that end with the queries to the answers' logits (B, NEEDLES, 256), and the state."""
        x, state = self.backbone(self.embedding(tokens), state)
        asked = torch.unflatten(x[:, -NEEDLES * NEEDLE :], 1, (NEEDLES, NEEDLE))[:, :, 1]
        return self.head(self.norm(asked)), state


def length_at(progress: float) -> int:
    """Return the training length at a fraction of the steps: the shortest, then geometric growth to the longest."""
    share = (progress - RAMP[0]) / (RAMP[1] - RAMP[0])
    return int(SHORTEST * (LENGTHS[0] / SHORTEST) ** min(1.0, max(0.0, share))) // 16 * 16


def train(cell: Cell) -> dict[str, Any]:
    start = time.process_time()
    steps = cell.steps()
    torch.manual_seed(cell.seed)
    model = Model(ARMS[cell.arm])
    matrices, vectors = ([p for p in model.parameters() if (p.ndim > 1) == wanted] for wanted in (True, False))
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / WARMUP) * min(1, 2 * (1 - step / steps))
    )
    generator = torch.Generator().manual_seed(1000 + cell.seed)  # same data for every arm
    losses = []
    for step in range(steps):
        length = length_at(step / steps)
        tokens, answers = sample(max(FEWEST, TOKENS // length), length, generator)
        logits, _ = model(tokens)
        loss = F.cross_entropy(logits.flatten(0, 1), answers.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if not losses[-1] < float("inf"):
            return {"diverged_at_step": step, "seconds_training": round(time.process_time() - start, 1)}
    tenth = steps // 10
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "parameters_of_backbone": sum(p.numel() for p in model.backbone.parameters()),
        "loss_by_tenths": [round(statistics.mean(losses[i : i + tenth]), 4) for i in range(0, steps, tenth)],
        "seconds_training": round(time.process_time() - start, 1),
        **test(model, cell.seed),
        "seconds": round(time.process_time() - start, 1),
    }


@torch.inference_mode()
def test(model: Model, seed: int) -> dict[str, Any]:
    """Return the accuracy per answer and per haystack, by length, and the gates on noise."""
    generator = torch.Generator().manual_seed(2000 + seed)
    found: dict[str, Any] = {"answer": {}, "haystack": {}, "questions": {}}
    for length in LENGTHS:
        tokens, answers = sample(64 if length <= 8192 else 16, length, generator)
        state = None
        for piece in tokens.split(PIECE, dim=1):
            logits, state = model(piece, state)
        right = logits.argmax(-1) == answers
        found["answer"][length] = round(right.float().mean().item(), 4)
        found["haystack"][length] = round(right.all(1).float().mean().item(), 4)
        found["questions"][length] = right.numel()
    return found | gates_on_noise(model, generator)


def gates_on_noise(model: Model, generator: torch.Generator) -> dict[str, Any]:
    """Return each memory head's mean lr, and the fraction of a write that remains after 1,024 bytes of noise."""
    memory = next((m for m in model.modules() if isinstance(m, NeuralMemory)), None)
    if memory is None:
        return {}
    seen: list[Tensor] = []
    hook = memory.gates.register_forward_hook(lambda _module, _inputs, out: seen.append(out.sigmoid()))
    model(torch.randint(*NOISE, (16, 1024), generator=generator))
    hook.remove()
    heads = memory.num_heads
    by_gate = dict(
        zip(("lr", "momentum", "forget"), seen[-1].split([n * heads for n in memory.gate_sizes], -1), strict=True)
    )
    left = (1 - by_gate["forget"].double()).log().mean((0, 1)).mul(1024).exp().tolist() or [1.0] * heads
    return {
        "lr_on_noise": [round(value, 5) for value in by_gate["lr"].mean((0, 1)).tolist()],
        "left_after_1024_bytes_of_noise": [round(value, 4) for value in left],
    }


def run(cell: Cell, folder: Path = FOLDER) -> str:
    figures = train(cell)
    lengths = {"shortest": SHORTEST, "ramp": RAMP}
    budget = {"steps": cell.steps(), "tokens": TOKENS, "learning_rate": LEARNING_RATE, **lengths}
    record(cell.path().stem, {**cell._asdict(), **figures, "budget": budget}, folder)
    return f"{cell} {figures.get('answer', 'diverged')}"


def grid() -> Iterator[Cell]:
    """Yield all runs, seed by seed, so that a stopped grid covers all arms evenly; the extra arms come last."""
    for extra, seed, arm in itertools.product((False, True), SEEDS, ARMS):
        if (arm in EXTRA) == extra:
            yield Cell(arm, seed)


def summary() -> list[dict[str, Any]]:
    """Return mean, spread (standard deviation) and values over the seeds of every arm with a result."""
    rows = []
    for arm in ARMS:
        cells = [json.loads(path.read_text())["figures"] for s in SEEDS if (path := Cell(arm, s).path()).exists()]
        learned = [cell for cell in cells if "answer" in cell]
        row: dict[str, Any] = {"arm": arm, "seeds": [cell["seed"] for cell in cells]}
        row["diverged"] = [cell["seed"] for cell in cells if cell not in learned]
        for key in ("parameters", "parameters_of_backbone"):
            row[key] = learned[0][key] if learned else None
        for metric, length in itertools.product(("answer", "haystack"), LENGTHS):
            row[f"{metric}_{length}"] = spread([cell[metric][str(length)] for cell in learned])
        row["left_after_1024_bytes_of_noise"] = [c.get("left_after_1024_bytes_of_noise") for c in learned]
        row["seconds_training"] = spread([cell["seconds_training"] for cell in learned])
        rows.append(row)
    return rows


def spread(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "spread": deviation, "all": values}


def table(rows: list[dict[str, Any]], metric: str) -> list[str]:
    lines = ["| condition | seeds | parameters | " + " | ".join(f"{n // 1024}K" for n in LENGTHS) + " |"]
    lines.append("|---" * (3 + len(LENGTHS)) + "|")
    body = []
    for row in rows:
        cells = []
        for found in (row[f"{metric}_{length}"] for length in LENGTHS):
            plus = f" ± {found['spread']:.2f}" if found and found["spread"] is not None else ""
            cells.append(f"{found['mean']:.2f}{plus}" if found else "-")
        seeds = f"{len(row['seeds'])}" + (f", {len(row['diverged'])} diverged" if row["diverged"] else "")
        count = f"{row['parameters']:,}" if row["parameters"] else "-"
        body.append([row["arm"], seeds, count, *cells])
    return lines + [f"| {' | '.join(texts)} |" for texts in bold_columns(body, slice(3, None))]


def verdict(better: dict[str, Any] | None, worse: dict[str, Any] | None) -> str:
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


def claims(rows: list[dict[str, Any]]) -> list[str]:
    by_arm = {row["arm"]: row for row in rows}
    lengths = (LENGTHS[0], LENGTHS[2], LENGTHS[4], LENGTHS[6])
    lines = ["| claim | compared | " + " | ".join(f"{n // 1024}K" for n in lengths) + " |"]
    lines.append("|---" * (2 + len(lengths)) + "|")
    for claim, better, worse in CLAIMS:
        found = [verdict(by_arm[better][f"answer_{n}"], by_arm[worse][f"answer_{n}"]) for n in lengths]
        lines.append(f"| {claim} | {better} > {worse} | " + " | ".join(found) + " |")
    return lines


def write_page(rows: list[dict[str, Any]]) -> None:
    """Write the page below the marker; the text above it is written by hand."""
    left = "fraction of a write that is left after 1,024 bytes of noise, per head; seeds separated by semicolons"
    noise = [f"| condition | {left} |", "|---|---|"]
    for row in rows:
        shares = [s for s in row["left_after_1024_bytes_of_noise"] if s]
        if shares:
            noise.append(f"| {row['arm']} | " + "; ".join(", ".join(f"{x:.3f}" for x in s) for s in shares) + " |")
    over_seeds = "mean ± standard deviation over seeds"
    parts = [
        *(f"## Accuracy per query, {over_seeds} (chance 0.03)", "", "Bold: best of its column.", ""),
        *(*table(rows, "answer"), "", "![accuracy against length](needle.png)", ""),
        *(f"## Fraction of sequences with all four answers correct, {over_seeds}", "", *table(rows, "haystack")),
        *("", "## The paper's claims at this scale", ""),
        '"holds": every seed of the first condition is above every seed of the second. "the reverse": '
        "every seed is below. In\nparentheses: difference of the means.",
        *("", *claims(rows), "", "## Retention of a write over noise", "", *noise),
    ]
    by_hand = PAGE.read_text().partition(MARK_BELOW)[0] if PAGE.exists() else "# Needles in a haystack\n\n"
    PAGE.write_text(by_hand + MARK_BELOW + "\n" + "\n".join(parts) + "\n")


# Panels of the figure. Every arm has one name and one colour in all of them; the LMM is in all, to compare with.
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


def picture(rows: list[dict[str, Any]]) -> None:
    """Plot accuracy against length in a few panels; lines are means over seeds, shades their range."""
    by_arm = {row["arm"]: row for row in rows}
    figure = Figure(figsize=(11, 8), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    for panel, (title, arms) in zip(grid.flat, PANELS.items(), strict=True):
        for arm in arms:
            name, colour, marker = STYLES[arm]
            points = [by_arm[arm][f"answer_{n}"] for n in LENGTHS] if arm in by_arm else [None]
            if not all(points):
                panel.plot([], [], color=colour, marker=marker, label=f"{name}: no result")
                continue
            panel.plot(LENGTHS, [p["mean"] for p in points], color=colour, marker=marker, markersize=5, label=name)
            ends = [[end(p["all"]) for p in points] for end in (min, max)]
            panel.fill_between(LENGTHS, *ends, color=colour, alpha=0.1, linewidth=0)
        panel.axhline(CHANCE, color="grey", linestyle=":", label="chance")
        panel.set(title=title, xscale="log", xticks=LENGTHS, xticklabels=[f"{n // 1024}K" for n in LENGTHS])
        panel.set(ylim=(-0.03, 1.03))
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    for panel in grid[:, 0]:
        panel.set_ylabel("accuracy per query")
    for panel in grid[1]:
        panel.set_xlabel("length tested (bytes)")
    title = "Recall of key-value pairs, trained at up to 1,024 bytes; line: mean over seeds, shade: their range"
    figure.suptitle(title, fontsize=11)
    figure.savefig(PAGE.with_suffix(".png"), dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--report", action="store_true", help="write tables and figure from existing results; no training"
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--develop", type=Path, help="folder for results of seed 100, run alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.report:
        record("needle", rows := summary())
        write_page(rows)
        picture(rows)
        return
    develop = [Cell(arm, 100) for arm in options.arms] if options.develop else []
    missing = [cell for cell in grid() if cell.arm in options.arms and not cell.path().exists()]
    for cell in develop or missing:
        print(run(cell, options.develop or FOLDER), flush=True)


if __name__ == "__main__":
    main()
