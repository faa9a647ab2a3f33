"""Training on short haystacks: first at the shortest length, where recall is learned, then at growing lengths."""

import statistics
import time
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from haystack.far import ask_from_afar
from haystack.hiding import HAYSTACKS, Sample
from haystack.models import Model, memories


class Budget(NamedTuple):
    """What a training may use."""

    steps: int = 6000
    tokens: int = 4096  # per batch, with at least `fewest` rows
    fewest: int = 8
    learning_rate: float = 6e-3
    warmup: int = 50
    longest: int = 1024  # training length at the end
    ramp: tuple[float, float] = (0.55, 0.88)  # fractions of the steps between which the length grows
    far: int = 0  # after the ramp: bytes of noise before the questions that are read without a gradient
    penalty: float = 0.0  # from the ramp on: weight in the loss of the mean of all learning rates and forget gates


BUDGETS = {"plain": Budget(), "far": Budget(far=8192), "penalty": Budget(penalty=0.03)}


def length_at(progress: float, budget: Budget, shortest: int) -> int:
    """Return the training length at a fraction of the steps: the shortest, then geometric growth to the longest."""
    share = (progress - budget.ramp[0]) / (budget.ramp[1] - budget.ramp[0])
    return int(shortest * (budget.longest / shortest) ** min(1.0, max(0.0, share))) // 16 * 16


def train(model: Model, haystack: str, seed: int, budget: Budget) -> dict[str, Any]:
    """Train a model and return its losses; a loss that is not finite ends the training."""
    start = time.process_time()
    matrices, vectors = ([p for p in model.parameters() if (p.ndim > 1) == wanted] for wanted in (True, False))
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=budget.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / budget.warmup) * min(1, 2 * (1 - step / budget.steps))
    )
    generator = torch.Generator().manual_seed(1000 + seed)  # same data for every arm
    losses: list[float] = []
    for step in range(budget.steps):
        loss = _loss(model, haystack, step / budget.steps, budget, generator)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if not losses[-1] < float("inf"):
            return {"diverged_at_step": step, "seconds_training": round(time.process_time() - start, 1)}
    tenth = max(1, budget.steps // 10)
    return {
        "loss_by_tenths": [round(statistics.mean(losses[i : i + tenth]), 4) for i in range(0, budget.steps, tenth)],
        "seconds_training": round(time.process_time() - start, 1),
    }


def _loss(model: Model, haystack: str, progress: float, budget: Budget, generator: torch.Generator) -> Tensor:
    hay = HAYSTACKS[haystack]
    length = length_at(progress, budget, hay.shortest)
    batch = max(budget.fewest, budget.tokens // length)
    sample: Sample = hay.sample(batch, length, generator, True)
    gates = OpenGates(model) if budget.penalty and progress >= budget.ramp[0] else None
    if budget.far and progress >= budget.ramp[1]:
        logits = ask_from_afar(model, sample, hay.noise(batch, budget.far, generator, True))
    else:
        logits, _ = model(sample.tokens, sample.at)
    loss = F.cross_entropy(logits.flatten(0, -2), sample.answers.flatten())
    return loss if gates is None else loss + budget.penalty * gates.mean()


class OpenGates:
    """Learning rates and forget gates of the forward passes until `mean` is called."""

    def __init__(self, model: Model) -> None:
        self.values: list[Tensor] = []
        self.hooks = [memory.register_forward_pre_hook(self._keep) for memory in memories(model)]

    def _keep(self, memory: Any, inputs: tuple[Any, ...]) -> None:
        lr, _, forget = memory._gate(inputs[0])
        self.values += [lr.mean(), forget.mean()]

    def mean(self) -> Tensor:
        """Return the sum of the mean gates, and stop watching."""
        for hook in self.hooks:
            hook.remove()
        return torch.stack(self.values).sum()
