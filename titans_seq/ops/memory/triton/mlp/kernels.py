"""Triton kernels of the memory of depth 2, y = act(x W1) W2, forward and backward.

A head's state, W1, S1, W2 and S2, fits neither into registers nor into shared memory (256 KiB at head_dim 64 and
expansion 4). It stays in global memory, which for a few heads per multiprocessor means the L2 cache, and is streamed
through the chip tile by tile, `HB` hidden units at a time: everything but the outputs, the errors and three small
tables is local to a block of hidden units. A program computes one head of one batch element.

    matrix_prepare       all tiles in parallel   as for a matrix memory
    mlp_walk             tiles in order          errors and the states
    mlp_read             all tiles in parallel   outputs
    mlp_reads_backward   all tiles in parallel   from the outputs' gradients, through the reads
    mlp_walk_backward    tiles in reverse order  through the writes, to the gradients of the state
    mlp_finish_backward  all tiles in parallel   from these to the gradients of keys and decay coefficients
    gates_backward       all tiles in parallel   as for a matrix memory

The mathematics and the meaning of AT are those of README.md and of `triton/kernels.py`, whose conventions hold here
too. Layouts, with M = E (D + D_V) numbers for W1 (D, E) followed by W2 (E, D_V), E hidden units: a state is W then S, 2
M numbers; a reference and a decay target (`anchor`) are M. With ANCHOR, forgetting decays to the initial weights: state
and reference are stored relative to these, the decay target, which is added wherever they are read.

Threads of a program read what other threads of it wrote to global memory, hence `tl.debug_barrier` in between. Tokens
are loaded again for every block of hidden units, from the L1 cache: loaded once before the loop, the compiler would
convert them to the layouts of all products of the loop in advance, and run out of registers.
"""

import triton
import triton.language as tl

from titans_seq.ops.memory.triton.kernels import (
    _RUNTIME,
    SHARES,
    TO_SURPRISE,
    TO_WEIGHTS,
    A,
    B,
    E,
    _load_tokens,
    _matmul,
    _place,
    _store_table,
    _table,
)

# Outputs of `mlp_reads_backward` for a tile's hidden units: pre-activations of the keys, errors after the activation,
# pre-activations of the queries; gradients of the latter, of the errors before the activation, of the keys' units.
HIDDEN, BACK, READ, D_READ, D_DELTAS, D_INPUTS = (tl.constexpr(plane) for plane in range(6))
QUANTITIES = tl.constexpr(6)


@triton.jit
def _act(z, ACT: tl.constexpr):
    """Activation."""
    if ACT == "silu":
        value = z * tl.sigmoid(z)
    elif ACT == "gelu":
        value = 0.5 * z * (1.0 + tl.erf(z * 0.7071067811865476))
    else:
        value = tl.maximum(z, 0.0)
    return value


@triton.jit
def _slope(z, ACT: tl.constexpr):
    """Derivative of the activation."""
    if ACT == "silu":
        gate = tl.sigmoid(z)
        slope = gate * (1.0 + z * (1.0 - gate))
    elif ACT == "gelu":
        slope = 0.5 * (1.0 + tl.erf(z * 0.7071067811865476)) + z * tl.exp(-0.5 * z * z) * 0.3989422804014327
    else:
        slope = tl.where(z > 0.0, 1.0, 0.0)
    return slope


@triton.jit
def _curvature(z, ACT: tl.constexpr):
    """Second derivative of the activation."""
    if ACT == "silu":
        gate = tl.sigmoid(z)
        second_derivative = gate * (1.0 - gate) * (2.0 + z * (1.0 - 2.0 * gate))
    elif ACT == "gelu":
        second_derivative = tl.exp(-0.5 * z * z) * (2.0 - z * z) * 0.3989422804014327
    else:
        second_derivative = tl.zeros_like(z)
    return second_derivative


@triton.jit
def _first(unit, D: tl.constexpr, H: tl.constexpr, HB: tl.constexpr):
    """Return the memory offsets of columns `unit` to `unit` + HB of W1 (D, H)."""
    return tl.arange(0, D)[:, None].to(tl.int64) * H + tl.arange(0, HB)[None, :] + unit


@triton.jit
def _second(unit, D: tl.constexpr, D_V: tl.constexpr, H: tl.constexpr, HB: tl.constexpr):
    """Return the memory offsets of rows `unit` to `unit` + HB of W2 (H, D_V), stored after W1."""
    return tl.arange(0, HB)[:, None].to(tl.int64) * D_V + tl.arange(0, D_V)[None, :] + (D * H + unit * D_V)


