"""The grid of trainings, and what each leaves: a JSON with its figures and, outside the repository, its weights."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from record import RESULTS, record

from haystack.models import ABLATIONS, Model, count, memories, options_of
from haystack.testing import CAPACITY_LENGTHS, LENGTHS, gates_on_noise, test, test_capacity
from haystack.training import BUDGETS, Budget, train

FOLDER = RESULTS / "needle"
WEIGHTS = Path("runs", "needle")  # below the folder the command is run in
SEEDS = (0, 1, 2)
SHORT_LENGTHS = LENGTHS[:7]


class Cell(NamedTuple):
    """One training, tested up to two million bytes."""

    arm: str
    gates: str  # "sigmoid" or "closing"
    hay: str  # a haystack of `hiding.HAYSTACKS`
    training: str  # a budget of `training.BUDGETS`
    seed: int

    def path(self) -> Path:
        """Path of the result."""
        return FOLDER / "long" / ("_".join(map(str, self)) + ".json")

    def budget(self) -> Budget:
        """Budget of the training."""
        return BUDGETS[self.training]

    def model(self) -> Model:
        """Return the model, not trained."""
        torch.manual_seed(self.seed)
        return Model(options_of(self.arm, self.gates, self.hay))

    def test(self, model: Model) -> dict[str, Any]:
        """Return the figures of the trained model."""
        if self.hay == "pairs":
            return test_capacity(model, self.seed, CAPACITY_LENGTHS)
        return test(model, self.hay, self.seed, LENGTHS)


class Ablation(NamedTuple):
    """One training of a quarter of the steps on random bytes, with sigmoid gates, tested up to 65,536 bytes."""

    arm: str
    seed: int
    hay = "bytes"

    def path(self) -> Path:
        """Path of the result."""
        return FOLDER / f"{self.arm}_{self.seed}.json"

    def budget(self) -> Budget:
        """Budget of the training; some arms have four times as many steps."""
        return Budget(steps=6000 if self.arm.endswith("_4x_steps") else 1500)

    def model(self) -> Model:
        """Return the model, not trained."""
        torch.manual_seed(self.seed)
        return Model(options_of(self.arm, "sigmoid", "bytes"))

    def test(self, model: Model) -> dict[str, Any]:
        """Return the figures of the trained model."""
        return test(model, "bytes", self.seed, SHORT_LENGTHS)


def run(cell: Cell | Ablation, folder: Path | None = None, weights: Path = WEIGHTS) -> dict[str, Any]:
    """Train and test a cell and write its JSON; a training that is already in `weights` is not repeated."""
    path = weights / f"{cell.path().stem}.pt"
    if path.exists():
        trained = torch.load(path)
    else:
        model = cell.model()
        trained = {"figures": train(model, cell.hay, cell.seed, cell.budget()), "weights": model.state_dict()}
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(trained, path.with_suffix(".partial"))
        path.with_suffix(".partial").replace(path)
    model = cell.model()
    model.load_state_dict(trained["weights"])
    figures = {**cell._asdict(), **trained["figures"]}
    if "diverged_at_step" not in figures:
        figures |= {"parameters": count(model), "parameters_of_backbone": count(model.backbone)}
        figures |= {"gates_on_noise": gates_on_noise(model, cell.hay, cell.seed)} if memories(model) else {}
        figures |= cell.test(model)
    figures["budget"] = cell.budget()._asdict()
    record(cell.path().stem, figures, folder or cell.path().parent)
    return figures


def grid() -> Iterator[Cell]:
    """Yield the trainings of the page, the most telling first, each with all seeds."""
    both = ("closing", "sigmoid")
    in_bytes = [("lmm_online", "closing"), ("mal", "closing"), ("lmm_online", "sigmoid"), ("lmm", "closing")]
    in_bytes += [("mag", "closing"), ("mac", "closing"), ("transformer", "sigmoid")]
    in_bytes += [(arm, "sigmoid") for arm in ("mal", "lmm", "mag", "mac")]
    found = [(arm, gates, "bytes") for arm, gates in in_bytes]
    for hay, arm in product(("text", "passkey"), ("lmm_online", "mal", "transformer")):
        found += [(arm, gates, hay) for gates in (both if arm != "transformer" else both[1:])]
    found += [(arm, "closing", "pairs") for arm in ("lmm_online", "lmm_online_one_head", "lmm", "deep")]
    for (arm, gates, hay), seed in product(found, SEEDS):
        yield Cell(arm, gates, hay, "plain", seed)
    for arm, training, seed in product(("lmm", "mal"), ("far", "penalty"), SEEDS):
        yield Cell(arm, "closing", "bytes", training, seed)


def ablations() -> Iterator[Ablation]:
    """Yield the ablations, seed by seed."""
    for seed, arm in product(SEEDS, ABLATIONS):
        yield Ablation(arm, seed)


def results(cell: Cell | Ablation) -> dict[str, Any] | None:
    """Return the figures of a finished cell."""
    return json.loads(cell.path().read_text())["figures"] if cell.path().exists() else None
