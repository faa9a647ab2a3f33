"""Triton kernels of the matrix memory: the recurrences over tiles, and gradients from their states."""

import triton
import triton.language as tl

from titans_seq.ops.memory.triton.kernels import (
    _RUNTIME,
    A_BEFORE,
    B_BEFORE,
    SHARES,
    TO_SURPRISE,
    TO_WEIGHTS,
    A,
    B,
    E,
    _exact_matmul,
    _load_tokens,
    _matmul,
    _place,
    _products_of_tokens,
    _state_offsets,
    _store_table,
    _table,
)


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
    """Run the recurrence over `count` tiles from W and S at the start to those at the end.

    Grid (G, D_V / V). With READ it writes the outputs, with KEEP the values for the backward pass: W and S at every
    tile's start (count, 2, G, D, D_V) and the errors (count, G, C, D_V). `reference` is read if AT is "given".
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

        # At padding tokens the coefficients equal those of the last valid token.
        a, b, e = tl.load(shares + A * C + C - 1), tl.load(shares + B * C + C - 1), tl.load(shares + E * C + C - 1)
        to_weights, to_surprise = tl.load(shares + TO_WEIGHTS * C + rows), tl.load(shares + TO_SURPRISE * C + rows)
        tl.debug_barrier()
        # Tokens are loaded again for each use, rather than held in registers.
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
    """Run the recurrence in reverse, from the gradients of outputs and of the end's W and S to those at the start.

    Grid (G, D_V / V). Writes the gradients of the values, which are minus those of the errors' right-hand sides, and
    those of W and S at every tile's end (count, 2, G, D, D_V), for `matrix_finish_backward`; adds to those of a given
    reference.
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

        # Gradient of the errors, through the state's update and the reads of the chunk's own writes.
        to_weights, to_surprise = tl.load(shares + TO_WEIGHTS * C + rows), tl.load(shares + TO_SURPRISE * C + rows)
        d_errors = -to_weights[:, None] * _matmul(keys, d_weights, PRECISION)
        d_errors -= to_surprise[:, None] * _matmul(keys, d_surprise, PRECISION)
        d_errors -= _matmul(tl.trans(_table(scores_ptr + tile * C * C, C)), d_y, PRECISION)

        tl.debug_barrier()
        d_y = _load_tokens(d_y_ptr, token, live, head, heads, D_V, column, V)
        # Gradient of the start's W and S, from the end's and through the reads.
        # At padding tokens the coefficients equal those of the last valid token.
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
            if AT == "chunk":  # the first tile's start is the chunk's start
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
    """Compute a tile's gradients of q, k, coefficients and tables from its start state, errors and the end's gradients.

    Grid (tiles, G); a program accumulates over the `blocks` = D_V / V column blocks in a loop. (With a length known at
    compile time the loop would be unrolled, and all blocks held at once.)
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

        # Through the errors. (Tokens are loaded again for each use, rather than held in registers.)
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
        # The same for the coefficients of W_{t-1} in the system I + 2 C' lr (k . k).
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
