"""Triton kernels of the matrix memory, forward and backward.

A sequence is worked off in segments of some hundred tiles, five kernels in all:

    prepare           all tiles at once    gates, keys and queries to what does not depend on the memory
    walk              tile after tile      W and S on chip: errors, outputs, the state on
    walk_backward     tile before tile     the gradients of W and S on chip
    finish_backward   all tiles at once    from the states and their gradients to those of q, k and the gates' tables
    gates_backward    all tiles at once    from there to the gates

A tile is up to C tokens. A chunk of the rule, `size` tokens, is one or is cut into `parts` of them; W and S go on from
tile to tile, while the gradients stay those at the chunk's start (AT).

What has to wait for the tile before it, and that alone, is in the two walks, which are short. A walk's program is one
head of one batch element and one block of the memory's output columns: given keys and gates, the columns of W and S
never meet, so that a head is shared out over programs without any exchange.

The mathematics is that of README.md beside this file, where the backward pass is derived. To whom Triton is new:
everything below is a block, an array of a size known when the kernel is compiled, which all threads of a program hold
together; `tl.dot` multiplies blocks, the rest is elementwise or a reduction. What holds for all kernels:

- Tokens are contiguous: q and k (B, T, H, D), v and y (B, T, H, D_V), gates (B, T, H). States are float32,
  (G, D, D_V), G = B x H. A segment's scratch has its tiles in front.
- Arithmetic is float32; only the operands of products are rounded (`_matmul`).
- A tile with fewer than C tokens, since its chunk or the sequence ends, is filled up with dead tokens: keys, values
  and queries of zero, lr 0, momentum 1, forget 0, and no column in the table F. They change nothing and are not stored.
- `tl.debug_barrier` ends a phase, so that the compiler does not begin the next one and hold the blocks of both.
- AT says where gradients are taken: "tile", at the tile's start, which is the chunk's; "chunk", at the start of the
  chunk, some tiles back; "given", at the start of a chunk that began before the segment, which all of it belongs to.
- Lengths are plain arguments and not compiled in: a new length compiles nothing.

Names of sizes: C tokens of a tile, D features of a key, D_V of a value, V columns of a block. `weights` is W,
`surprise` S, `d_x` the gradient of the outer loss for x.
"""

import triton
import triton.language as tl

# Sizes that change from call to call; Triton would compile anew for those that divide by 16, and for 1.
_RUNTIME = ["heads", "sequence", "first", "stop", "size", "parts"]
# Rows of a tile's shares in the scratch (tiles, G, SHARES, C).
A, B, E, TO_WEIGHTS, TO_SURPRISE, A_BEFORE, B_BEFORE = (tl.constexpr(row) for row in range(7))
SHARES = tl.constexpr(7)


@triton.jit
def _matmul(x, y, PRECISION: tl.constexpr):
    """x @ y in float32; PRECISION is "bf16", to which operands are rounded, or "ieee", without tensor cores."""
    if PRECISION == "bf16":
        product = tl.trans(tl.dot(tl.trans(y.to(tl.bfloat16)), tl.trans(x.to(tl.bfloat16))))
    else:
        product = tl.dot(x, y, input_precision=PRECISION)
    return product


@triton.jit
def _exact_matmul(x, y):
    """x @ y with float32's digits: of decay tables and of the online system, whose errors go into all that follows."""
    return tl.dot(x, y, input_precision="ieee")


@triton.jit
def _last_row(table, C: tl.constexpr):
    """Row C - 1 of a table (C, C), as a vector."""
    return tl.sum(tl.where(tl.arange(0, C)[:, None] == C - 1, table, 0.0), axis=0)


@triton.jit
def _products(gate, C: tl.constexpr, SHIFT: tl.constexpr):
    """[t, j] = the product of gate over j < i <= t, ones on the diagonal, zeros above it.

    A running product down the columns, in which a column starts at its diagonal: gates of 0 and 1 are exact. With
    SHIFT = 1, of a gate that is loaded one token late, it is the same table one row down.
    """
    rows = tl.arange(0, C)[:, None] - SHIFT
    columns = tl.arange(0, C)[None, :]
    running = tl.cumprod(tl.where(rows > columns, gate[:, None], 1.0), axis=0)
    return tl.where(rows >= columns, running, 0.0)


