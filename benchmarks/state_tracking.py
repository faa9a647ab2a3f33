"""State tracking and recall at small scale: which memory rule learns what (Titans, arXiv 2501.00663, Theorem 4.1).

Tasks: parity, the word problems of S3 and S5 (the running product, queried at every token) and multi-query associative
recall (MQAR). One or two layers, trained at lengths up to 64, tested to 512, three seeds. One budget for all arms, set
on seed 100 (arms tried there: online, no_momentum, chunk16 on parity; online on S3 and MQAR). Every (task, arm, layers,
seed) writes one JSON to `results/state_tracking/` and is skipped if it exists; `--report` makes from existing results
`results/state_tracking.json`, `docs/state_tracking.png` and the tables at the end of `docs/state_tracking.md`.

    python benchmarks/state_tracking.py --workers 2     # resumes: skips finished runs
    python benchmarks/state_tracking.py --report

Arms (a matrix memory, gradient="online", unless stated otherwise):
    online          gradients at every token's own weights (eq 14)
    chunk16         gradients at the start of a chunk of 16 tokens (eq 16); this is also the arm "depth 1"
    attention       causal softmax attention within the memory layer: same projections, convolution, output gate
    depth2          as chunk16, with a memory of two layers (expansion 2): online gradients are for matrices only
    *_fresh         the same with NeuralMemory's initial gates of that time, lr 0.05 for all heads: 0.9 is a large start
    no_momentum, no_forgetting, delta   the momentum gate, the forget gate, or both held at 0
    chunk1          chunk_size=1, the same rule as online: a check on both, about three times slower, so it runs last
"""

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from bold import bold_columns
from matplotlib.figure import Figure
from record import RESULTS, record
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.nn import NeuralMemory
from titans_seq.nn.conv import CausalConv
from titans_seq.nn.feedforward import FeedForward

FOLDER = RESULTS / "state_tracking"
PAGE = Path(__file__).parent.parent / "docs" / "state_tracking.md"
MARK = "<!-- below: written by benchmarks/state_tracking.py --report -->\n"
SEEDS, LAYERS = (0, 1, 2), (1, 2)
LENGTHS, TEST_SEQUENCES = (64, 128, 256, 512), 1024  # the first length is the longest trained on
STEPS, BATCH, LEARNING_RATE, WARMUP, DIM, HEADS = 1500, 64, 3e-3, 100, 32, 2  # for every training
# Initial lr gates by head, for all memory arms: 0.05 for one head; a sign flip needs 1, which training did not reach
# from 0.5 within this budget.
FRESH_LR = (0.05, 0.9)
PAIRS, KEYS, VALUES = 8, 32, 32  # MQAR: pairs in a sequence, vocabularies
CLASSES = {"parity": 2, "S3": 6, "S5": 120, "MQAR": VALUES}  # number of classes per task

ARMS: dict[str, dict[str, Any]] = {  # options of NeuralMemory
    "online": {"gradient": "online"},
    "online_fresh": {"gradient": "online"},
    "chunk16": {"chunk_size": 16},
    "chunk16_fresh": {"chunk_size": 16},
    "attention": {},
    "depth2": {"chunk_size": 16, "depth": 2, "expansion": 2},
    "depth2_fresh": {"chunk_size": 16, "depth": 2, "expansion": 2},
    "no_momentum": {"gradient": "online"},
    "no_forgetting": {"gradient": "online"},
    "delta": {"gradient": "online"},
    "chunk1": {"chunk_size": 1},
}


class Cell(NamedTuple):
    """One training."""

    task: str
    arm: str
    layers: int
    seed: int

    def path(self) -> Path:
        """Path of the result."""
        return FOLDER / ("_".join(map(str, self)) + ".json")


def product_table(n: int) -> Tensor:
    """Return the multiplication table of S_n, elements in lexicographic order, so that 0 is the identity."""
    elements = list(itertools.permutations(range(n)))
    index = {element: i for i, element in enumerate(elements)}
    return torch.tensor([[index[tuple(b[a[i]] for i in range(n))] for b in elements] for a in elements])


