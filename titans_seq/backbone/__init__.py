"""Sequence models from (B, T, dim) to (B, T, dim): Titans' variants and what they are compared with."""

from titans_seq.backbone.lmm import LMM

BACKBONES = {"lmm": LMM}  # model.variant in a configuration

__all__ = ["BACKBONES", "LMM"]