@triton.jit
def _load_tokens(ptr, token, live, head, heads, WIDTH: tl.constexpr, offset, SIZE: tl.constexpr):
    """Features `offset` to `offset` + SIZE of some tokens of a head, (C, SIZE); zeros for dead tokens."""
    features = offset + tl.arange(0, SIZE)
    at = (token * heads + head) * WIDTH
    return tl.load(ptr + at[:, None] + features[None, :], mask=live[:, None], other=0.0).to(tl.float32)


@triton.jit
def _load_gate(ptr, token, live, head, heads, DEAD: tl.constexpr):
    """One gate of some tokens of a head, (C,); DEAD for dead tokens."""
    return tl.load(ptr + token * heads + head, mask=live, other=DEAD).to(tl.float32)


@triton.jit
def _state_offsets(D: tl.constexpr, D_V: tl.constexpr, offset, V: tl.constexpr):
    """Where the columns `offset` to `offset` + V of a state (D, D_V) lie."""
    return tl.arange(0, D)[:, None] * D_V + offset + tl.arange(0, V)[None, :]


@triton.jit
def _inverse(lower, size, C: tl.constexpr):
    """(I + lower)^-1 of a strictly lower triangular table (C, C), zero from row `size` on: elimination.

    (The product of all I + (-lower)^(2^i) is shorter, but loses its digits where keys are alike: the powers grow like
    binomials.)
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
    """Of the tokens of tile n: their numbers in the whole batch, and whether they are live."""
    in_chunk = (n % parts) * C + tl.arange(0, C)
    place = first + (n // parts) * size + in_chunk
    return batch * sequence + place, (in_chunk < size) & (place < stop)


@triton.jit
def _table(ptr, C: tl.constexpr):
    """A tile's table (C, C)."""
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
    """q_t . k_j and, with ALIKE, k_t . k_j, both (C, C), some features at a time: operands are held in registers."""
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
    """lr (C,), and the tables D of S, F and C = F D of W (C, C): what of write j is left after token t."""
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
    """The shares of a tile, its scores (q_t . k_j) C[t, j] lr_j and the table C lr.

    ONLINE C' lr, too, and twice the inverse of I + 2 C' lr (k . k).

    Grid (tiles, G). Segments start at token `first` and end before `stop`, a chunk has `size` tokens in `parts` tiles;
    writes shares (tiles, G, SHARES, C) and tables (tiles, G, C, C).
    """
    n, state = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    tile = n * tl.num_programs(1) + state  # in the scratch
    batch, head = state // heads, state % heads
    token, live = _place(n, first, stop, size, parts, batch, sequence, C)
    before = live & (tl.arange(0, C) > 0)
    # D, F and C = F D of README.md, and the shares a, b, e of the tile's start.
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