TABLES = {"parity": product_table(2), "S3": product_table(3), "S5": product_table(5)}  # S2 is parity


def sample(task: str, batch: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw tokens and targets (B, T); -100 except at queries. A prefix of a long sequence is a short sequence."""
    if task == "MQAR":
        return sample_recall(batch, length, generator)
    table = TABLES[task]
    words = torch.randint(len(table), (batch, length - 1), generator=generator)
    state, targets = torch.zeros(batch, dtype=torch.long), [torch.full((batch,), -100)]
    for word in words.unbind(1):
        state = table[state, word]
        targets.append(state)
    return F.pad(words + 1, (1, 0)), torch.stack(targets, dim=1)


def sample_recall(batch: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw key-value pairs, then a mixture of noise and queries: keys whose value is the target."""
    pairs = min(PAIRS, (length - 1) // 4)
    keys = torch.rand(batch, KEYS, generator=generator).argsort(1)[:, :pairs]
    values = torch.randint(VALUES, (batch, pairs), generator=generator)
    written = torch.stack([keys + 2, values + 2 + KEYS], dim=2).flatten(1)
    rest = length - 1 - 2 * pairs
    asked = torch.randint(pairs, (batch, rest), generator=generator)
    is_query = torch.rand(batch, rest, generator=generator) < 0.5
    ends = [n for n in (*LENGTHS, length) if 2 * pairs + 1 < n <= length]  # the last token of every prefix is a query
    is_query[:, [n - 2 - 2 * pairs for n in ends]] = True
    tokens = torch.cat([torch.zeros(batch, 1).long(), written, (keys.gather(1, asked) + 2).where(is_query, 1)], dim=1)
    nothing = torch.full((batch, 1 + 2 * pairs), -100)
    return tokens, torch.cat([nothing, values.gather(1, asked).where(is_query, -100)], dim=1)


class AttentionLayer(nn.Module):
    """Causal attention in place of the memory in a `NeuralMemory`; order only through the convolution, no positions."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.conv = CausalConv(3 * dim, 4)
        self.norm = nn.RMSNorm(dim // num_heads, eps=1e-6)
        self.out_gate = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """Map x (B, T, dim) to (B, T, dim)."""
        qkv, _ = self.conv(F.silu(self.qkv(x)), None)
        q, k, v = torch.unflatten(qkv, -1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        return self.out(self.norm(y).flatten(2) * F.silu(self.out_gate(x))), None


def make_mixer(arm: str) -> nn.Module:
    if arm == "attention":
        return AttentionLayer(DIM, HEADS)
    memory = NeuralMemory(DIM, HEADS, **ARMS[arm])
    lr = (0.05,) * HEADS if arm.endswith("_fresh") else FRESH_LR
    memory.gates.bias.data = torch.tensor([*lr, *[0.5] * HEADS, *[0.005] * HEADS]).logit()
    if arm in ("no_momentum", "delta"):
        hold_at_zero(memory, gate=1)
    if arm in ("no_forgetting", "delta"):
        hold_at_zero(memory, gate=2)
    return memory


def hold_at_zero(memory: NeuralMemory, gate: int) -> None:
    """Hold a gate (1 momentum, 2 forget) at zero: zero weights, a bias of -30 (1e-13), and no gradient for either."""
    rows = torch.arange(gate * HEADS, (gate + 1) * HEADS)
    memory.gates.weight.data[rows] = 0.0
    memory.gates.bias.data[rows] = -30.0
    for parameter in memory.gates.parameters():
        parameter.register_hook(lambda gradient: gradient.index_fill(0, rows, 0.0))


class Model(nn.Module):
    """Model: embedding, pre-norm residual blocks of a mixer and a feed-forward layer, norm, linear head."""

    def __init__(self, task: str, arm: str, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(2 + KEYS + VALUES if task == "MQAR" else 1 + CLASSES[task], DIM)
        self.mixers = nn.ModuleList(make_mixer(arm) for _ in range(layers))
        self.ffns = nn.ModuleList(FeedForward(DIM, 2) for _ in range(layers))
        self.norms = nn.ModuleList(nn.RMSNorm(DIM, eps=1e-6) for _ in range(2 * layers + 1))
        self.head = nn.Linear(DIM, CLASSES[task])

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, T) to logits (B, T, classes)."""
        x = self.embedding(tokens)
        for i, (mixer, ffn) in enumerate(zip(self.mixers, self.ffns, strict=True)):
            x = x + mixer(self.norms[2 * i](x))[0]
            x = x + ffn(self.norms[2 * i + 1](x))
        return self.head(self.norms[-1](x))


def train(cell: Cell) -> dict[str, Any]:
    start, shortest = time.perf_counter(), 12 if cell.task == "MQAR" else 4
    torch.manual_seed(cell.seed)
    model = Model(cell.task, cell.arm, cell.layers)
    matrices, vectors = ([p for p in model.parameters() if (p.ndim > 1) == wanted] for wanted in (True, False))
    optimizer = torch.optim.AdamW([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / WARMUP) * min(1, 2 * (1 - step / STEPS))
    )
    generator = torch.Generator().manual_seed(1000 + cell.seed)  # same data for every arm
    losses = []
    for step in range(STEPS):
        # Curriculum, the same for every arm: the longest length grows from 8 (MQAR 24) to 64 over the first half.
        longest = round(shortest * 2 + (LENGTHS[0] - shortest * 2) * min(1, 2 * step / STEPS))
        length = int(torch.randint(shortest, longest + 1, (), generator=generator))
        tokens, targets = sample(cell.task, BATCH, length, generator)
        loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if not losses[-1] < float("inf"):
            return {"diverged_at_step": step, "seconds": time.perf_counter() - start}
    tenth = STEPS // 10
    curve = [round(statistics.mean(losses[i : i + tenth]), 4) for i in range(0, STEPS, tenth)]
    return {**test(model, cell), "loss_by_tenths": curve, "seconds": time.perf_counter() - start}


@torch.no_grad()
def test(model: Model, cell: Cell) -> dict[str, Any]:
    """Return the accuracy at prefixes of 512 tokens: of all queries, of the last token, and of whole sequences."""
    generator = torch.Generator().manual_seed(2000 + cell.seed)
    gates, reads, right, asked = ([] for _ in range(4))
    for mixer in model.mixers:
        if isinstance(mixer, NeuralMemory):
            mixer.gates.register_forward_hook(lambda _module, _inputs, out: gates.append(out.sigmoid()))
            mixer.norm.register_forward_pre_hook(lambda _module, inputs: reads.append(inputs[0]))
    for _ in range(TEST_SEQUENCES // 128):
        tokens, targets = sample(cell.task, 128, LENGTHS[-1], generator)
        right.append(model(tokens).argmax(-1) == targets)
        asked.append(targets != -100)
    right_BT, asked_BT = torch.cat(right), torch.cat(asked)
    found: dict[str, Any] = {"token": {}, "last": {}, "sequence": {}}
    for length in LENGTHS:
        hits, where = right_BT[:, :length], asked_BT[:, :length]
        found["token"][length] = round((hits.sum() / where.sum()).item(), 4)
        found["last"][length] = round(hits[:, -1].float().mean().item(), 4)
        found["sequence"][length] = round((hits | ~where).all(1).float().mean().item(), 4)
    if gates:  # gates of the last batch
        values = torch.stack(gates[-cell.layers :]).unflatten(-1, (3, HEADS)).movedim(-2, 0).flatten(1)
        found["gates"] = {  # 5 %, median and 95 % over tokens, heads and layers
            name: [round(row[int(share * (len(row) - 1))].item(), 4) for share in (0.05, 0.5, 0.95)]
            for name, row in zip(("lr", "momentum", "forget"), values.sort(dim=1)[0], strict=True)
        }
        # Size of the memory read before its norm, at each length, for the head where it is largest; 3.4e38 is overflow.
        sizes = torch.stack(reads[-cell.layers :]).double().square().mean((1, 4)).sqrt().amax((0, 2)).float()
        found["read_size"] = {n: float(f"{sizes[n - 1].nan_to_num(3.4e38, 3.4e38).item():.3g}") for n in LENGTHS}
    return found


def run(cell: Cell, folder: Path = FOLDER) -> str:
    torch.set_num_threads(1)
    budget = {"steps": STEPS, "batch": BATCH, "learning_rate": LEARNING_RATE, "dim": DIM, "heads": HEADS}
    figures = train(cell)
    record(cell.path().stem, {**cell._asdict(), **figures, "budget": budget}, folder)
    return f"{cell} {figures.get('token', 'diverged')} {figures['seconds']:.0f} s"


def grid() -> Iterator[Cell]:
    """Yield all runs: one layer first, and of it seed 0, so that a stopped grid covers all arms evenly.

    The check (chunk1) comes after the arms; arms with other initial gates and the delta rule, for two layers, are last.
    """
    for rank, layers, seed, arm, task in itertools.product(range(3), LAYERS, SEEDS, ARMS, CLASSES):
        if rank == (2 if arm == "delta" or arm.endswith("_fresh") else arm == "chunk1"):
            yield Cell(task, arm, layers, seed)


def summary() -> list[dict[str, Any]]:
    """Return mean, spread (standard deviation) and values over the seeds of every arm with a result."""
    found = {c: json.loads(c.path().read_text())["figures"] for c in grid() if c.path().exists()}
    rows = []
    for layers, task, arm in itertools.product(LAYERS, CLASSES, ARMS):
        cells = [found[c] for seed in SEEDS if (c := Cell(task, arm, layers, seed)) in found]
        learned = [c for c in cells if "token" in c]
        row: dict[str, Any] = {"layers": layers, "task": task, "arm": arm, "chance": 1 / CLASSES[task]}
        row |= {"seeds": [c["seed"] for c in cells], "diverged": [c["seed"] for c in cells if c not in learned]}
        for metric, length in itertools.product(("token", "last", "sequence", "read_size"), LENGTHS):
            if values := [c[metric][str(length)] for c in learned if metric in c]:
                spread = statistics.stdev(values) if len(values) > 1 else None
                row[f"{metric}_{length}"] = {"mean": statistics.mean(values), "spread": spread, "all": values}
        rows.append(row)
    return rows


def tables(rows: list[dict[str, Any]]) -> str:
    """Format one table per task and number of layers; for two layers only the arms that ran."""
    rows = [row for row in rows if row["seeds"] or row["layers"] == 1]
    columns = [*(f"token_{n}" for n in LENGTHS), "last_64", "last_512"]
    heads = ["condition", "seeds", *(f"to {n}" for n in LENGTHS), "64th token", "512th token", "largest read at 512"]
    lines = ["", "Bold: best of its column."]
    for (layers, task), group in itertools.groupby(rows, key=lambda row: (row["layers"], row["task"])):
        lines += ["", f"### {task}, layers: {layers}, chance {1 / CLASSES[task]:.3f}", ""]
        lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        body = []
        for row in group:
            seeds = ", ".join(map(str, row["seeds"])) + (f" (diverged: {row['diverged']})" if row["diverged"] else "")
            cells = [row["arm"], seeds or "missing"]
            for found in (row.get(column) for column in columns):
                spread = f" ± {found['spread']:.3f}" if found and found["spread"] is not None else ""
                cells.append(f"{found['mean']:.3f}{spread}" if found else "-")
            cells.append(f"{max(row['read_size_512']['all']):.0e}" if "read_size_512" in row else "-")
            body.append(cells)
        lines += [f"| {' | '.join(cells)} |" for cells in bold_columns(body, slice(2, -1))]
    return "\n".join(lines) + "\n"


NAMES = {  # of the arms in the figure
    "online": "online gradients",
    "online_fresh": "online gradients, default lr gates",
    "chunk16": "gradients by chunk of 16",
    "chunk16_fresh": "gradients by chunk of 16, default lr gates",
    "attention": "full attention",
    "depth2": "memory of two layers",
    "depth2_fresh": "memory of two layers, default lr gates",
    "no_momentum": "online, no momentum",
    "no_forgetting": "online, no forgetting",
    "delta": "online, neither (delta rule)",
    "chunk1": "gradients by chunk of 1 (check)",
}


def picture(rows: list[dict[str, Any]]) -> None:
    """Draw a table of accuracies per task, arms by lengths, one layer; the colour is the accuracy above chance.

    Many arms have nearly the same curve, which lines would hide; arms that diverged are named as such.
    """
    by_cell = {(row["task"], row["arm"]): row for row in rows if row["layers"] == 1}
    figure = Figure(figsize=(14, 5.2), layout="constrained")
    panels = figure.subplots(1, len(CLASSES), sharey=True)
    image = None
    for panel, task in zip(panels, CLASSES, strict=True):
        chance = 1 / CLASSES[task]
        cells = [[by_cell[task, arm].get(f"token_{n}") for n in LENGTHS] for arm in ARMS]
        means = [[found["mean"] if found else float("nan") for found in line] for line in cells]
        above = [[(mean - chance) / (1 - chance) for mean in line] for line in means]
        image = panel.imshow(above, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for y, arm in enumerate(ARMS):
            row = by_cell[task, arm]
            diverged, seeds = len(row["diverged"]), len(row["seeds"])
            text = {"ha": "center", "va": "center", "fontsize": 8}
            if diverged == seeds:
                words = "diverged on all seeds" if seeds else "not run"
                panel.text((len(LENGTHS) - 1) / 2, y, words, color="#D55E00", **text)
                continue
            for x, mean in enumerate(means[y]):
                mark = "*" * (diverged > 0)
                panel.text(x, y, f"{mean:.2f}{mark}", color="white" if above[y][x] > 0.5 else "black", **text)
        learned = max(value for line in above for value in line if not math.isnan(value)) > 0.05
        panel.set_title(f"{task} (chance {chance:.2f})" + ("" if learned else "\nnot learned by any"), fontsize=10)
        panel.set_xticks(range(len(LENGTHS)), [f"{n:,}" for n in LENGTHS])
        panel.set_yticks(range(len(ARMS)), list(NAMES.values()))
        panel.spines[:].set_visible(False)
    figure.supxlabel("length tested (tokens; trained up to 64)", fontsize=10)
    figure.colorbar(image, ax=panels, label="accuracy between chance (0) and all right (1)", pad=0.01)
    figure.suptitle(
        "Accuracy per token, one layer, mean over three seeds (*: without the seeds that diverged)", fontsize=11
    )
    figure.savefig(PAGE.with_suffix(".png"), dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--report", action="store_true", help="write tables and figure from existing results; no training"
    )
    parser.add_argument("--tasks", nargs="+", choices=CLASSES, default=list(CLASSES))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--develop", type=Path, help="folder for results of seed 100 and one layer, run alone")
    options = parser.parse_args()
    if options.report:
        record("state_tracking", rows := summary())
        picture(rows)
        PAGE.write_text(PAGE.read_text().partition(MARK)[0] + MARK + tables(rows))
        return
    if options.develop:
        for task, arm in itertools.product(options.tasks, options.arms):
            print(run(Cell(task, arm, 1, 100), options.develop), flush=True)
        return
    cells = [c for c in grid() if c.task in options.tasks and c.arm in options.arms and not c.path().exists()]
    print(f"{len(cells)} trainings", flush=True)
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(run, cell) for cell in cells]):
            print(done.result(), flush=True)


if __name__ == "__main__":
    main()
