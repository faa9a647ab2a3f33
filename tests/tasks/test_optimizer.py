"""Optimisers and schedules: the updates of torch's own, and learning rates at given steps."""

from math import cos, pi
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Muon

from tests.helpers import SMALL_MODEL, Refuse
from titans_seq.config import load_config, to_container
from titans_seq.errors import InputError
from titans_seq.schema import TaskOptions
from titans_seq.tasks import ForecastingTask
from titans_seq.tasks.optimizer import build_optimizer, rate


class TwoParts(nn.Module):
    """A matrix of a backbone, and a head with a matrix and a bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Linear(4, 6, bias=False)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x))  # type: ignore[no-any-return]


def trained(module: nn.Module, *optimizers: torch.optim.Optimizer, steps: int = 3) -> list[torch.Tensor]:
    """The parameters after some steps on the same input."""
    x = torch.linspace(-1, 1, 20).view(5, 4)
    for _ in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        module(x).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
    return [parameter.detach().clone() for parameter in module.parameters()]


def options(**values: Any) -> TaskOptions:
    return TaskOptions(learning_rate=0.05, weight_decay=0.1, **values)


def test_adamw_and_sgd_are_those_of_torch() -> None:
    for name, kind, keywords in (
        ("adamw", AdamW, {"betas": (0.8, 0.99)}),
        ("sgd", SGD, {"momentum": 0.7}),
    ):
        ours, theirs = TwoParts(), TwoParts()
        chosen = options(optimizer=name, **({"betas": [0.8, 0.99]} if name == "adamw" else {"momentum": 0.7}))
        matrices = {"params": [theirs.backbone.weight, theirs.head.weight], "weight_decay": 0.1}
        reference = kind([matrices, {"params": [theirs.head.bias], "weight_decay": 0.0}], lr=0.05, **keywords)
        optimizer = build_optimizer(ours, chosen, lambda _: 1.0)
        assert type(optimizer) is kind
        for one, other in zip(trained(ours, optimizer), trained(theirs, reference), strict=True):
            assert torch.equal(one, other)


def muon_pair() -> tuple[TwoParts, tuple[torch.optim.Optimizer, torch.optim.Optimizer]]:
    """A module, and Muon and AdamW of torch on its parts."""
    module = TwoParts()
    muon = Muon([module.backbone.weight], lr=0.05, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    head = [
        {"params": [module.head.weight], "weight_decay": 0.1},
        {"params": [module.head.bias], "weight_decay": 0.0},
    ]
    return module, (muon, AdamW(head, lr=0.05))


def test_muon_updates_the_matrices_of_the_backbone_and_adamw_the_rest() -> None:
    ours, (theirs, reference) = TwoParts(), muon_pair()
    optimizer = build_optimizer(ours, options(optimizer="muon", momentum=0.9), lambda _: 1.0)
    for one, other in zip(trained(ours, optimizer), trained(theirs, *reference), strict=True):
        assert torch.equal(one, other)


def test_a_restored_muon_continues_exactly() -> None:
    chosen, whole = options(optimizer="muon"), TwoParts()
    expected = trained(whole, build_optimizer(whole, chosen, lambda _: 1.0), steps=6)
    first = TwoParts()
    optimizer = build_optimizer(first, chosen, lambda _: 1.0)
    trained(first, optimizer)
    second = TwoParts()
    second.load_state_dict(first.state_dict())
    restored = build_optimizer(second, chosen, lambda _: 1.0)
    restored.load_state_dict(optimizer.state_dict())
    for group in restored.param_groups:
        group["lr"] *= 1  # what a schedule changes is read from the outer groups
    for one, other in zip(trained(second, restored), expected, strict=True):
        assert torch.equal(one, other)
    for group in restored.param_groups:
        group["lr"] = 0.0
    before = [parameter.detach().clone() for parameter in second.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(trained(second, restored), before, strict=True))


def test_muon_without_a_backbone_is_an_error(refuse: Refuse) -> None:
    with pytest.raises(InputError, match="no matrices in a backbone"):
        build_optimizer(nn.Linear(2, 2), options(optimizer="muon"), lambda _: 1.0)
    line = refuse("fit", "forecasting/synthetic", "task.optimizer=muon", "model.baseline=linear")
    assert "task.optimizer: muon updates the matrices of a backbone, which model.baseline=linear replaces" in line


def test_every_forecaster_has_matrices_for_muon() -> None:
    task = ForecastingTask(to_container(load_config([], [*SMALL_MODEL, "task.optimizer=muon"])), num_channels=2)
    optimizer = build_optimizer(task.model, task.config.task, lambda _: 1.0)
    names = {id(p): name for name, p in task.model.named_parameters()}
    matrices = [names[id(p)] for group in optimizer.param_groups if "momentum" in group for p in group["params"]]
    assert matrices
    assert all(name.startswith("backbone.") for name in matrices)
    assert len(names) == sum(len(group["params"]) for group in optimizer.param_groups)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1 / 3, 2 / 3, 1, 1, 1, 1]),
        ("cosine", [1 / 3, 2 / 3, 1, 0.5 * (1 + cos(pi * 0.25)), 0.5, 0]),
        ("linear", [1 / 3, 2 / 3, 1, 0.75, 0.5, 0]),
        ("wsd", [1 / 3, 2 / 3, 1, 1, 1, 0]),
    ],
)
def test_learning_rates(schedule: Any, expected: list[float]) -> None:
    chosen = options(warmup_steps=2, schedule=schedule, decay_fraction=0.5 if schedule == "wsd" else 0.2)
    found = [rate(chosen, step, 10) for step in (0, 1, 2, 4, 6, 10)]
    assert found == pytest.approx(expected, abs=1e-12)
    if schedule == "wsd":
        assert rate(chosen, 8, 10) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.betas=[0.9]"], "task.betas: must be two numbers from 0 to below 1; got [0.9]"),
        (["task.betas=[0.9,1.0]"], "task.betas: must be two numbers"),
        (["task.optimizer=sgd", "task.betas=[0.8,0.9]"], "task.betas: has no effect with task.optimizer=sgd"),
        (["task.momentum=0.8"], "task.momentum: only applies to task.optimizer=muon or sgd"),
        (["task.optimizer=sgd", "task.momentum=1"], "task.momentum: 1 would never forget"),
        (["task.decay_fraction=0.5"], "task.decay_fraction: only applies to task.schedule=wsd"),
        (["task.schedule=wsd", "task.decay_fraction=0"], "task.decay_fraction: 0 would not decay"),
    ],
)
def test_keys_without_effect_are_errors(refuse: Refuse, overrides: list[str], message: str) -> None:
    assert message in refuse("fit", "forecasting/synthetic", *overrides)
