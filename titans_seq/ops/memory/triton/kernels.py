"""Triton kernels shared by both depths, device functions, and the conventions of all kernels.

The matrix memory processes a sequence in segments of some hundred tiles, with five kernels:

    matrix_prepare          all tiles in parallel   values from gates, keys and queries that do not need the state
    matrix_walk             tiles in order          W and S on chip: errors, outputs, the state's recurrence
    matrix_walk_backward    tiles in reverse order  the gradients of W and S on chip
    matrix_finish_backward  all tiles in parallel   from states and their gradients to those of q, k, decay tables
    gates_backward          all tiles in parallel   from there to the gradients of the gates

A tile is up to C tokens. A chunk of the rule, `size` tokens, is one tile or is split into `parts` tiles; W and S are
updated from tile to tile, while gradients are taken at the chunk's start (AT).

Only what depends on the previous tile is in the two recurrences (`*_walk`, `*_walk_backward`), which are short. Each of
their programs computes one head of one batch element and one block of the memory's output columns: given keys and
gates, the columns of W and S are independent, so that a head is split over programs without communication.

The mathematics is that of README.md in ops/memory, where the backward pass is derived. For readers new to Triton:
everything below is a block, an array of a size known when the kernel is compiled, which the threads of a program hold
together; `tl.dot` multiplies blocks, the rest is elementwise or a reduction. Conventions of all kernels:

- Tokens are contiguous: q and k (B, T, H, D), v and y (B, T, H, D_V), gates (B, T, H). States are float32,
  (G, D, D_V), G = B x H. In a segment's scratch the tiles are the first dimension.
- Arithmetic is float32; only the operands of products are rounded (`_matmul`).
- A tile with fewer than C tokens, because its chunk or the sequence ends, is filled up with padding tokens (`live` is
  False): keys, values and queries of zero, lr 0, momentum 1, forget 0, and no column in the table F. They
  have no effect and are not stored.
- `tl.debug_barrier` ends a phase, so that the compiler does not start the next one and hold the blocks of both.
- AT is where gradients are taken: "tile", at the tile's start, which is the chunk's; "chunk", at the start of the
  chunk, some tiles earlier; "given", at the start of a chunk that began before the segment and contains all of it.
- "Shares" are decay coefficients: how much of a tile's start and writes remains in later states (README.md).
- Lengths are plain arguments, not constants: a new length causes no recompilation.

Names of sizes: C tokens of a tile, D features of a key, D_V of a value, V columns of a block. `weights` is W,
`surprise` S, `d_x` the gradient of the outer loss for x.
"""

import triton
import triton.language as tl

# Sizes that change from call to call; Triton would otherwise recompile for multiples of 16 and for 1.
_RUNTIME = ["heads", "sequence", "first", "stop", "size", "parts"]
# Rows of a tile's decay coefficients in the scratch (tiles, G, SHARES, C).
A, B, E, TO_WEIGHTS, TO_SURPRISE, A_BEFORE, B_BEFORE = (tl.constexpr(row) for row in range(7))
SHARES = tl.constexpr(7)


@triton.jit
def _matmul(x, y, PRECISION: tl.constexpr):
    """Return x @ y in float32; PRECISION is "bf16" (operands are rounded to it) or "ieee" (no tensor cores)."""
    if PRECISION == "bf16":
        product = tl.trans(tl.dot(tl.trans(y.to(tl.bfloat16)), tl.trans(x.to(tl.bfloat16))))
    else:
        product = tl.dot(x, y, input_precision=PRECISION)
    return product


@triton.jit
def _exact_matmul(x, y):
    """Return x @ y in full float32 precision, for decay tables and the online system, whose errors would propagate."""
    return tl.dot(x, y, input_precision="ieee")


@triton.jit
def _last_row(table, C: tl.constexpr):
    """Return row C - 1 of a table (C, C), as a vector."""
    return tl.sum(tl.where(tl.arange(0, C)[:, None] == C - 1, table, 0.0), axis=0)