@triton.jit
def _at(reference_ptr, anchor_ptr, offsets, ANCHOR: tl.constexpr):
    """Load weights at which gradients are taken."""
    weights = tl.load(reference_ptr + offsets)
    if ANCHOR:
        weights += tl.load(anchor_ptr + offsets)
    return weights


@triton.jit
def _add(ptr, offsets, block):
    """Add `block` to the values in memory."""
    found = tl.load(ptr + offsets)
    tl.debug_barrier()
    tl.store(ptr + offsets, found + block)


@triton.jit
def _hand_over(source, target, anchor, offsets, ANCHOR: tl.constexpr):
    """Add the gradient in `source`, of W plus decay target, to the gradients of both, and zero `source`."""
    found = tl.load(source + offsets)
    _add(target, offsets, found)
    if ANCHOR:
        _add(anchor, offsets, found)
    tl.store(source + offsets, tl.zeros_like(found))


@triton.jit(do_not_specialize=[*_RUNTIME, "count"])
def mlp_walk(
    k_ptr,
    v_ptr,
    shares_ptr,
    states_ptr,
    reference_ptr,
    anchor_ptr,
    errors_ptr,
    heads,
    sequence,
    first,
    stop,
    size,
    parts,
    count,
    blocks,
    D: tl.constexpr,
    D_V: tl.constexpr,
    H: tl.constexpr,
    HB: tl.constexpr,
    C: tl.constexpr,
    ACT: tl.constexpr,
    PRECISION: tl.constexpr,
    AT: tl.constexpr,
    ANCHOR: tl.constexpr,
):
    """Run the recurrence over `count` tiles, with `blocks` = H / HB blocks of hidden units each.

    Grid (G,). `states` (count + 1, G, 2 M): the first is given, the others are written; errors (count, G, C, D_V).
    """
    state, states = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    batch, head = state // heads, state % heads
    rows = tl.arange(0, C)
    M: tl.constexpr = H * (D + D_V)
    anchor = anchor_ptr + state * M

    for n in range(count):
        tile = n * states + state
        source = states_ptr + tile * 2 * M
        target = source + states * 2 * M
        at = source
        if AT == "given":
            at = reference_ptr + state * M
        elif AT == "chunk":
            at -= (n % parts) * states * 2 * M
        token, live = _place(n, first, stop, size, parts, batch, sequence, C)
        at_errors = errors_ptr + (tile * C + rows)[:, None] * D_V + tl.arange(0, D_V)[None, :]
        errors = -_load_tokens(v_ptr, token, live, head, heads, D_V, 0, D_V)
        for block in range(blocks):
            of_first, of_second = _first(block * HB, D, H, HB), _second(block * HB, D, D_V, H, HB)
            keys = _load_tokens(k_ptr, token, live, head, heads, D, 0, D)
            inputs = _act(_matmul(keys, _at(at, anchor, of_first, ANCHOR), PRECISION), ACT)
            tl.debug_barrier()
            errors += _matmul(inputs, _at(at, anchor, of_second, ANCHOR), PRECISION)
        tl.store(at_errors, 2.0 * errors)
        tl.debug_barrier()

        shares = shares_ptr + tile * SHARES * C
        # At padding tokens the coefficients equal those of the last valid token.
        a_end, b_end = tl.load(shares + A * C + C - 1), tl.load(shares + B * C + C - 1)
        e_end = tl.load(shares + E * C + C - 1)
        to_weights = tl.load(shares + TO_WEIGHTS * C + rows)[:, None]
        to_surprise = tl.load(shares + TO_SURPRISE * C + rows)[:, None]
        for block in range(blocks):
            of_first, of_second = _first(block * HB, D, H, HB), _second(block * HB, D, D_V, H, HB)
            keys = _load_tokens(k_ptr, token, live, head, heads, D, 0, D)
            hidden = _matmul(keys, _at(at, anchor, of_first, ANCHOR), PRECISION)
            tl.debug_barrier()
            # The second layer's update.
            columns = tl.trans(_act(hidden, ACT))
            errors = tl.load(at_errors)
            weights, surprise = tl.load(source + of_second), tl.load(source + M + of_second)
            weights = a_end * weights + b_end * surprise - _matmul(columns, errors * to_weights, PRECISION)
            tl.store(target + of_second, weights)
            tl.store(target + M + of_second, e_end * surprise - _matmul(columns, errors * to_surprise, PRECISION))
            tl.debug_barrier()
            # Inner backward pass: the errors at the first layer's outputs, and its update.
            errors = tl.load(at_errors)
            deltas = _matmul(errors, tl.trans(_at(at, anchor, of_second, ANCHOR)), PRECISION) * _slope(hidden, ACT)
            tl.debug_barrier()
            columns = tl.trans(_load_tokens(k_ptr, token, live, head, heads, D, 0, D))
            weights, surprise = tl.load(source + of_first), tl.load(source + M + of_first)
            weights = a_end * weights + b_end * surprise - _matmul(columns, deltas * to_weights, PRECISION)
            tl.store(target + of_first, weights)
            tl.store(target + M + of_first, e_end * surprise - _matmul(columns, deltas * to_surprise, PRECISION))
            tl.debug_barrier()


