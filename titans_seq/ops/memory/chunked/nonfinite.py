"""Where to split a sequence so that a NaN or an infinity among its tokens reaches no output before it.

Inside a chunk all tokens are multiplied with one another, and a coefficient of zero does not hide a NaN. A call that
ends before the token has no NaN to hide, and the next call continues exactly.
"""

from itertools import pairwise

import torch
from torch import Tensor

from titans_seq.ops.memory.arguments import Tokens


def split_at_nonfinite(tokens: Tokens, mask: Tensor | None) -> list[int]:
    """Return the lengths of the pieces, which begin at the first token of every sequence and head that is not finite.

    Queries do not matter: each is only read with. On other devices than the CPU the sequence stays in one piece, since
    looking at the values would stall the device at every call.
    """
    length = tokens.q.shape[1]
    if length == 0 or tokens.q.device.type != "cpu" or torch.compiler.is_exporting():
        return [length]
    written = [x.detach() for x in tokens[1:]]
    # One pass over the data in the usual case. Finite values whose sum overflows are examined below, at no harm.
    if mask is None and torch.stack([x.sum() for x in written]).isfinite().all():
        return [length]
    wrong_BTH = torch.stack([~x.isfinite().flatten(3).all(-1) if x.ndim > 3 else ~x.isfinite() for x in written]).any(0)
    if mask is not None:
        wrong_BTH = wrong_BTH & mask.unsqueeze(-1)
    sequences, firsts = wrong_BTH.any(1), wrong_BTH.int().argmax(1)
    cuts = sorted({0, length, *firsts[sequences].tolist()})
    return [stop - first for first, stop in pairwise(cuts)]
