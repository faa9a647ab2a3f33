"""Choice of the memory layer's initial gates: long-range recall of key-value pairs by a small trained model.

Four key-value pairs, then filler; a key among the filler queries its value. Trained with up to 512 tokens of filler
(the maximum grows from 32 over the first half), tested with 100 to 2,000, each continued from the state there. One
block of NeuralMemory and feed-forward layer, two heads of 16 features. Chance is 1/16; knowing which four values were
written, but not which key each belongs to, gives 1/4. In the task `rewrite` two of the four pairs are later overwritten
with a new value, and the latest value is queried: a check that long retention does not harm overwriting.

Every training writes one JSON to `results/recall/` and is skipped if it exists; `--report` makes `results/recall.json`
and the tables from existing results. The gates' biases are set here, so that only the arm "fresh", the layer with its
defaults, depends on the layer's initialisation. A gate "a-b" is log-spaced over the heads.

    python benchmarks/recall.py             # resumes: skips finished runs
    python benchmarks/recall.py --report
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from record import RESULTS, record
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.nn import NeuralMemory
from titans_seq.nn.feedforward import FeedForward

FOLDER = RESULTS / "recall"
PAIRS, FILLER, KEYS, VALUES = 4, 32, 16, 16  # pairs in a sequence; vocabularies, in the order of their tokens
LONGEST, DISTANCES, TEST_SEQUENCES, QUERIES = 512, (100, 250, 500, 1000, 2000), 512, 16
STEPS, BATCH, LEARNING_RATE, WARMUP, HEADS, HEAD_DIM = 500, 32, 3e-3, 50, 2, 16

BUDGET = {"steps": STEPS, "batch": BATCH, "learning_rate": LEARNING_RATE, "heads": HEADS, "head_dim": HEAD_DIM}

MEMORIES: dict[str, dict[str, Any]] = {  # options of NeuralMemory
    "matrix": {"forget_to": "zero"},
    "matrix, chunk 64": {"chunk_size": 64, "forget_to": "zero"},
    "online": {"gradient": "online", "forget_to": "zero"},
    "two layers to zero": {"depth": 2, "expansion": 2, "forget_to": "zero"},
    "two layers to initial": {"depth": 2, "expansion": 2, "forget_to": "initial"},
    "two layers to zero, chunk 4": {"depth": 2, "expansion": 2, "forget_to": "zero", "chunk_size": 4},
    "residual to zero": {"depth": 2, "expansion": 2, "forget_to": "zero", "residual": True},
    "residual to initial": {"depth": 2, "expansion": 2, "forget_to": "initial", "residual": True},
}


class Cell(NamedTuple):
    """One training run. A gate is a number, a range "a-b" over the heads, or "fresh" (all three): the defaults."""

    memory: str
    lr: str
    momentum: str
    forget: str
    seed: int = 0
    task: str = "recall"

    def path(self) -> Path:
        """Path of the result."""
        gates = f"lr{self.lr}_momentum{self.momentum}_forget{self.forget}"
        memory = self.memory.replace(",", "").replace(" ", "-")
        return FOLDER / f"{self.task}_{memory}_{gates}_seed{self.seed}.json"


def grid() -> Iterator[Cell]:
    """Yield all runs in the order in which they were planned; first the matrix memory's lr and forget gates."""
    for lr, forget in itertools.product((".02", ".05", ".2", ".5"), (".0005", ".005", ".02")):
        yield Cell("matrix", lr, ".5", forget)
    for lr, momentum, forget in (
        (".05", ".5", ".002"),
        (".1", ".5", ".002"),
        (".05", "0", ".002"),
        (".1", "0", ".002"),
        (".02", ".9", ".002"),
        (".05", ".9", ".002"),
        (".05", ".5", ".0005-.005"),  # heads with different time scales
        (".05", ".5", ".0005-.02"),
        (".02-.2", ".5", ".002"),
        (".05-.5", ".5", ".002"),
        (".03", "0", ".002"),  # bounded on identical tokens, as is the next: lr * chunk size is half of 1 - momentum
        (".003", ".9", ".002"),
    ):
        yield Cell("matrix", lr, momentum, forget)
    for lr, forget in ((".05", ".0005"), (".05", ".005"), (".2", ".002"), (".5", ".002")):
        yield Cell("online", lr, ".5", forget)
    for lr in (".05", ".004"):
        yield Cell("matrix, chunk 64", lr, ".5", ".002")
    for lr, forget in ((".015", ".0005"), (".015", ".005"), (".05", ".005")):
        yield Cell("matrix", lr, ".5", forget, task="rewrite")
    for forget, to in itertools.product((".002", ".005", ".02"), ("zero", "initial")):
        yield Cell(f"two layers to {to}", ".05", ".5", forget)
    for seed in (0, 1, 2):
        for lr, forget in ((".015", ".0005"), (".015", ".002"), (".015", ".005"), (".05", ".005")):
            yield Cell("matrix", lr, ".5", forget, seed)
        for lr, to in itertools.product((".0075", ".02"), ("zero", "initial")):
            yield Cell(f"two layers to {to}", lr, ".5", ".002", seed)
    for memory in ("two layers to zero, chunk 4", "residual to zero", "residual to initial"):
        yield Cell(memory, ".02", ".5", ".002", 1)  # a seed at which the plain two-layer memory diverged
    for seed in (0, 1, 2):
        yield Cell("matrix", "fresh", "fresh", "fresh", seed)


