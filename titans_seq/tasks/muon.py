"""Muon for the matrices of a backbone and AdamW for everything else, as one optimiser."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import AdamW, Muon, Optimizer


class MuonWithAdamW(Optimizer):
    """`torch.optim.Muon` for matrices and `torch.optim.AdamW` for all other parameters.

    Muon updates matrices alone, and Lightning steps one optimiser: this one has the parameter groups and the state of
    both. Muon's updates are scaled to the size of AdamW's, so that one learning rate and weight decay fit both.

    Args:
        matrices: parameter groups of 2-D parameters, with `lr` and `weight_decay`.
        others: parameter groups for AdamW, likewise.
        momentum: of Muon (Nesterov).
        betas: of AdamW.
    """

    def __init__(
        self,
        matrices: list[dict[str, Any]],
        others: list[dict[str, Any]],
        *,
        momentum: float,
        betas: tuple[float, float],
    ) -> None:
        self._muon = Muon(matrices, momentum=momentum, adjust_lr_fn="match_rms_adamw")
        self._adamw = AdamW(others, betas=betas) if others else None
        groups = [*self._muon.param_groups, *(self._adamw.param_groups if self._adamw else [])]
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters; returns the value of `closure`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        matrices = len(self._muon.param_groups)
        # Loading a state replaces the groups and the state, so that they are handed on at every step.
        self._muon.param_groups, self._muon.state = self.param_groups[:matrices], self.state
        self._muon.step()
        if self._adamw is not None:
            self._adamw.param_groups, self._adamw.state = self.param_groups[matrices:], self.state
            self._adamw.step()
        return loss