@triton.jit(do_not_specialize=[*_RUNTIME, "count"])
def matrix_walk(
    q_ptr,
    k_ptr,
    v_ptr,
    shares_ptr,
    scores_ptr,
    inverse_ptr,
    weights_ptr,
    surprise_ptr,
    reference_ptr,
    y_ptr,
    starts_ptr,
    errors_ptr,
    end_weights_ptr,
    end_surprise_ptr,
    heads,
    sequence,
    first,
    stop,
    size,
    parts,
    count,
    D: tl.constexpr,
    D_V: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    ONLINE: tl.constexpr,
    PRECISION: tl.constexpr,
    AT: tl.constexpr,
    READ: tl.constexpr,
    KEEP: tl.constexpr,
):
    """Walk `count` tiles from W and S at the start to those at the end.

    Grid (G, D_V / V). With READ it writes the outputs, with KEEP what the backward pass needs: W and S at every tile's
    start (count, 2, G, D, D_V) and the errors (count, G, C, D_V). `reference` is read where gradients are taken there.
    """
    state, states = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    column = tl.program_id(1) * V
    batch, head = state // heads, state % heads
    rows = tl.arange(0, C)
    block = _state_offsets(D, D_V, column, V)
    weights = tl.load(weights_ptr + state * D * D_V + block)
    surprise = tl.load(surprise_ptr + state * D * D_V + block)
    if AT == "chunk":
        at_chunk = weights

    for n in range(count):
        if KEEP:
            start = starts_ptr + (n * 2 * states + state) * D * D_V + block
            tl.store(start, weights)
            tl.store(start + states * D * D_V, surprise)
        token, live = _place(n, first, stop, size, parts, batch, sequence, C)
        keys = _load_tokens(k_ptr, token, live, head, heads, D, 0, D)
        values = _load_tokens(v_ptr, token, live, head, heads, D_V, column, V)
        tile = n * states + state
        shares = shares_ptr + tile * SHARES * C

        if ONLINE:
            right = tl.load(shares + A_BEFORE * C + rows)[:, None] * _matmul(keys, weights, PRECISION) - values
            right += tl.load(shares + B_BEFORE * C + rows)[:, None] * _matmul(keys, surprise, PRECISION)
            errors = _exact_matmul(_table(inverse_ptr + tile * C * C, C), right)
        else:
            at = weights
            if AT == "chunk":
                at_chunk = tl.where(n % parts == 0, weights, at_chunk)
                at = at_chunk
            elif AT == "given":
                at = tl.load(reference_ptr + state * D * D_V + block)
            errors = 2.0 * (_matmul(keys, at, PRECISION) - values)

        if KEEP:
            tl.store(errors_ptr + (tile * C + rows)[:, None] * D_V + column + tl.arange(0, V)[None, :], errors)
        tl.debug_barrier()
        if READ:
            queries = _load_tokens(q_ptr, token, live, head, heads, D, 0, D)
            y = tl.load(shares + A * C + rows)[:, None] * _matmul(queries, weights, PRECISION)
            y += tl.load(shares + B * C + rows)[:, None] * _matmul(queries, surprise, PRECISION)
            y -= _matmul(_table(scores_ptr + tile * C * C, C), errors, PRECISION)
            at_y = ((token * heads + head) * D_V)[:, None] + column + tl.arange(0, V)[None, :]
            tl.store(y_ptr + at_y, y.to(y_ptr.dtype.element_ty), mask=live[:, None])

        # Dead tokens hand on what the last live one has.
        a, b, e = tl.load(shares + A * C + C - 1), tl.load(shares + B * C + C - 1), tl.load(shares + E * C + C - 1)
        to_weights, to_surprise = tl.load(shares + TO_WEIGHTS * C + rows), tl.load(shares + TO_SURPRISE * C + rows)
        tl.debug_barrier()
        # Tokens are loaded anew wherever they are wanted, rather than held.
        keys = tl.trans(_load_tokens(k_ptr, token, live, head, heads, D, 0, D))
        weights = a * weights + b * surprise - _matmul(keys, errors * to_weights[:, None], PRECISION)
        surprise = e * surprise - _matmul(keys, errors * to_surprise[:, None], PRECISION)

    tl.store(end_weights_ptr + state * D * D_V + block, weights)
    tl.store(end_surprise_ptr + state * D * D_V + block, surprise)