@triton.jit(do_not_specialize=_RUNTIME)
def mlp_read(
    q_ptr,
    k_ptr,
    shares_ptr,
    scores_ptr,
    writes_ptr,
    states_ptr,
    reference_ptr,
    anchor_ptr,
    errors_ptr,
    read_ptr,
    y_ptr,
    heads,
    sequence,
    first,
    stop,
    size,
    parts,
    blocks,
    D: tl.constexpr,
    D_V: tl.constexpr,
    H: tl.constexpr,
    HB: tl.constexpr,
    C: tl.constexpr,
    ACT: tl.constexpr,
    PRECISION: tl.constexpr,
    AT: tl.constexpr,
    ANCHOR: tl.constexpr,
):
    """Compute the outputs from the states at the tiles' starts and the errors.

    Grid (tiles, G). `read` (tiles, G, C, H), the queries' hidden units, is scratch.
    """
    n, state = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    states = tl.num_programs(1).to(tl.int64)
    tile = n * states + state
    batch, head = state // heads, state % heads
    rows = tl.arange(0, C)
    M: tl.constexpr = H * (D + D_V)
    anchor = anchor_ptr + state * M
    source = states_ptr + tile * 2 * M
    at = source
    if AT == "given":
        at = reference_ptr + state * M
    elif AT == "chunk":
        at -= (n % parts) * states * 2 * M
    token, live = _place(n, first, stop, size, parts, batch, sequence, C)
    shares = shares_ptr + tile * SHARES * C
    a, b = tl.load(shares + A * C + rows)[:, None], tl.load(shares + B * C + rows)[:, None]
    at_errors = errors_ptr + (tile * C + rows)[:, None] * D_V + tl.arange(0, D_V)[None, :]
    units = read_ptr + tile * C * H + rows[:, None] * H + tl.arange(0, HB)[None, :]
    similarity = tl.zeros((C, C), tl.float32)
    for block in range(blocks):
        of_first, of_second = _first(block * HB, D, H, HB), _second(block * HB, D, D_V, H, HB)
        keys = _load_tokens(k_ptr, token, live, head, heads, D, 0, D)
        hidden = _matmul(keys, _at(at, anchor, of_first, ANCHOR), PRECISION)
        tl.debug_barrier()
        back = _matmul(tl.load(at_errors), tl.trans(_at(at, anchor, of_second, ANCHOR)), PRECISION)
        deltas = back * _slope(hidden, ACT)
        tl.debug_barrier()
        queries = _load_tokens(q_ptr, token, live, head, heads, D, 0, D)
        read = a * _matmul(queries, tl.load(source + of_first), PRECISION)
        read += b * _matmul(queries, tl.load(source + M + of_first), PRECISION)
        if ANCHOR:
            read += _matmul(queries, tl.load(anchor + of_first), PRECISION)
        tl.debug_barrier()
        read = _act(read - _matmul(_table(scores_ptr + tile * C * C, C), deltas, PRECISION), ACT)
        tl.store(units + block * HB, read)
        similarity += _matmul(read, tl.trans(_act(hidden, ACT)), PRECISION)

    tl.debug_barrier()
    y = -_matmul(similarity * _table(writes_ptr + tile * C * C, C), tl.load(at_errors), PRECISION)
    for block in range(blocks):
        of_second = _second(block * HB, D, D_V, H, HB)
        read = tl.load(units + block * HB)
        y += a * _matmul(read, tl.load(source + of_second), PRECISION)
        y += b * _matmul(read, tl.load(source + M + of_second), PRECISION)
        if ANCHOR:
            y += _matmul(read, tl.load(anchor + of_second), PRECISION)
    at_y = ((token * heads + head) * D_V)[:, None] + tl.arange(0, D_V)[None, :]
    tl.store(y_ptr + at_y, y.to(y_ptr.dtype.element_ty), mask=live[:, None])


