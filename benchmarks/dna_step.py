"""Time of a training step of a DNA classifier on one CPU thread, with our RMSNorm and dropout and with torch's.

Forward, backward and optimiser for 64 sequences of 500 bases, the models of docs/genomic_benchmarks.md. The peer is the
same model with `torch.nn.RMSNorm` and `torch.nn.Dropout` instead of ours. Both alternate in one process; measured is
processor time.
"""

import statistics
import time

import torch
from record import record
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.experiment.registry import build_experiment
from titans_seq.nn.dropout import Dropout
from titans_seq.nn.norm import RMSNorm
from titans_seq.studies.suite import read_suite

SUITE = "configs/genomics/genomic_benchmarks_within_suite.yaml"
BATCH, LENGTH, ROUNDS = 64, 500, 9
KINDS = {"ours": (RMSNorm, Dropout), "torch": (nn.RMSNorm, nn.Dropout)}


def seconds(kind: str, model: nn.Module, optimiser: torch.optim.Optimizer, bases: Tensor, labels: Tensor) -> float:
    norm, dropout = KINDS[kind]
    for module in model.modules():  # weights and all other attributes are unchanged
        if isinstance(module, nn.RMSNorm):
            module.__class__ = norm
        elif isinstance(module, nn.Dropout):
            module.__class__ = dropout
    start = time.process_time()
    optimiser.zero_grad()
    F.cross_entropy(model(bases), labels).backward()
    optimiser.step()
    return time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    bases, labels = torch.randint(0, 4, (BATCH, LENGTH)), torch.randint(0, 2, (BATCH,))
    figures = []
    for cell in read_suite(SUITE).select(["fold=0", "set=cohn"]):
        name, model = cell.labels["model"], build_experiment(cell.load_config()).new_task().model.train()
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
        rounds = [{kind: seconds(kind, model, optimiser, bases, labels) for kind in KINDS} for _ in range(ROUNDS + 1)]
        rounds = rounds[1:]  # the first is the warm-up
        ratio = round(statistics.median(each["ours"] / each["torch"] for each in rounds), 3)
        steps = {kind: round(statistics.median(each[kind] for each in rounds), 3) for kind in KINDS}
        figures.append({"model": name, "seconds_a_step": steps, "ours_over_torch": ratio})
        print(f"{name}: {steps} s a step; {ratio} times torch's", flush=True)
    record("dna_step", figures)


if __name__ == "__main__":
    main()
