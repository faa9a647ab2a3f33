"""Sliding-window attention with persistent tokens and rotary positions (Titans, arXiv 2501.00663, section 4).

Dimensions: B batch, T tokens, H heads, D features of a head (R of them rotated), P persistent tokens, W earlier tokens
in a window (window - 1); S keys (past and new tokens); N blocks of Q queries, each with the K keys of its windows.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.nn.rotary import apply_rotary, rotary_angles
from titans_seq.ops.masking import one_or_each, take_tokens

# Queries per block: half a window. With fewer, copying the shared keys costs more than the attention; with more, the
# band mask hides much of a block (measured on a CPU at windows of 16 to 2,048).
_MIN_QUERIES, _MAX_QUERIES = 64, 256


class AttentionState(NamedTuple):
    """State of a `SlidingWindowAttention`: its key-value cache, constant in size from the first token on.

    Keys and values belong to the autograd graph of the call that made them: use `detach` for truncated backpropagation.
    """

    keys: Tensor  # (B, H, W, D), unrotated, the newest last; zeros before the first token
    values: Tensor  # (B, H, W, D)
    seen: Tensor | int  # valid tokens so far, at most W: number of filled entries, at the end; (B,) if elements differ

    def named_tensors(self) -> dict[str, Tensor]:
        """Return contiguous copies under flat names, ready for `safetensors.torch.save_file`."""
        named = {"keys": self.keys, "values": self.values, "seen": torch.as_tensor(self.seen)}
        return {name: x.detach().clone(memory_format=torch.contiguous_format) for name, x in named.items()}

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "AttentionState":
        """Rebuild the state from `named_tensors`; raises ValueError when a name is missing or unknown."""
        if set(named) != set(cls._fields):
            expected, found = ", ".join(cls._fields), ", ".join(sorted(named)) or "none"
            raise ValueError(f"an AttentionState must have the tensors {expected}; got {found}")
        seen = named["seen"]
        return cls(named["keys"], named["values"], seen if seen.ndim else int(seen))

    def detach(self) -> "AttentionState":
        """Return the state detached from the autograd graph."""
        return AttentionState(self.keys.detach(), self.values.detach(), self.seen)


class SlidingWindowAttention(nn.Module):
    """Sliding-window softmax attention: a query sees itself, the window - 1 valid tokens before it, persistent tokens.

        o_t = softmax_j(q_t . R(j - t) k_j / sqrt(D)) v_j     over j in (t - window, t] and the persistent pairs

    where R(j - t), the rotary position, depends on the distance alone. Time and memory are linear in T: queries are cut
    into blocks that share a band of keys, and all blocks are one call of `scaled_dot_product_attention` (SDPA); a new
    sequence's first window is another call, without a mask. FlexAttention would skip the masked part of a band, but it
    needs a compiler and has no backward pass on the CPU (torch 2.13).

    Persistent tokens (eq 19) are learned, data-independent key-value pairs that every query sees. Their scores must not
    depend on the query's position, even in an endless stream. So only a fraction of a head's features is rotated, as in
    GPT-NeoX, and persistent keys are zero in these features.

    Keys are cached unrotated and positions count from a call's first key, so that angles stay small in a long stream.
    This is exact, because scores depend on differences of positions alone.

    Args:
        dim: features of a token; num_heads must divide it.
        num_heads: heads, each on dim / num_heads features.
        window: number of tokens that a query sees, including itself; None is full attention.
        causal: if False, a query also sees the window - 1 valid tokens after it.
        num_persistent: P, persistent tokens.
        rotary_share: fraction of a head's features that is rotated: R / D.
        rotary_base: base of the rotary frequencies: the slowest rotation in tokens per radian, nearly.

    Raises ValueError for sizes that do not fit together.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        window: int | None,
        causal: bool = True,
        num_persistent: int = 0,
        rotary_share: float = 0.5,
        rotary_base: float = 10_000.0,
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads must divide dim; got {num_heads} and {dim}")
        if (window is not None and window < 1) or num_persistent < 0:
            raise ValueError(f"window must be at least 1 or None, num_persistent 0; got {window} and {num_persistent}")
        head_dim = dim // num_heads
        rotated = round(rotary_share * head_dim)
        if not 0 <= rotary_share <= 1 or rotated % 2:
            raise ValueError(f"rotary_share (0 to 1) of head_dim must be even; got {rotary_share} of {head_dim}")
        if num_persistent and rotated == head_dim:
            raise ValueError(f"persistent tokens need features that are not rotated; got {rotary_share=}")
        self.num_heads = num_heads
        self.window = window
        self.causal = causal
        self.num_persistent = num_persistent
        self.rotated = rotated
        self.rotary_base = rotary_base

        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        if num_persistent:
            self.persistent_keys = nn.Parameter(torch.empty(num_heads, num_persistent, head_dim - rotated))
            self.persistent_values = nn.Parameter(torch.empty(num_heads, num_persistent, head_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the persistent tokens anew; the projections have their own `reset_parameters`."""
        if self.num_persistent:
            nn.init.normal_(self.persistent_keys, std=0.02)
            nn.init.normal_(self.persistent_values, std=0.02)

    def forward(
        self, x: Tensor, state: AttentionState | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        """Attend within x and to the window before it.

        Args:
            x: (B, T, dim).
            state: returned by an earlier call; continues its sequence exactly, at any split. Only for causal windows.
            mask: (B, T) bool, False at padding, which may be anywhere and contain anything: positions and windows count
                valid tokens alone.

        Returns:
            (B, T, dim), zero at padding, and the state after the last valid token. Full and bidirectional attention
            cannot be continued: their state is empty, and passing it to a later call raises ValueError.
        """
        self._check(x, state, mask)
        num_valid: int | Tensor = x.shape[1]
        if mask is not None:
            # With the valid tokens first, positions, windows and state are those of a sequence without padding.
            x, num_valid = _compact(x, mask), mask.sum(1)
        q_BTHD, k_BTHD, v_BTHD = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        if x.shape[1] == 0:
            y_BTHD = v_BTHD
        elif self.causal:
            y_BTHD = self._attend_causally(q_BTHD, k_BTHD, v_BTHD, state)
        else:
            y_BTHD = self._attend_bidirectionally(q_BTHD, k_BTHD, v_BTHD, num_valid)
        y: Tensor = self.out(y_BTHD.flatten(2))
        return y if mask is None else _spread(y, mask), self._next_state(k_BTHD, v_BTHD, num_valid, state)

    def _check(self, x: Tensor, state: AttentionState | None, mask: Tensor | None) -> None:
        if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape[:2]):
            raise ValueError(f"mask must be bool {tuple(x.shape[:2])}; got {mask.dtype} {tuple(mask.shape)}")
        if state is None:
            return
        if not self.causal:
            raise ValueError("bidirectional attention takes no state: its outputs depend on later tokens")
        if self.window is None:
            raise ValueError("full attention (window=None) takes no state: it would grow with the sequence")
        expected = (x.shape[0], self.num_heads, self.window - 1, x.shape[2] // self.num_heads)
        if state.keys.shape != expected or state.values.shape != expected:
            raise ValueError(f"state must hold keys and values {expected}; got {tuple(state.keys.shape)}")
        if isinstance(state.seen, Tensor) and state.seen.shape != x.shape[:1]:
            raise ValueError(f"state.seen must be one number or {x.shape[0]}; got {tuple(state.seen.shape)}")

    def _attend_causally(self, q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor, state: AttentionState | None) -> Tensor:
        """Causal attention. Padding is on the right here, so no valid query sees it and it needs no mask."""
        if state is not None:
            past, valid_BS = state.keys.shape[2], None
            k_BSHD, v_BSHD = _concatenate(state.keys, k_BTHD), _concatenate(state.values, v_BTHD)
            if isinstance(state.seen, Tensor) or state.seen < past:
                absent = past - torch.as_tensor(state.seen, device=k_BSHD.device).view(-1, 1)
                valid_BS = (torch.arange(k_BSHD.shape[1], device=k_BSHD.device) >= absent).expand(len(k_BSHD), -1)
            q_BTHD, k_BSHD = self._rotate(q_BTHD, k_BSHD)
            return self._attend_in_blocks(q_BTHD, k_BSHD, v_BSHD, valid_BS)
        q_BTHD, k_BTHD = self._rotate(q_BTHD, k_BTHD)
        window = self.window or q_BTHD.shape[1]
        # No key is too old for the first `window` queries: a causal triangle, not a band, and no keys before the first.
        y_BTHD = self._attend(q_BTHD[:, :window], k_BTHD[:, :window], v_BTHD[:, :window], is_causal=True)
        if window >= q_BTHD.shape[1]:
            return y_BTHD
        rest_BTHD = self._attend_in_blocks(q_BTHD[:, window:], k_BTHD[:, 1:], v_BTHD[:, 1:], None)
        return torch.cat([y_BTHD, rest_BTHD], dim=1)

    def _attend_bidirectionally(
        self, q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor, num_valid: int | Tensor
    ) -> Tensor:
        batch, length = q_BTHD.shape[:2]
        q_BTHD, k_BTHD = self._rotate(q_BTHD, k_BTHD)
        # Without a valid token the first key, a zero, stays visible: in some kernels a softmax over no keys is NaN.
        end = num_valid.clamp(min=1)[:, None] if isinstance(num_valid, Tensor) else num_valid
        valid_BT = (torch.arange(length, device=q_BTHD.device) < end).expand(batch, -1)
        if self.window is None or self.window >= length:
            return self._attend(q_BTHD, k_BTHD, v_BTHD, None if isinstance(num_valid, int) else valid_BT[:, None, None])
        reach = self.window - 1
        k_BSHD, v_BSHD = (F.pad(x, (0, 0, 0, 0, reach, reach)) for x in (k_BTHD, v_BTHD))
        return self._attend_in_blocks(q_BTHD, k_BSHD, v_BSHD, F.pad(valid_BT, (reach, reach)))

    def _attend_in_blocks(self, q_BTHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor, valid_BS: Tensor | None) -> Tensor:
        """Attend with T queries to S keys, which begin W before the first query; `valid_BS` None: all are valid."""
        assert self.window is not None
        length, reach, device = q_BTHD.shape[1], self.window - 1, q_BTHD.device
        count = -(-length // min(max(self.window // 2, _MIN_QUERIES), _MAX_QUERIES))
        block = -(-length // count)
        span, missing = block + k_BSHD.shape[1] - length, count * block - length
        q_BNQHD = F.pad(q_BTHD, (0, 0, 0, 0, 0, missing)).unflatten(1, (count, block))
        k_BNKHD, v_BNKHD = (
            F.pad(x, (0, 0, 0, 0, 0, missing)).unfold(1, span, block).movedim(-1, 2) for x in (k_BSHD, v_BSHD)
        )
        distance_QK = torch.arange(reach, reach + block, device=device)[:, None] - torch.arange(span, device=device)
        visible = (distance_QK <= reach) & (distance_QK >= (0 if self.causal else -reach))  # shared by all blocks
        if valid_BS is not None:
            valid_NK = F.pad(valid_BS, (0, missing)).unfold(1, span, block).flatten(0, 1)
            # Padding sees itself, so that no softmax is empty (as above); a valid token does in any case.
            visible = visible & valid_NK[:, None, None] | (distance_QK == 0)
        return self._attend(q_BNQHD, k_BNKHD, v_BNKHD, visible).flatten(1, 2)[:, :length]

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Attend with q (..., Q, H, D) to k and v (..., K, H, D) and the persistent tokens: (..., Q, H, D)."""
        batch, extra = q.shape[:-3], self.num_persistent
        if extra:
            keys_HPD = F.pad(self.persistent_keys, (self.rotated, 0))
            k, v = (
                torch.cat([pairs.to(x.dtype).transpose(0, 1).expand(*batch, -1, -1, -1), x], dim=-3)
                for pairs, x in ((keys_HPD, k), (self.persistent_values, v))
            )
            visible = None if visible is None else F.pad(visible, (extra, 0), value=True)
            if is_causal:  # P dummy queries first align queries with keys, so that SDPA's causal triangle needs no mask
                q = F.pad(q, (0, 0, 0, 0, extra, 0))
        q, k, v = (x.flatten(0, -4).transpose(1, 2) for x in (q, k, v))
        y: Tensor = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=is_causal).transpose(1, 2)
        return torch.unflatten(y[:, extra:] if is_causal else y, 0, batch)

    def _rotate(self, q_BTHD: Tensor, k_BSHD: Tensor) -> tuple[Tensor, Tensor]:
        """Rotate both by their positions, counted from the first key; the last query has the last key's position."""
        if self.rotated == 0:
            return q_BTHD, k_BSHD
        cos, sin = rotary_angles(self.rotated, k_BSHD.shape[1], k_BSHD, self.rotary_base)
        return apply_rotary(q_BTHD, cos[-q_BTHD.shape[1] :], sin[-q_BTHD.shape[1] :]), apply_rotary(k_BSHD, cos, sin)

    def _next_state(
        self, k_BTHD: Tensor, v_BTHD: Tensor, num_valid: int | Tensor, state: AttentionState | None
    ) -> AttentionState:
        """Return the state after the first `num_valid` of these tokens."""
        reach = self.window - 1 if self.causal and self.window is not None else 0
        if state is None:
            nothing = k_BTHD.new_zeros(k_BTHD.shape[0], self.num_heads, reach, k_BTHD.shape[3])
            state = AttentionState(nothing, nothing, 0)
        seen = state.seen + num_valid
        # One int again as soon as all windows are full: the next call then needs no mask of valid keys.
        seen = one_or_each(seen.clamp(max=reach)) if isinstance(seen, Tensor) else min(seen, reach)
        return AttentionState(_latest(state.keys, k_BTHD, num_valid), _latest(state.values, v_BTHD, num_valid), seen)


def _concatenate(past_BHWD: Tensor, new_BTHD: Tensor) -> Tensor:
    """Concatenate a state's entries and the new ones: (B, W + T, H, D)."""
    return torch.cat([past_BHWD.transpose(1, 2).to(new_BTHD.dtype), new_BTHD], dim=1)


def _latest(past_BHWD: Tensor, new_BTHD: Tensor, num_valid: int | Tensor) -> Tensor:
    """Return the last W of past and new entries; the first `num_valid` of the new ones are valid (int: all)."""
    reach = past_BHWD.shape[2]
    if isinstance(num_valid, int):
        recent_BTHD = new_BTHD[:, max(0, num_valid - reach) :]
        latest = _concatenate(past_BHWD[:, :, recent_BTHD.shape[1] :], recent_BTHD)
    else:
        index_BW = num_valid[:, None] + torch.arange(reach, device=num_valid.device)
        latest = take_tokens(_concatenate(past_BHWD, new_BTHD), index_BW)
    return latest.transpose(1, 2).contiguous()


def _compact(x: Tensor, mask: Tensor) -> Tensor:
    """Move the valid tokens of x (B, T, dim) to the front, in their order, followed by zeros."""
    order = torch.argsort(~mask, dim=1, stable=True)
    return take_tokens(x.masked_fill(~mask[..., None], 0), order)


def _spread(y: Tensor, mask: Tensor) -> Tensor:
    """Undo `_compact`, with zeros at padding."""
    rank = (mask.cumsum(1) - 1).clamp(min=0)
    return take_tokens(y, rank).masked_fill(~mask[..., None], 0)