@triton.jit
def _unit_offsets(tile, C: tl.constexpr, H: tl.constexpr, HB: tl.constexpr):
    """Return the memory offsets of a tile's rows in the first of the `QUANTITIES`, first block of hidden units."""
    return tile * QUANTITIES * C * H + tl.arange(0, C)[:, None].to(tl.int64) * H + tl.arange(0, HB)[None, :]


@triton.jit(do_not_specialize=_RUNTIME)
def mlp_reads_backward(
    q_ptr,
    k_ptr,
    shares_ptr,
    scores_ptr,
    writes_ptr,
    states_ptr,
    reference_ptr,
    anchor_ptr,
    errors_ptr,
    d_y_ptr,
    units_ptr,
    d_q_ptr,
    d_keys_ptr,
    d_errors_ptr,
    d_shares_ptr,
    d_writes_ptr,
    heads,
    sequence,
    first,
    stop,
    size,
    parts,
    blocks,
    D: tl.constexpr,
    D_V: tl.constexpr,
    H: tl.constexpr,
    HB: tl.constexpr,
    C: tl.constexpr,
    ACT: tl.constexpr,
    PRECISION: tl.constexpr,
    AT: tl.constexpr,
    ANCHOR: tl.constexpr,
):
    """Backward pass of the reads: gradients that do not depend on those of the tile's end.

    Grid (tiles, G). Writes the gradients of q, of the table of writes, which is C lr, and of the coefficients a and b;
    and, to be completed by later kernels, those of keys (tiles, G, C, D) and errors (tiles, G, C, D_V), and `units`
    (tiles, G, QUANTITIES, C, H).
    """
    n, state = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    states = tl.num_programs(1).to(tl.int64)
    tile = n * states + state
    batch, head = state // heads, state % heads
    rows = tl.arange(0, C)
    M: tl.constexpr = H * (D + D_V)
    anchor = anchor_ptr + state * M
    source = states_ptr + tile * 2 * M
    at = source
    if AT == "given":
        at = reference_ptr + state * M
    elif AT == "chunk":
        at -= (n % parts) * states * 2 * M
    token, live = _place(n, first, stop, size, parts, batch, sequence, C)
    shares = shares_ptr + tile * SHARES * C
    a, b = tl.load(shares + A * C + rows)[:, None], tl.load(shares + B * C + rows)[:, None]
    at_errors = errors_ptr + (tile * C + rows)[:, None] * D_V + tl.arange(0, D_V)[None, :]

    similarity = tl.zeros((C, C), tl.float32)
    units = units_ptr + _unit_offsets(tile, C, H, HB)
    quantity: tl.constexpr = C * H
    for block in range(blocks):  # recompute the values of the forward pass
        of_first, of_second = _first(block * HB, D, H, HB), _second(block * HB, D, D_V, H, HB)
        of_block = units + block * HB
        keys = _load_tokens(k_ptr, token, live, head, heads, D, 0, D)
        hidden = _matmul(keys, _at(at, anchor, of_first, ANCHOR), PRECISION)
        tl.store(of_block + HIDDEN * quantity, hidden)
        tl.debug_barrier()
        back = _matmul(tl.load(at_errors), tl.trans(_at(at, anchor, of_second, ANCHOR)), PRECISION)
        tl.store(of_block + BACK * quantity, back)
        deltas = back * _slope(hidden, ACT)
        tl.debug_barrier()
        queries = _load_tokens(q_ptr, token, live, head, heads, D, 0, D)
        read = a * _matmul(queries, tl.load(source + of_first), PRECISION)
        read += b * _matmul(queries, tl.load(source + M + of_first), PRECISION)
        if ANCHOR:
            read += _matmul(queries, tl.load(anchor + of_first), PRECISION)
        tl.debug_barrier()
        read -= _matmul(_table(scores_ptr + tile * C * C, C), deltas, PRECISION)
        tl.store(of_block + READ * quantity, read)
        similarity += _matmul(_act(read, ACT), tl.trans(_act(hidden, ACT)), PRECISION)

    tl.debug_barrier()
    d_y = _load_tokens(d_y_ptr, token, live, head, heads, D_V, 0, D_V)
    d_writes = -_matmul(d_y, tl.trans(tl.load(at_errors)), PRECISION)
    d_similarity = d_writes * _table(writes_ptr + tile * C * C, C)
    d_queries = tl.zeros((C, D), tl.float32)
    d_scores = tl.zeros((C, C), tl.float32)
    d_a = tl.zeros((C,), tl.float32)
    d_b = tl.zeros((C,), tl.float32)
    tl.debug_barrier()
    for block in range(blocks):
        of_first, of_second = _first(block * HB, D, H, HB), _second(block * HB, D, D_V, H, HB)
        of_block = units + block * HB
        # Through the second layer's reads.
        d_y = _load_tokens(d_y_ptr, token, live, head, heads, D_V, 0, D_V)
        read = tl.load(of_block + READ * quantity)
        of_read = _act(read, ACT)
        from_weights = _matmul(d_y, tl.trans(tl.load(source + of_second)), PRECISION)
        from_surprise = _matmul(d_y, tl.trans(tl.load(source + M + of_second)), PRECISION)
        d_a += tl.sum(of_read * from_weights, axis=1)
        d_b += tl.sum(of_read * from_surprise, axis=1)
        d_read = a * from_weights + b * from_surprise
        if ANCHOR:
            d_read += _matmul(d_y, tl.trans(tl.load(anchor + of_second)), PRECISION)
        tl.debug_barrier()
        hidden = tl.load(of_block + HIDDEN * quantity)
        d_read += _matmul(d_similarity, _act(hidden, ACT), PRECISION)
        tl.store(of_block + D_INPUTS * quantity, _matmul(tl.trans(d_similarity), of_read, PRECISION))
        tl.debug_barrier()
        # Through the first layer's reads.
        d_read *= _slope(read, ACT)
        tl.store(of_block + D_READ * quantity, d_read)
        deltas = tl.load(of_block + BACK * quantity) * _slope(hidden, ACT)
        d_scores -= _matmul(d_read, tl.trans(deltas), PRECISION)
        d_deltas = -_matmul(tl.trans(_table(scores_ptr + tile * C * C, C)), d_read, PRECISION)
        tl.store(of_block + D_DELTAS * quantity, d_deltas)
        tl.debug_barrier()
        queries = _load_tokens(q_ptr, token, live, head, heads, D, 0, D)
        from_weights = _matmul(d_read, tl.trans(tl.load(source + of_first)), PRECISION)
        from_surprise = _matmul(d_read, tl.trans(tl.load(source + M + of_first)), PRECISION)
        d_a += tl.sum(queries * from_weights, axis=1)
        d_b += tl.sum(queries * from_surprise, axis=1)
        d_queries += a * from_weights + b * from_surprise
        if ANCHOR:
            d_queries += _matmul(d_read, tl.trans(tl.load(anchor + of_first)), PRECISION)

    tl.debug_barrier()
    # Through the reads of both layers' writes. Scores are (q . k) C lr.
    d_y = _load_tokens(d_y_ptr, token, live, head, heads, D_V, 0, D_V)
    writes = _table(writes_ptr + tile * C * C, C)
    d_errors = -_matmul(tl.trans(similarity * writes), d_y, PRECISION)
    tl.store(d_errors_ptr + (tile * C + rows)[:, None] * D_V + tl.arange(0, D_V)[None, :], d_errors)
    tl.debug_barrier()
    queries = _load_tokens(q_ptr, token, live, head, heads, D, 0, D)
    keys = _load_tokens(k_ptr, token, live, head, heads, D, 0, D)
    d_products = d_scores * writes
    d_writes = d_writes * similarity + d_scores * _matmul(queries, tl.trans(keys), PRECISION)
    _store_table(d_writes_ptr + tile * C * C, d_writes, C)
    d_queries += _matmul(d_products, keys, PRECISION)
    at_key = ((token * heads + head) * D)[:, None] + tl.arange(0, D)[None, :]
    tl.store(d_q_ptr + at_key, d_queries.to(d_q_ptr.dtype.element_ty), mask=live[:, None])
    d_keys = _matmul(tl.trans(d_products), queries, PRECISION)
    tl.store(d_keys_ptr + (tile * C + rows)[:, None] * D + tl.arange(0, D)[None, :], d_keys)
    d_shares = d_shares_ptr + tile * SHARES * C + rows
    tl.store(d_shares + A * C, d_a)
    tl.store(d_shares + B * C, d_b)