@triton.jit
def _products(gate, C: tl.constexpr, SHIFT: tl.constexpr):
    """Return the table [t, j] = product of gate over j < i <= t, ones on the diagonal, zeros above it.

    Cumulative product down the columns, in which a column starts at its diagonal: gates of 0 and 1 are exact. With
    SHIFT = 1, for a gate loaded with an offset of one token, it is the same table shifted down one row.
    """
    rows = tl.arange(0, C)[:, None] - SHIFT
    columns = tl.arange(0, C)[None, :]
    running = tl.cumprod(tl.where(rows > columns, gate[:, None], 1.0), axis=0)
    return tl.where(rows >= columns, running, 0.0)


@triton.jit
def _load_tokens(ptr, token, live, head, heads, WIDTH: tl.constexpr, offset, SIZE: tl.constexpr):
    """Load features `offset` to `offset` + SIZE of some tokens of a head, (C, SIZE); zeros for padding tokens."""
    features = offset + tl.arange(0, SIZE)
    at = (token * heads + head) * WIDTH
    return tl.load(ptr + at[:, None] + features[None, :], mask=live[:, None], other=0.0).to(tl.float32)


@triton.jit
def _load_gate(ptr, token, live, head, heads, DEAD: tl.constexpr):
    """Load one gate of some tokens of a head, (C,); the value DEAD for padding tokens."""
    return tl.load(ptr + token * heads + head, mask=live, other=DEAD).to(tl.float32)


@triton.jit
def _state_offsets(D: tl.constexpr, D_V: tl.constexpr, offset, V: tl.constexpr):
    """Return the memory offsets of columns `offset` to `offset` + V of a state (D, D_V)."""
    return tl.arange(0, D)[:, None] * D_V + offset + tl.arange(0, V)[None, :]


@triton.jit
def _inverse(lower, size, C: tl.constexpr):
    """Return (I + lower)^-1 of a strictly lower triangular table (C, C), zero from row `size` on, by elimination.

    (The product of all I + (-lower)^(2^i) is shorter, but loses precision for near-identical keys: the powers grow like
    binomial coefficients.)
    """
    rows = tl.arange(0, C)[:, None]
    columns = tl.arange(0, C)[None, :]
    inverse = tl.where(rows == columns, 1.0, 0.0)
    for pivot in range(size - 1):
        factor = tl.sum(tl.where(columns == pivot, lower, 0.0), axis=1)
        row = tl.sum(tl.where(rows == pivot, inverse, 0.0), axis=0)
        inverse -= factor[:, None] * row[None, :]
    return inverse