@triton.jit(do_not_specialize=[*_RUNTIME, "count"])
def matrix_walk_backward(
    q_ptr,
    k_ptr,
    shares_ptr,
    scores_ptr,
    inverse_ptr,
    d_y_ptr,
    d_weights_ptr,
    d_surprise_ptr,
    d_v_ptr,
    d_ends_ptr,
    d_start_weights_ptr,
    d_start_surprise_ptr,
    d_reference_ptr,
    heads,
    sequence,
    first,
    stop,
    size,
    parts,
    count,
    D: tl.constexpr,
    D_V: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    ONLINE: tl.constexpr,
    PRECISION: tl.constexpr,
    AT: tl.constexpr,
    FIRST_ORDER: tl.constexpr,
):
    """Walk the same tiles backwards, from the gradients of outputs and of the end's W and S to those at the start.

    Grid (G, D_V / V). Writes the gradients of the values, which are also those of the errors' right-hand sides but for
    the sign, and those of W and S at every tile's end (count, 2, G, D, D_V), for `matrix_finish_backward`; adds to
    those of a given reference.
    """
    state, states = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    column = tl.program_id(1) * V
    batch, head = state // heads, state % heads
    rows = tl.arange(0, C)
    block = _state_offsets(D, D_V, column, V)
    d_weights = tl.load(d_weights_ptr + state * D * D_V + block)
    d_surprise = tl.load(d_surprise_ptr + state * D * D_V + block)
    reference = d_reference_ptr + state * D * D_V + block
    if AT == "chunk":
        d_reference = tl.zeros((D, V), tl.float32)
    elif AT == "given":
        d_reference = tl.load(reference)

    for i in range(count):
        n = count - 1 - i
        end = d_ends_ptr + (n * 2 * states + state) * D * D_V + block
        tl.store(end, d_weights)
        tl.store(end + states * D * D_V, d_surprise)
        token, live = _place(n, first, stop, size, parts, batch, sequence, C)
        keys = _load_tokens(k_ptr, token, live, head, heads, D, 0, D)
        d_y = _load_tokens(d_y_ptr, token, live, head, heads, D_V, column, V)
        tile = n * states + state
        shares = shares_ptr + tile * SHARES * C

        # Back through the state's update and the reads of the chunk's own writes, to the errors.
        to_weights, to_surprise = tl.load(shares + TO_WEIGHTS * C + rows), tl.load(shares + TO_SURPRISE * C + rows)
        d_errors = -to_weights[:, None] * _matmul(keys, d_weights, PRECISION)
        d_errors -= to_surprise[:, None] * _matmul(keys, d_surprise, PRECISION)
        d_errors -= _matmul(tl.trans(_table(scores_ptr + tile * C * C, C)), d_y, PRECISION)

        tl.debug_barrier()
        d_y = _load_tokens(d_y_ptr, token, live, head, heads, D_V, column, V)
        # From the end's W and S to the start's, directly and through the reads.
        # Dead tokens hand on what the last live one has.
        a, b, e = tl.load(shares + A * C + C - 1), tl.load(shares + B * C + C - 1), tl.load(shares + E * C + C - 1)
        queries = tl.trans(_load_tokens(q_ptr, token, live, head, heads, D, 0, D))
        d_surprise = b * d_weights + e * d_surprise
        d_surprise += _matmul(queries, d_y * tl.load(shares + B * C + rows)[:, None], PRECISION)
        d_weights = a * d_weights + _matmul(queries, d_y * tl.load(shares + A * C + rows)[:, None], PRECISION)

        tl.debug_barrier()
        # Through the errors: 2 (k W - v), or the solution of the online system.
        d_right = 2.0 * d_errors
        keys = tl.trans(_load_tokens(k_ptr, token, live, head, heads, D, 0, D))
        if ONLINE:
            if not FIRST_ORDER:
                d_right = _exact_matmul(tl.trans(_table(inverse_ptr + tile * C * C, C)), d_errors)
                d_weights += _matmul(keys, d_right * tl.load(shares + A_BEFORE * C + rows)[:, None], PRECISION)
                d_surprise += _matmul(keys, d_right * tl.load(shares + B_BEFORE * C + rows)[:, None], PRECISION)
        elif not FIRST_ORDER:
            if AT == "tile":
                d_weights += _matmul(keys, d_right, PRECISION)
            else:
                d_reference += _matmul(keys, d_right, PRECISION)
            if AT == "chunk":  # of which the first tile's start is the chunk's
                d_weights += tl.where(n % parts == 0, d_reference, 0.0)
                d_reference = tl.where(n % parts == 0, 0.0, d_reference)
        at_v = ((token * heads + head) * D_V)[:, None] + column + tl.arange(0, V)[None, :]
        tl.store(d_v_ptr + at_v, -d_right.to(d_v_ptr.dtype.element_ty), mask=live[:, None])

    tl.store(d_start_weights_ptr + state * D * D_V + block, d_weights)
    tl.store(d_start_surprise_ptr + state * D * D_V + block, d_surprise)
    if AT == "given":
        tl.store(reference, d_reference)