@triton.jit(do_not_specialize=[*_RUNTIME, "count"])
def mlp_walk_backward(
    q_ptr,
    k_ptr,
    shares_ptr,
    states_ptr,
    reference_ptr,
    anchor_ptr,
    errors_ptr,
    d_y_ptr,
    units_ptr,
    d_errors_ptr,
    d_states_ptr,
    d_reference_ptr,
    d_anchor_ptr,
    d_v_ptr,
    heads,
    sequence,
    first,
    stop,
    size,
    parts,
    count,
    blocks,
    D: tl.constexpr,
    D_V: tl.constexpr,
    H: tl.constexpr,
    HB: tl.constexpr,
    C: tl.constexpr,
    ACT: tl.constexpr,
    PRECISION: tl.constexpr,
    AT: tl.constexpr,
    ANCHOR: tl.constexpr,
    FIRST_ORDER: tl.constexpr,
):
    """Run the recurrence in reverse, from the gradients of the last state to those of the first.

    Grid (G,). `d_states` (count + 1, G, 2 M): the last is given, the others are written; the gradients of reference and
    decay target (`anchor`) are updated in place. Takes the outputs of `mlp_reads_backward`; writes the gradients of v,
    and to `units` those of hidden units before the activation.
    """
    state, states = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    batch, head = state // heads, state % heads
    rows = tl.arange(0, C)
    M: tl.constexpr = H * (D + D_V)
    quantity: tl.constexpr = C * H
    anchor, d_anchor = anchor_ptr + state * M, d_anchor_ptr + state * M

    for i in range(count):
        n = count - 1 - i
        tile = n * states + state
        at = states_ptr + tile * 2 * M
        if AT == "given":
            at = reference_ptr + state * M
        elif AT == "chunk":
            at -= (n % parts) * states * 2 * M
        d_start = d_states_ptr + tile * 2 * M
        d_end = d_start + states * 2 * M
        d_at = d_reference_ptr + state * M
        if AT == "tile":
            d_at = d_start  # gradients are taken at its W
        token, live = _place(n, first, stop, size, parts, batch, sequence, C)
        shares = shares_ptr + tile * SHARES * C
        a, b = tl.load(shares + A * C + rows)[:, None], tl.load(shares + B * C + rows)[:, None]
        a_end, b_end = tl.load(shares + A * C + C - 1), tl.load(shares + B * C + C - 1)
        e_end = tl.load(shares + E * C + C - 1)
        to_weights = tl.load(shares + TO_WEIGHTS * C + rows)[:, None]
        to_surprise = tl.load(shares + TO_SURPRISE * C + rows)[:, None]
        at_errors = (tile * C + rows)[:, None] * D_V + tl.arange(0, D_V)[None, :]
        d_errors = tl.load(d_errors_ptr + at_errors)
        at_errors += errors_ptr
        units = units_ptr + _unit_offsets(tile, C, H, HB)
        tl.debug_barrier()
        for block in range(blocks):
            of_first, of_second = _first(block * HB, D, H, HB), _second(block * HB, D, D_V, H, HB)
            of_block = units + block * HB
            # Through the second layer's update.
            inputs = _act(tl.load(of_block + HIDDEN * quantity), ACT)
            d_weights, d_surprise = tl.load(d_end + of_second), tl.load(d_end + M + of_second)
            d_errors -= to_weights * _matmul(inputs, d_weights, PRECISION)
            d_errors -= to_surprise * _matmul(inputs, d_surprise, PRECISION)
            tl.debug_barrier()
            errors = tl.load(at_errors)
            d_inputs = tl.load(of_block + D_INPUTS * quantity)
            d_inputs -= _matmul(errors * to_weights, tl.trans(d_weights), PRECISION)
            d_inputs -= _matmul(errors * to_surprise, tl.trans(d_surprise), PRECISION)
            tl.debug_barrier()
            # Gradients of the start's W2 and S2 from the end's.
            columns = tl.trans(_act(tl.load(of_block + READ * quantity), ACT))
            d_y = _load_tokens(d_y_ptr, token, live, head, heads, D_V, 0, D_V)
            d_surprise = b_end * d_weights + e_end * d_surprise + _matmul(columns, b * d_y, PRECISION)
            tl.store(d_start + M + of_second, d_surprise)
            tl.store(d_start + of_second, a_end * d_weights + _matmul(columns, a * d_y, PRECISION))
            if ANCHOR:
                _add(d_anchor, of_second, _matmul(columns, d_y, PRECISION))
            tl.debug_barrier()

            # Through the first layer's update.
            keys = _load_tokens(k_ptr, token, live, head, heads, D, 0, D)
            d_weights, d_surprise = tl.load(d_end + of_first), tl.load(d_end + M + of_first)
            d_deltas = tl.load(of_block + D_DELTAS * quantity)
            d_deltas -= to_weights * _matmul(keys, d_weights, PRECISION)
            d_deltas -= to_surprise * _matmul(keys, d_surprise, PRECISION)
            tl.debug_barrier()
            # Gradients of the start's W1 and S1 from the end's.
            columns = tl.trans(_load_tokens(q_ptr, token, live, head, heads, D, 0, D))
            d_read = tl.load(of_block + D_READ * quantity)
            d_surprise = b_end * d_weights + e_end * d_surprise + _matmul(columns, b * d_read, PRECISION)
            tl.store(d_start + M + of_first, d_surprise)
            tl.store(d_start + of_first, a_end * d_weights + _matmul(columns, a * d_read, PRECISION))
            if ANCHOR:
                _add(d_anchor, of_first, _matmul(columns, d_read, PRECISION))
            tl.debug_barrier()

            # Through the inner backward pass.
            hidden = tl.load(of_block + HIDDEN * quantity)
            slope = _slope(hidden, ACT)
            d_back = d_deltas * slope
            d_errors += _matmul(d_back, _at(at, anchor, of_second, ANCHOR), PRECISION)
            # The second derivative's term, and the hidden units' gradient through the update.
            curved = d_deltas * tl.load(of_block + BACK * quantity) * _curvature(hidden, ACT)
            tl.store(of_block + D_INPUTS * quantity, d_inputs * slope + curved)
            if not FIRST_ORDER:
                tl.debug_barrier()
                d_second = _matmul(tl.trans(d_back), tl.load(at_errors), PRECISION)
                _add(d_at, of_second, d_second)
                if ANCHOR and AT == "tile":
                    _add(d_anchor, of_second, d_second)
            tl.debug_barrier()

        # Through the inner loss, and the inner forward pass.
        d_errors *= 2.0
        at_v = ((token * heads + head) * D_V)[:, None] + tl.arange(0, D_V)[None, :]
        tl.store(d_v_ptr + at_v, -d_errors.to(d_v_ptr.dtype.element_ty), mask=live[:, None])
        for block in range(blocks):
            of_first, of_second = _first(block * HB, D, H, HB), _second(block * HB, D, D_V, H, HB)
            of_block = units + block * HB
            hidden = tl.load(of_block + HIDDEN * quantity)
            d_hidden = _matmul(d_errors, tl.trans(_at(at, anchor, of_second, ANCHOR)), PRECISION)
            d_hidden = tl.load(of_block + D_INPUTS * quantity) + d_hidden * _slope(hidden, ACT)
            tl.store(of_block + D_INPUTS * quantity, d_hidden)
            if not FIRST_ORDER:
                tl.debug_barrier()
                keys = _load_tokens(k_ptr, token, live, head, heads, D, 0, D)
                d_first = _matmul(tl.trans(keys), d_hidden, PRECISION)
                _add(d_at, of_first, d_first)
                if ANCHOR and AT == "tile":
                    _add(d_anchor, of_first, d_first)
                tl.debug_barrier()
                d_second = _matmul(tl.trans(_act(hidden, ACT)), d_errors, PRECISION)
                _add(d_at, of_second, d_second)
                if ANCHOR and AT == "tile":
                    _add(d_anchor, of_second, d_second)

        tl.debug_barrier()
        if AT == "chunk" and not FIRST_ORDER:
            if n % parts == 0:  # the gradient of the chunk's start is complete
                for block in range(blocks):
                    _hand_over(d_at, d_start, d_anchor, _first(block * HB, D, H, HB), ANCHOR)
                    _hand_over(d_at, d_start, d_anchor, _second(block * HB, D, D_V, H, HB), ANCHOR)
                tl.debug_barrier()