@triton.jit
def _place(n, first, stop, size, parts, batch, sequence, C: tl.constexpr):
    """Return the indices of tile n's tokens in the whole batch, and whether each is valid (not padding)."""
    in_chunk = (n % parts) * C + tl.arange(0, C)
    place = first + (n // parts) * size + in_chunk
    return batch * sequence + place, (in_chunk < size) & (place < stop)


@triton.jit
def _table(ptr, C: tl.constexpr):
    """Load a tile's table (C, C)."""
    return tl.load(ptr + tl.arange(0, C)[:, None] * C + tl.arange(0, C)[None, :]).to(tl.float32)


@triton.jit
def _store_table(ptr, table, C: tl.constexpr):
    offsets = tl.arange(0, C)[:, None] * C + tl.arange(0, C)[None, :]
    tl.store(ptr + offsets, table.to(ptr.dtype.element_ty))


@triton.jit
def _products_of_tokens(
    q_ptr,
    k_ptr,
    token,
    live,
    head,
    heads,
    D: tl.constexpr,
    C: tl.constexpr,
    ALIKE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return q_t . k_j and, with ALIKE, k_t . k_j, both (C, C), some features at a time to save registers."""
    products = tl.zeros((C, C), tl.float32)
    similarity = tl.zeros((C, C), tl.float32)
    for feature in range(0, D, 32):
        queries = _load_tokens(q_ptr, token, live, head, heads, D, feature, 32)
        keys = tl.trans(_load_tokens(k_ptr, token, live, head, heads, D, feature, 32))
        products += _matmul(queries, keys, PRECISION)
        if ALIKE:
            similarity += _exact_matmul(tl.trans(keys), keys)
    return products, similarity


@triton.jit
def _shares_of_writes(lr_ptr, momentum_ptr, forget_ptr, token, live, head, heads, C: tl.constexpr):
    """Return lr (C,) and the tables D of S, F and C = F D of W (C, C): what remains of write j after token t."""
    lr = _load_gate(lr_ptr, token, live, head, heads, 0.0)
    momentum = _load_gate(momentum_ptr, token, live, head, heads, 1.0)
    keep = 1.0 - _load_gate(forget_ptr, token, live, head, heads, 0.0)
    in_surprise = _products(momentum, C, 0)
    in_weights = tl.where(live[None, :], _products(keep, C, 0), 0.0)
    return lr, in_surprise, in_weights, _exact_matmul(in_weights, in_surprise)


@triton.jit(do_not_specialize=_RUNTIME)
def matrix_prepare(
    q_ptr,
    k_ptr,
    lr_ptr,
    momentum_ptr,
    forget_ptr,
    shares_ptr,
    scores_ptr,
    writes_ptr,
    past_ptr,
    inverse_ptr,
    heads,
    sequence,
    first,
    stop,
    size,
    parts,
    D: tl.constexpr,
    C: tl.constexpr,
    ONLINE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the decay coefficients of a tile, its scores (q_t . k_j) C[t, j] lr_j and the table C lr.

    With ONLINE also C' lr, and twice the inverse of I + 2 C' lr (k . k).

    Grid (tiles, G). Segments start at token `first` and end before `stop`, a chunk has `size` tokens in `parts` tiles;
    writes coefficients (tiles, G, SHARES, C) and tables (tiles, G, C, C).
    """
    n, state = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    tile = n * tl.num_programs(1) + state  # in the scratch
    batch, head = state // heads, state % heads
    token, live = _place(n, first, stop, size, parts, batch, sequence, C)
    before = live & (tl.arange(0, C) > 0)
    # D, F and C = F D of README.md, and the coefficients a, b, e of the tile's start.
    lr, in_surprise, in_weights, of_write = _shares_of_writes(
        lr_ptr, momentum_ptr, forget_ptr, token, live, head, heads, C
    )
    momentum = _load_gate(momentum_ptr, token, live, head, heads, 1.0)
    keep = 1.0 - _load_gate(forget_ptr, token, live, head, heads, 0.0)
    keep_before = 1.0 - _load_gate(forget_ptr, token - 1, before, head, heads, 0.0)
    e = tl.cumprod(momentum, axis=0)
    shares = shares_ptr + tile * SHARES * C + tl.arange(0, C)
    tl.store(shares + A * C, tl.cumprod(keep, axis=0))
    tl.store(shares + B * C, tl.sum(in_weights * e[None, :], axis=1))
    tl.store(shares + E * C, e)
    tl.store(shares + TO_WEIGHTS * C, _last_row(of_write, C) * lr)
    tl.store(shares + TO_SURPRISE * C, _last_row(in_surprise, C) * lr)
    tl.debug_barrier()
    products, similarity = _products_of_tokens(q_ptr, k_ptr, token, live, head, heads, D, C, ONLINE, PRECISION)
    _store_table(scores_ptr + tile * C * C, products * of_write * lr[None, :], C)
    _store_table(writes_ptr + tile * C * C, of_write * lr[None, :], C)
    tl.debug_barrier()

    weights_before = tl.where(live[None, :], _products(keep_before, C, 1), 0.0)
    tl.store(shares + A_BEFORE * C, tl.cumprod(keep_before, axis=0))
    tl.store(shares + B_BEFORE * C, tl.sum(weights_before * e[None, :], axis=1))
    if ONLINE:
        past = _exact_matmul(weights_before, in_surprise) * lr[None, :]
        _store_table(past_ptr + tile * C * C, past, C)
        tl.debug_barrier()
        _store_table(inverse_ptr + tile * C * C, 2.0 * _inverse(2.0 * past * similarity, size, C), C)


@triton.jit(do_not_specialize=_RUNTIME)
def gates_backward(
    lr_ptr,
    momentum_ptr,
    forget_ptr,
    shares_ptr,
    d_shares_ptr,
    d_writes_ptr,
    d_past_ptr,
    d_lr_ptr,
    d_momentum_ptr,
    d_forget_ptr,
    heads,
    sequence,
    first,
    stop,
    size,
    parts,
    C: tl.constexpr,
    PAST: tl.constexpr,
):
    """Compute the gradients of a tile's gates from those of its coefficients and tables C lr and, with PAST, C' lr.

    Grid (tiles, G).
    """
    n, state = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    tile = n * tl.num_programs(1) + state
    batch, head = state // heads, state % heads
    rows = tl.arange(0, C)
    is_last = rows == C - 1
    token, live = _place(n, first, stop, size, parts, batch, sequence, C)
    before = live & (rows > 0)
    shares = shares_ptr + tile * SHARES * C + rows
    d_shares = d_shares_ptr + tile * SHARES * C + rows
    lr, in_surprise, in_weights, of_write = _shares_of_writes(
        lr_ptr, momentum_ptr, forget_ptr, token, live, head, heads, C
    )
    keep_before = 1.0 - _load_gate(forget_ptr, token - 1, before, head, heads, 0.0)
    weights_before = tl.where(live[None, :], _products(keep_before, C, 1), 0.0)

    # The last rows of C lr and D lr update the state; C = F D, b = F e: gradients of D and e, and the part of the
    # gradients of a and b that reaches each token.
    d_to_weights, d_to_surprise = tl.load(d_shares + TO_WEIGHTS * C), tl.load(d_shares + TO_SURPRISE * C)
    d_writes = _table(d_writes_ptr + tile * C * C, C) + tl.where(is_last[:, None], d_to_weights[None, :], 0.0)
    d_lr = tl.sum(d_writes * of_write, axis=0) + d_to_surprise * _last_row(in_surprise, C)
    d_table = _exact_matmul(tl.trans(in_weights), d_writes * lr[None, :])
    a_from = tl.sum(in_weights * tl.load(d_shares + A * C)[:, None], axis=0)
    b_from = tl.sum(in_weights * tl.load(d_shares + B * C)[:, None], axis=0)
    if PAST:  # the same for W_{t-1}
        d_past = _table(d_past_ptr + tile * C * C, C)
        d_lr += tl.sum(d_past * _exact_matmul(weights_before, in_surprise), axis=0)
        d_table += _exact_matmul(tl.trans(weights_before), d_past * lr[None, :])
        a_from += tl.sum(weights_before * tl.load(d_shares + A_BEFORE * C)[:, None], axis=0)
        b_from += tl.sum(weights_before * tl.load(d_shares + B_BEFORE * C)[:, None], axis=0)

    tl.debug_barrier()
    # A gate's gradient sums over the pairs it connects: an earlier row, and a row at or after the gate.
    passing = _exact_matmul(d_table, tl.trans(in_surprise))
    d_keep = tl.sum(weights_before * passing, axis=1)
    d_keep += tl.load(shares + A_BEFORE * C) * a_from + tl.load(shares + B_BEFORE * C) * b_from
    momentum_before = _load_gate(momentum_ptr, token - 1, before, head, heads, 1.0)
    d_table += tl.where(is_last[:, None], (d_to_surprise * lr)[None, :], 0.0)
    passing = _exact_matmul(tl.trans(in_surprise), d_table)
    d_momentum = tl.sum(_products(momentum_before, C, 1) * passing, axis=1)
    d_e = b_from + tl.load(d_shares + E * C)
    d_momentum += tl.cumprod(momentum_before, axis=0) * tl.sum(in_surprise * d_e[:, None], axis=0)

    at_gate = token * heads + head
    tl.store(d_lr_ptr + at_gate, d_lr.to(d_lr_ptr.dtype.element_ty), mask=live)
    tl.store(d_momentum_ptr + at_gate, d_momentum.to(d_momentum_ptr.dtype.element_ty), mask=live)
    tl.store(d_forget_ptr + at_gate, -d_keep.to(d_forget_ptr.dtype.element_ty), mask=live)