@triton.jit(do_not_specialize=[*_RUNTIME, "blocks"])
def matrix_finish_backward(
    q_ptr,
    k_ptr,
    shares_ptr,
    writes_ptr,
    past_ptr,
    starts_ptr,
    errors_ptr,
    reference_ptr,
    d_y_ptr,
    d_v_ptr,
    d_ends_ptr,
    d_q_ptr,
    d_k_ptr,
    d_shares_ptr,
    d_writes_ptr,
    d_past_ptr,
    heads,
    sequence,
    first,
    stop,
    size,
    parts,
    blocks,
    D: tl.constexpr,
    D_V: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    ONLINE: tl.constexpr,
    PRECISION: tl.constexpr,
    AT: tl.constexpr,
    FIRST_ORDER: tl.constexpr,
):
    """The gradients of a tile's q, k, shares and tables, from W, S at its start, its errors, and the end's gradients.

    Grid (tiles, G); a program goes through the `blocks` = D_V / V of columns one by one and adds up. (A loop whose
    length the compiler knew would be unrolled, and all blocks kept at once.)
    """
    n, state = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    states = tl.num_programs(1).to(tl.int64)
    tile = n * states + state
    batch, head = state // heads, state % heads
    rows = tl.arange(0, C)
    token, live = _place(n, first, stop, size, parts, batch, sequence, C)
    shares = shares_ptr + tile * SHARES * C
    a, b = tl.load(shares + A * C + rows), tl.load(shares + B * C + rows)
    a_before, b_before = tl.load(shares + A_BEFORE * C + rows), tl.load(shares + B_BEFORE * C + rows)
    to_weights, to_surprise = tl.load(shares + TO_WEIGHTS * C + rows), tl.load(shares + TO_SURPRISE * C + rows)

    d_queries = tl.zeros((C, D), tl.float32)
    d_keys = tl.zeros((C, D), tl.float32)
    d_scores = tl.zeros((C, C), tl.float32)
    d_system = tl.zeros((C, C), tl.float32)
    d_a = tl.zeros((C,), tl.float32)
    d_b = tl.zeros((C,), tl.float32)
    d_a_before = tl.zeros((C,), tl.float32)
    d_b_before = tl.zeros((C,), tl.float32)
    d_to_weights = tl.zeros((C,), tl.float32)
    d_to_surprise = tl.zeros((C,), tl.float32)
    d_a_end, d_b_end, d_e_end = 0.0, 0.0, 0.0

    for strip in range(blocks):
        column = strip * V
        block = _state_offsets(D, D_V, column, V)
        start = starts_ptr + (n * 2 * states + state) * D * D_V + block
        end = d_ends_ptr + (n * 2 * states + state) * D * D_V + block
        weights, surprise = tl.load(start), tl.load(start + states * D * D_V)
        d_y = _load_tokens(d_y_ptr, token, live, head, heads, D_V, column, V)
        d_right = -_load_tokens(d_v_ptr, token, live, head, heads, D_V, column, V)

        errors = tl.load(errors_ptr + (tile * C + rows)[:, None] * D_V + column + tl.arange(0, V)[None, :])

        # Through the errors. (Tokens are loaded anew wherever they are wanted, rather than held.)
        keys = _load_tokens(k_ptr, token, live, head, heads, D, 0, D)
        if ONLINE:
            from_weights = _matmul(d_right, tl.trans(weights), PRECISION)
            from_surprise = _matmul(d_right, tl.trans(surprise), PRECISION)
            d_keys += a_before[:, None] * from_weights + b_before[:, None] * from_surprise
            d_a_before += tl.sum(keys * from_weights, axis=1)
            d_b_before += tl.sum(keys * from_surprise, axis=1)
            d_system -= _matmul(d_right, tl.trans(errors), PRECISION)
        else:
            at = weights
            if AT == "chunk":
                at = tl.load(starts_ptr + ((n - n % parts) * 2 * states + state) * D * D_V + block)
            elif AT == "given":
                at = tl.load(reference_ptr + state * D * D_V + block)
            d_keys += _matmul(d_right, tl.trans(at), PRECISION)

        tl.debug_barrier()
        # Through the reads.
        queries = _load_tokens(q_ptr, token, live, head, heads, D, 0, D)
        from_weights = _matmul(d_y, tl.trans(weights), PRECISION)
        from_surprise = _matmul(d_y, tl.trans(surprise), PRECISION)
        d_queries += a[:, None] * from_weights + b[:, None] * from_surprise
        d_a += tl.sum(queries * from_weights, axis=1)
        d_b += tl.sum(queries * from_surprise, axis=1)
        d_scores -= _matmul(d_y, tl.trans(errors), PRECISION)

        tl.debug_barrier()
        # Through the state's update.
        keys = _load_tokens(k_ptr, token, live, head, heads, D, 0, D)
        d_weights, d_surprise = tl.load(end), tl.load(end + states * D * D_V)
        d_a_end += tl.sum(tl.sum(weights * d_weights, axis=1), axis=0)
        d_b_end += tl.sum(tl.sum(surprise * d_weights, axis=1), axis=0)
        d_e_end += tl.sum(tl.sum(surprise * d_surprise, axis=1), axis=0)
        from_weights = _matmul(errors, tl.trans(d_weights), PRECISION)
        from_surprise = _matmul(errors, tl.trans(d_surprise), PRECISION)
        d_keys -= to_weights[:, None] * from_weights + to_surprise[:, None] * from_surprise
        d_to_weights -= tl.sum(keys * from_weights, axis=1)
        d_to_surprise -= tl.sum(keys * from_surprise, axis=1)

    tl.debug_barrier()
    products, similarity = _products_of_tokens(
        q_ptr, k_ptr, token, live, head, heads, D, C, ONLINE and not FIRST_ORDER, PRECISION
    )
    tl.debug_barrier()
    # Scores are (q . k) C lr.
    d_products = d_scores * _table(writes_ptr + tile * C * C, C)
    _store_table(d_writes_ptr + tile * C * C, d_scores * products, C)
    tl.debug_barrier()
    queries = _load_tokens(q_ptr, token, live, head, heads, D, 0, D)
    keys = _load_tokens(k_ptr, token, live, head, heads, D, 0, D)
    d_queries += _matmul(d_products, keys, PRECISION)
    d_keys += _matmul(tl.trans(d_products), queries, PRECISION)
    if ONLINE:
        tl.debug_barrier()
        # The same once more, for the shares of W_{t-1} in the system I + 2 C' lr (k . k).
        keys = _load_tokens(k_ptr, token, live, head, heads, D, 0, D)
        d_similarity = d_system * _table(past_ptr + tile * C * C, C)
        d_keys += _matmul(d_similarity, keys, PRECISION)
        if not FIRST_ORDER:
            d_keys += _matmul(tl.trans(d_similarity), keys, PRECISION)
            _store_table(d_past_ptr + tile * C * C, d_system * similarity, C)
    at_key = ((token * heads + head) * D)[:, None] + tl.arange(0, D)[None, :]
    tl.store(d_q_ptr + at_key, d_queries.to(d_q_ptr.dtype.element_ty), mask=live[:, None])
    tl.store(d_k_ptr + at_key, d_keys.to(d_k_ptr.dtype.element_ty), mask=live[:, None])
    is_last = rows == C - 1
    d_shares = d_shares_ptr + tile * SHARES * C + rows
    tl.store(d_shares + A * C, d_a + tl.where(is_last, d_a_end, 0.0))
    tl.store(d_shares + B * C, d_b + tl.where(is_last, d_b_end, 0.0))
    tl.store(d_shares + E * C, tl.where(is_last, d_e_end, 0.0))
    tl.store(d_shares + TO_WEIGHTS * C, d_to_weights)
    tl.store(d_shares + TO_SURPRISE * C, d_to_surprise)
    if ONLINE:
        tl.store(d_shares + A_BEFORE * C, d_a_before)
        tl.store(d_shares + B_BEFORE * C, d_b_before)


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
    """The gradients of a tile's gates from those of its shares and of its tables C lr and, with PAST, C' lr.

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

    # The last rows of C lr and D lr are the state's update; C = F D, b = F e: to D and e, and how much of a and b leads
    # back to each token.
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
    # A gate's gradient is what passes it: from a row before it, to a row at or after it.
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
