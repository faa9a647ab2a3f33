"""Recurrences of other linear-time models, the baselines of the memory: a token loop and a chunked form of each."""

from titans_seq.ops.recurrences.delta_product import delta_product
from titans_seq.ops.recurrences.gated_delta_rule import gated_delta_rule
from titans_seq.ops.recurrences.gated_linear_attention import gated_linear_attention
from titans_seq.ops.recurrences.mlstm import CellState, mlstm
from titans_seq.ops.recurrences.state_space_dual import state_space_dual
from titans_seq.ops.recurrences.ttt import TTTState, ttt

__all__ = [
    "CellState",
    "TTTState",
    "delta_product",
    "gated_delta_rule",
    "gated_linear_attention",
    "mlstm",
    "state_space_dual",
    "ttt",
]