def interleave(keys: Tensor, values: Tensor) -> Tensor:
    """Interleave pairs as tokens (B, 2 P): key, value, key, value."""
    return torch.stack([keys + FILLER, values + FILLER + KEYS], dim=-1).flatten(1)


class Sequences:
    """Batch of key-value pairs whose token pieces are drawn one after the other."""

    def __init__(self, batch: int, generator: torch.Generator) -> None:
        self.batch, self.generator = batch, generator
        self.keys_BP = torch.rand(batch, KEYS, generator=generator).argsort(dim=1)[:, :PAIRS]
        self.values_BP = self.draw(VALUES, PAIRS)

    def draw(self, high: int, count: int) -> Tensor:
        """Draw integers below `high`, (B, count)."""
        return torch.randint(high, (self.batch, count), generator=self.generator)

    def write(self) -> Tensor:
        """Return all pairs as tokens."""
        return interleave(self.keys_BP, self.values_BP)

    def rewrite(self) -> Tensor:
        """Return every other pair again as tokens, with a new value."""
        self.values_BP[:, 1::2] = self.draw(VALUES, PAIRS // 2)
        return interleave(self.keys_BP[:, 1::2], self.values_BP[:, 1::2])

    def ask(self, length: int) -> tuple[Tensor, Tensor]:
        """Draw filler with queries, and targets (B, length), -100 except at queries; the last token is a query."""
        tokens, targets = self.draw(FILLER, length), torch.full((self.batch, length), -100)
        where = length - 1 - 2 * torch.randperm((length + 1) // 2, generator=self.generator)[:QUERIES]
        where[0] = length - 1
        queried = self.draw(PAIRS, len(where))
        tokens[:, where] = self.keys_BP.gather(1, queried) + FILLER
        targets[:, where] = self.values_BP.gather(1, queried)
        return tokens, targets


def sample(task: str, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a training batch: tokens and targets."""
    sequences = Sequences(BATCH, generator)
    pieces = [sequences.write()]
    if task == "rewrite":
        gap = length // 3
        pieces += [sequences.draw(FILLER, gap), sequences.rewrite()]
        length -= gap
    tokens, targets = sequences.ask(length)
    pieces.append(tokens)
    return torch.cat(pieces, dim=1), F.pad(targets, (sum(p.shape[1] for p in pieces[:-1]), 0), value=-100)


def gate(text: str) -> Tensor:
    """Return the gate's value for each head."""
    low, high = (float(x) for x in (text.split("-") * 2)[:2])
    return torch.full((HEADS,), low) if low == high else low * (high / low) ** torch.linspace(0, 1, HEADS)


class Model(nn.Module):
    """Recall model: embedding, one pre-norm residual block of memory and feed-forward layer, norm, linear head."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        dim = HEADS * HEAD_DIM
        self.embedding = nn.Embedding(FILLER + KEYS + VALUES, dim)
        self.memory = NeuralMemory(dim, HEADS, **MEMORIES[cell.memory])
        if cell.lr != "fresh":
            gates = [gate(text) for text in (cell.lr, cell.momentum, cell.forget)]
            self.memory.gates.bias.data = torch.cat(gates).logit(eps=1e-6)
        self.ffn = FeedForward(dim, 2)
        self.norms = nn.ModuleList(nn.RMSNorm(dim, eps=1e-6) for _ in range(3))
        self.head = nn.Linear(dim, VALUES)

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Map tokens (B, T) to logits (B, T, VALUES) and the memory's state."""
        x = self.embedding(tokens)
        y, state = self.memory(self.norms[0](x), state)
        x = x + y
        x = x + self.ffn(self.norms[1](x))
        return self.head(self.norms[2](x)), state


def train(cell: Cell) -> dict[str, Any]:
    start, cpu = time.perf_counter(), time.process_time()
    torch.manual_seed(cell.seed)
    model = Model(cell)
    matrices, vectors = ([p for p in model.parameters() if (p.ndim > 1) == wanted] for wanted in (True, False))
    optimizer = torch.optim.AdamW([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / WARMUP) * min(1, 2 * (1 - step / STEPS))
    )
    generator = torch.Generator().manual_seed(1000 + cell.seed)  # same data for every arm
    gates = [round(x, 5) for x in model.memory.gates.bias.sigmoid().tolist()]
    losses = []
    for step in range(STEPS):
        longest = round(32 + (LONGEST - 32) * min(1, 2 * step / STEPS))
        tokens, targets = sample(cell.task, int(torch.randint(16, longest + 1, (), generator=generator)), generator)
        loss = F.cross_entropy(model(tokens)[0].flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if not losses[-1] < float("inf"):
            return {"gates_at_start": gates, "diverged_at_step": step}
    tenth = STEPS // 10
    curve = [round(statistics.mean(losses[i : i + tenth]), 4) for i in range(0, STEPS, tenth)]
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    return {
        "gates_at_start": gates,
        **test(model, cell),
        "loss_by_tenths": curve,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
    }


@torch.no_grad()
def test(model: Model, cell: Cell) -> dict[str, Any]:
    """Return the accuracy at each distance, and the trained gates at filler and at written values."""
    generator = torch.Generator().manual_seed(2000 + cell.seed)
    sequences = Sequences(TEST_SEQUENCES, generator)
    gates: list[Tensor] = []
    hook = model.memory.gates.register_forward_hook(lambda _module, _inputs, out: gates.append(out.sigmoid()))
    _, state = model(sequences.write())
    if cell.task == "rewrite":
        _, state = model(sequences.draw(FILLER, 100), state)
        _, state = model(sequences.rewrite(), state)
    found: dict[str, Any] = {"accuracy": {}, "gates": {}}
    _, state = model(sequences.draw(FILLER, 64), state)
    for name, out in (("value", gates[0][:, 1::2]), ("filler", gates[-1])):
        found["gates"][name] = [[round(x, 5) for x in row] for row in out.mean((0, 1)).view(3, HEADS).tolist()]
    hook.remove()
    passed = 64
    for distance in DISTANCES:
        _, state = model(sequences.draw(FILLER, distance - passed), state)
        asked = [model(key.unsqueeze(1) + FILLER, state)[0].argmax(-1)[:, 0] for key in sequences.keys_BP.unbind(1)]
        right_P = (torch.stack(asked, dim=1) == sequences.values_BP).double().mean(0)
        found["accuracy"][distance] = round(right_P.mean().item(), 4)
        passed = distance
    return found


def summary() -> list[dict[str, Any]]:
    """Return each arm's accuracy over its seeds at every distance; a diverged training counts as zero."""
    cells = [cell for cell in dict.fromkeys(grid()) if cell.path().exists()]
    cells.sort(key=lambda c: (c.task, list(MEMORIES).index(c.memory)))  # a stable sort: otherwise in the grid's order
    arms: dict[Cell, list[dict[str, Any]]] = {}
    for cell in cells:
        arms.setdefault(cell._replace(seed=-1), []).append(json.loads(cell.path().read_text())["figures"])
    rows = []
    for arm, found in arms.items():
        learned = [f for f in found if "accuracy" in f]
        row: dict[str, Any] = {name: value for name, value in arm._asdict().items() if name != "seed"}
        row["seeds"] = [f["seed"] for f in found]
        row["diverged"] = [f["seed"] for f in found if f not in learned]
        if arm.lr == "fresh":
            row["gates_at_start"] = found[0]["gates_at_start"]  # lr, momentum, forget; each head's
        for distance in DISTANCES:
            values = [f["accuracy"][str(distance)] for f in learned]
            mean = round(statistics.mean(values), 4) if values else None
            row[f"accuracy_{distance}"] = {"mean": mean, "all": values}
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Format one line per arm: mean accuracy, with minimum and maximum if there are several seeds."""
    names = ["task", "memory", "lr", "momentum", "forget"]
    heads = [*names, "seeds", "diverged", *map(str, DISTANCES)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [*(row[name] for name in names), str(len(row["seeds"])), str(len(row["diverged"]))]
        for distance in DISTANCES:
            mean, values = row[f"accuracy_{distance}"].values()
            spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
            cells.append(f"{mean:.2f}{spread}" if values else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="write the table from existing results; no training")
    if parser.parse_args().report:
        record("recall", rows := summary())
        print(table(rows))
        return
    torch.set_num_threads(1)
    for cell in dict.fromkeys(grid()):
        if not cell.path().exists():
            figures = train(cell)
            record(cell.path().stem, {**cell._asdict(), **figures, "budget": BUDGET}, FOLDER)
            print(cell, figures.get("accuracy", "diverged"), flush=True)


if __name__ == "__main__":
    main()