@triton.jit(do_not_specialize=_RUNTIME)
def mlp_finish_backward(
    k_ptr,
    shares_ptr,
    states_ptr,
    reference_ptr,
    anchor_ptr,
    errors_ptr,
    units_ptr,
    d_keys_ptr,
    d_states_ptr,
    d_k_ptr,
    d_shares_ptr,
    heads,
    sequence,
    first,
    stop,
    size,
    parts,
    blocks,
    D: tl.constexpr,
    D_V: tl.constexpr,
    H: tl.constexpr,
    HB: tl.constexpr,
    C: tl.constexpr,
    ACT: tl.constexpr,
    PRECISION: tl.constexpr,
    AT: tl.constexpr,
    ANCHOR: tl.constexpr,
):
    """Compute the gradients of keys and of the state update's coefficients. Grid (tiles, G)."""
    n, state = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    states = tl.num_programs(1).to(tl.int64)
    tile = n * states + state
    batch, head = state // heads, state % heads
    rows = tl.arange(0, C)
    M: tl.constexpr = H * (D + D_V)
    quantity: tl.constexpr = C * H
    anchor = anchor_ptr + state * M
    source = states_ptr + tile * 2 * M
    at = source
    if AT == "given":
        at = reference_ptr + state * M
    elif AT == "chunk":
        at -= (n % parts) * states * 2 * M
    d_end = d_states_ptr + (tile + states) * 2 * M
    token, live = _place(n, first, stop, size, parts, batch, sequence, C)
    shares = shares_ptr + tile * SHARES * C + rows
    at_errors = errors_ptr + (tile * C + rows)[:, None] * D_V + tl.arange(0, D_V)[None, :]
    units = units_ptr + _unit_offsets(tile, C, H, HB)
    d_keys = tl.load(d_keys_ptr + (tile * C + rows)[:, None] * D + tl.arange(0, D)[None, :])
    d_to_weights = tl.zeros((C,), tl.float32)
    d_to_surprise = tl.zeros((C,), tl.float32)
    d_a_end, d_b_end, d_e_end = 0.0, 0.0, 0.0
    for block in range(blocks):
        of_first, of_second = _first(block * HB, D, H, HB), _second(block * HB, D, D_V, H, HB)
        of_block = units + block * HB
        # The second layer's update.
        d_weights, d_surprise = tl.load(d_end + of_second), tl.load(d_end + M + of_second)
        weights, surprise = tl.load(source + of_second), tl.load(source + M + of_second)
        d_a_end += tl.sum(tl.sum(weights * d_weights, axis=1), axis=0)
        d_b_end += tl.sum(tl.sum(surprise * d_weights, axis=1), axis=0)
        d_e_end += tl.sum(tl.sum(surprise * d_surprise, axis=1), axis=0)
        tl.debug_barrier()
        inputs = _act(tl.load(of_block + HIDDEN * quantity), ACT)
        errors = tl.load(at_errors)
        d_to_weights -= tl.sum(errors * _matmul(inputs, d_weights, PRECISION), axis=1)
        d_to_surprise -= tl.sum(errors * _matmul(inputs, d_surprise, PRECISION), axis=1)
        tl.debug_barrier()
        # The first layer's update.
        d_weights, d_surprise = tl.load(d_end + of_first), tl.load(d_end + M + of_first)
        weights, surprise = tl.load(source + of_first), tl.load(source + M + of_first)
        d_a_end += tl.sum(tl.sum(weights * d_weights, axis=1), axis=0)
        d_b_end += tl.sum(tl.sum(surprise * d_weights, axis=1), axis=0)
        d_e_end += tl.sum(tl.sum(surprise * d_surprise, axis=1), axis=0)
        tl.debug_barrier()
        # A write is to_weights k (outer) delta; its inner products with the gradients, via delta and via key.
        deltas = tl.load(of_block + BACK * quantity) * _slope(tl.load(of_block + HIDDEN * quantity), ACT)
        from_weights = _matmul(deltas, tl.trans(d_weights), PRECISION)
        from_surprise = _matmul(deltas, tl.trans(d_surprise), PRECISION)
        keys = _load_tokens(k_ptr, token, live, head, heads, D, 0, D)
        d_to_weights -= tl.sum(keys * from_weights, axis=1)
        d_to_surprise -= tl.sum(keys * from_surprise, axis=1)
        d_keys -= tl.load(shares + TO_WEIGHTS * C)[:, None] * from_weights
        d_keys -= tl.load(shares + TO_SURPRISE * C)[:, None] * from_surprise
        tl.debug_barrier()
        # The inner forward pass.
        d_hidden = tl.load(of_block + D_INPUTS * quantity)
        d_keys += _matmul(d_hidden, tl.trans(_at(at, anchor, of_first, ANCHOR)), PRECISION)
        tl.debug_barrier()

    at_key = ((token * heads + head) * D)[:, None] + tl.arange(0, D)[None, :]
    tl.store(d_k_ptr + at_key, d_keys.to(d_k_ptr.dtype.element_ty), mask=live[:, None])
    is_last = rows == C - 1
    d_shares = d_shares_ptr + tile * SHARES * C + rows
    tl.store(d_shares + A * C, tl.load(d_shares + A * C) + tl.where(is_last, d_a_end, 0.0))
    tl.store(d_shares + B * C, tl.load(d_shares + B * C) + tl.where(is_last, d_b_end, 0.0))
    tl.store(d_shares + E * C, tl.where(is_last, d_e_end, 0.0))
    tl.store(d_shares + TO_WEIGHTS * C, d_to_weights)
    tl.store(d_shares + TO_SURPRISE * C, d_to_surprise)
