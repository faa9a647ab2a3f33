"""Configurations and helpers shared by the tests of pre-training and of transfer."""

from pathlib import Path

import torch
from torch import Tensor

from tests.helpers import CONFIGS

GENOMICS = CONFIGS / "genomics"
MOTIF, PRETRAIN = GENOMICS / "motif.yaml", GENOMICS / "pretrain.yaml"
SMALL = [
    *("model.dim=8", "model.num_layers=2", "model.memory.num_heads=2", "model.stem_width=5", "model.stride=2"),
    *("model.stem_pool=max", "model.memory.bound_lr=true"),
]
DDP = "several devices require trainer.strategy=ddp_find_unused_parameters_true"


def weights(folder: Path, name: str = "best") -> dict[str, Tensor]:
    """The model's weights in a checkpoint of the run `folder`."""
    content = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return {name.removeprefix("model."): x for name, x in content["state_dict"].items()}
