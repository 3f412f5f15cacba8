"""Triton kernels of `replicate_conv2d`: implicit matrix products over channels_last maps.

With x the input [B, H, W, C], y the output [B, U H, U W, O] and U the upsampling, each pixel of the *input's* grid
has U x U outputs, its phases (p, q). By the identity of `replicate_conv`, along one axis

    y[U i + p] = sum_s W[p, s] x[clamp(i + s)],     s in {-1, 0, 1},     W[p, s] = sum of w[a] over (p + a - 1) // U = s

so the upsampled and the padded map are never stored. The kernels have two forms:

    by phase    the grid has an axis of phases; U = 1: one phase, 3 x 3 shifts; U = 2: four phases, 2 x 2 shifts each
    packed      U = 2 with few output channels: the phases are 4 O columns of one product over 3 x 3 shifts, since
                four products of 3 columns would each be padded to 16

and `pack_weights_kernel` writes W for both as [shift, column, C], summed in float32 before any rounding. Results are
the same in every run: each is written by one program, and split sums are added in a fixed order.

Channel counts are compile-time constants, since divisions by them would be a third of the inner loop's instructions. So
is the map's size in the weight gradient, whose loop is over pixels; the other kernels are shared by maps of any size.
"""

import triton
import triton.language as tl


@triton.jit
def _coordinates(m, H, W):
    """Index of a pixel in [B, H, W] -> (image, row, column); the image as int64, since it scales to an address."""
    return (m // (H * W)).to(tl.int64), (m // W) % H, m % W


@triton.jit
def _pixel(image, row, column, H, W, O, U: tl.constexpr, p, q):
    """Offset of phase (p, q) of an input pixel in a map [B, U H, U W, O]."""
    return ((image * U * H + U * row + p) * (U * W) + U * column + q) * O


@triton.jit
def _channel(n, W, O, PACKED: tl.constexpr):
    """Offset of column n of the product in the output, relative to its pixel."""
    if PACKED:
        phase = n // O
        return ((phase // 2) * 2 * W + phase % 2) * O + n % O
    else:
        return n


@triton.jit
def _shift(step, U: tl.constexpr, PACKED: tl.constexpr):
    """Index of a (phase, shift) pair, in the order of the weights -> p, q and the shifts along rows and columns."""
    if U == 2 and not PACKED:
        p, q = step // 8, (step // 4) % 2
        return p, q, p + (step // 2) % 2 - 1, q + step % 2 - 1
    else:
        return 0, 0, step // 3 - 1, step % 3 - 1


@triton.jit
def _step(p, q, s, t, U: tl.constexpr, PACKED: tl.constexpr):
    """The inverse of `_shift`."""
    if U == 2 and not PACKED:
        return (2 * p + q) * 4 + 2 * (s + 1 - p) + t + 1 - q
    else:
        return 3 * (s + 1) + t + 1


@triton.jit
def _read_by(a, p, U):
    """The shift s of tap a of phase p: (p + a - 1) // U, rounded down."""
    return (p + a - 1 + U) // U - 1


@triton.jit
def pack_weights_kernel(
    w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12, w13, w14, w15,
    p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11, p12, p13, p14, p15,
    o0, o1, o2, o3, o4, o5, o6, o7, o8, o9, o10, o11, o12, o13, o14, o15,
    c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14, c15,
    n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11, n12, n13, n14, n15,
    u0, u1, u2, u3, u4, u5, u6, u7, u8, u9, u10, u11, u12, u13, u14, u15,
    d0, d1, d2, d3, d4, d5, d6, d7, d8, d9, d10, d11, d12, d13, d14, d15,
    WEIGHTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """packed[step, n, c] = W[p, s] of both axes: the sum of the taps that phase (p, q) reads at shift (s, t).

    The arguments are, for each weight, where it is, where its packed form goes, O, C, N, U and the distance of
    neighbouring channels in memory: 1 in channels_last, else 9. None from WEIGHTS on.
    """
    weights = (w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12, w13, w14, w15)
    targets = (p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11, p12, p13, p14, p15)
    outputs = (o0, o1, o2, o3, o4, o5, o6, o7, o8, o9, o10, o11, o12, o13, o14, o15)
    inputs = (c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14, c15)
    columns = (n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11, n12, n13, n14, n15)
    upsamplings = (u0, u1, u2, u3, u4, u5, u6, u7, u8, u9, u10, u11, u12, u13, u14, u15)
    distances = (d0, d1, d2, d3, d4, d5, d6, d7, d8, d9, d10, d11, d12, d13, d14, d15)
    # One body with selected arguments, as in `feature_loss_kernel`.
    program = tl.program_id(0)
    weight, packed = w0, p0
    O, C, N = tl.cast(o0, tl.int32), tl.cast(c0, tl.int32), tl.cast(n0, tl.int32)
    U, distance = tl.cast(u0, tl.int32), tl.cast(d0, tl.int32)
    first = tl.cast(0, tl.int32)  # first program of the selected weight
    begin = first
    for k in tl.static_range(1, WEIGHTS):
        begin += tl.cdiv(_packed_size(outputs[k - 1], inputs[k - 1], columns[k - 1], upsamplings[k - 1]), BLOCK)
        reached = program >= begin
        weight = tl.where(reached, weights[k], weight)
        packed = tl.where(reached, targets[k], packed)
        O = tl.where(reached, tl.cast(outputs[k], tl.int32), O)
        C = tl.where(reached, tl.cast(inputs[k], tl.int32), C)
        N = tl.where(reached, tl.cast(columns[k], tl.int32), N)
        U = tl.where(reached, tl.cast(upsamplings[k], tl.int32), U)
        distance = tl.where(reached, tl.cast(distances[k], tl.int32), distance)
        first = tl.where(reached, begin, first)
    index = (program - first) * BLOCK + tl.arange(0, BLOCK)
    inside = index < _packed_size(O, C, N, U)
    c, n, step = index % C, (index // C) % N, index // (C * N)
    # `_shift` at run time, and for one weight by phase, for the next not.
    by_phase = (U == 2) & (N == O)
    phase, o = tl.where(by_phase, step // 4, n // O), n % O
    p, q = phase // 2, phase % 2
    s = tl.where(by_phase, p + (step // 2) % 2, step // 3) - 1
    t = tl.where(by_phase, q + step % 2, step % 3) - 1
    tap = tl.where(distance == 1, C, 1)
    acc = tl.zeros((BLOCK,), tl.float32)
    for a in tl.static_range(3):
        for b in tl.static_range(3):
            reads = inside & (_read_by(a, p, U) == s) & (_read_by(b, q, U) == t)
            at = o * 9 * C + c * distance + (3 * a + b) * tap
            acc += tl.load(weight + at, mask=reads, other=0.0).to(tl.float32)
    tl.store(packed + index, acc.to(packed.dtype.element_ty), mask=inside)


@triton.jit
def _packed_size(O, C, N, U):
    """Numbers in a packed weight: 16 shifts where four phases have four each, otherwise 9."""
    O, C, N, U = tl.cast(O, tl.int32), tl.cast(C, tl.int32), tl.cast(N, tl.int32), tl.cast(U, tl.int32)
    return tl.where((U == 2) & (N == O), 16, 9) * C * N


@triton.jit
def forward_kernel(
    x, packed, bias, residual, y, partial_sums, M, H, W, C: tl.constexpr, O: tl.constexpr, N: tl.constexpr, slope,
    U: tl.constexpr, PACKED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """y = act(sum over shifts and channels of x[clamp(i + s), clamp(j + t), c] W[n, c] + bias[n] + residual)."""
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    phase = tl.program_id(2)
    STEPS: tl.constexpr = 4 if U == 2 and not PACKED else 9
    image, row, column = _coordinates(m, H, W)
    blocks = tl.cdiv(C, BLOCK_K)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    # One loop over shifts and channels, so that the loads of the next product overlap with this one.
    for block in range(0, STEPS * blocks):
        step = phase * STEPS + block // blocks
        c = (block % blocks) * BLOCK_K + tl.arange(0, BLOCK_K)
        _, _, s, t = _shift(step, U, PACKED)
        i = tl.minimum(tl.maximum(row + s, 0), H - 1)
        j = tl.minimum(tl.maximum(column + t, 0), W - 1)
        a = tl.load(
            x + (((image * H + i) * W + j) * C)[:, None] + c[None, :],
            mask=(m < M)[:, None] & (c < C)[None, :],
            other=0.0,
        )
        b = tl.load(
            packed + (step * N + n)[None, :] * C + c[:, None],
            mask=(n < N)[None, :] & (c < C)[:, None],
            other=0.0,
        )
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    if bias is not None:
        o = n % O
        acc += tl.load(bias + o, mask=n < N, other=0.0).to(tl.float32)[None, :]
    p, q, _, _ = _shift(phase * STEPS, U, PACKED)
    at = _pixel(image, row, column, H, W, O, U, p, q)[:, None] + _channel(n, W, O, PACKED)[None, :]
    inside = (m < M)[:, None] & (n < N)[None, :]
    if residual is not None:
        acc += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    if slope is not None:
        acc = tl.where(acc > 0, acc, acc * tl.cast(slope, tl.float32))
    result = acc.to(y.dtype.element_ty)
    tl.store(y + at, result, mask=inside)
    if partial_sums is not None:
        # Of the rounded values, since the normalisation reads those.
        seen = tl.where((m < M)[:, None], result.to(tl.float32), 0.0)
        at = (tl.program_id(0) * tl.num_programs(2) + phase) * 2 * N + n
        tl.store(partial_sums + at, tl.sum(seen, 0), mask=n < N)
        tl.store(partial_sums + at + N, tl.sum(seen * seen, 0), mask=n < N)


@triton.jit
def _masked_gradient(grad, y, at, mask, slope):
    """The gradient before the LeakyReLU, whose output y has the sign of its input."""
    g = tl.load(grad + at, mask=mask, other=0.0)
    if slope is not None:
        kept = tl.load(y + at, mask=mask, other=0.0).to(tl.float32) > 0
        g = tl.where(kept, g.to(tl.float32), g.to(tl.float32) * tl.cast(slope, tl.float32)).to(grad.dtype.element_ty)
    return g


@triton.jit
def _length(part: tl.constexpr, size):
    """How many rows (columns) of a map are the first, lie between, are the last; a single one is the first."""
    if part == 0:
        return 1
    elif part == 1:
        return tl.maximum(size - 2, 0)
    else:
        return tl.minimum(size - 1, 1)


@triton.jit
def data_gradient_kernel(
    grad, y, packed, dx, B, H, W, C: tl.constexpr, O: tl.constexpr, N: tl.constexpr, slope,
    U: tl.constexpr, PACKED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """dx[i, j, c] = sum of W[p, q, s, t][n, c] g[k, l, n] over the pixels (k, l) with clamp((k, l) + (s, t)) = (i, j).

    That is the pixel (i - s, j - t). Where it would lie above the map, no pixel reads (i, j) by this shift; but the
    first row, which is i, reads itself by the opposite shift: s = -s, and p = 1 - p with phases. Likewise below the
    map, and along columns. So each pixel has one source for each shift, of weights that depend on the borders it lies
    at. Of the nine kinds of pixels a program takes one, so that its products share their weights.
    """
    # The kind of this program's pixels, 3 * part of the rows + part of the columns, and the first program of the kind.
    program = tl.program_id(0)
    kind, first, begin = 0, 0, 0
    for k in tl.static_range(1, 9):
        begin += tl.cdiv(B * _length((k - 1) // 3, H) * _length((k - 1) % 3, W), BLOCK_M)
        kind = tl.where(program >= begin, k, kind)
        first = tl.where(program >= begin, begin, first)
    of_rows, of_columns = kind // 3, kind % 3
    rows, columns = tl.where(of_rows == 1, H - 2, 1), tl.where(of_columns == 1, W - 2, 1)
    m = (program - first) * BLOCK_M + tl.arange(0, BLOCK_M)
    M = B * rows * columns
    image, row, column = _coordinates(m, rows, columns)
    row += tl.where(of_rows == 2, H - 1, of_rows)
    column += tl.where(of_columns == 2, W - 1, of_columns)
    top, left = of_rows == 0, of_columns == 0
    bottom, right = (of_rows == 2) | (H == 1), (of_columns == 2) | (W == 1)
    c = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    STEPS: tl.constexpr = 16 if U == 2 and not PACKED else 9
    blocks = tl.cdiv(N, BLOCK_K)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for block in range(0, STEPS * blocks):
        p, q, s, t = _shift(block // blocks, U, PACKED)
        n = (block % blocks) * BLOCK_K + tl.arange(0, BLOCK_K)
        turned_i = ((s > 0) & top) | ((s < 0) & bottom)
        turned_j = ((t > 0) & left) | ((t < 0) & right)
        i, j = tl.where(turned_i, row, row - s), tl.where(turned_j, column, column - t)
        s, t = tl.where(turned_i, -s, s), tl.where(turned_j, -t, t)
        if U == 2 and not PACKED:
            p, q = tl.where(turned_i, 1 - p, p), tl.where(turned_j, 1 - q, q)
        at = _pixel(image, i, j, H, W, O, U, p, q)[:, None] + _channel(n, W, O, PACKED)[None, :]
        g = _masked_gradient(grad, y, at, (m < M)[:, None] & (n < N)[None, :], slope)
        b = tl.load(
            packed + (_step(p, q, s, t, U, PACKED) * N + n)[:, None] * C + c[None, :],
            mask=(n < N)[:, None] & (c < C)[None, :],
            other=0.0,
        )
        acc = tl.dot(g, b, acc, input_precision=PRECISION)
    at = (((image * H + row) * W + column) * C)[:, None] + c[None, :]
    tl.store(dx + at, acc.to(dx.dtype.element_ty), mask=(m < M)[:, None] & (c < C)[None, :])


@triton.jit
def weight_gradient_kernel(
    grad, y, x, dw, db, M, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, O: tl.constexpr, N: tl.constexpr,
    slope, split_size,
    U: tl.constexpr, PACKED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """dw[split, step, n, c] = sum over the split's pixels of g[i, j, n] x[clamp(i + s), clamp(j + t), c].

    The programs of the first shift and the first channels also sum g: db[split, phase, n].
    """
    step, split = tl.program_id(0), tl.program_id(2)
    n_blocks = tl.cdiv(N, BLOCK_M)
    n = (tl.program_id(1) % n_blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = (tl.program_id(1) // n_blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    p, q, s, t = _shift(step, U, PACKED)
    channel = _channel(n, W, O, PACKED)[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    bias_sum = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(split * split_size, tl.minimum((split + 1) * split_size, M), BLOCK_K):
        m = start + tl.arange(0, BLOCK_K)
        image, row, column = _coordinates(m, H, W)
        at = _pixel(image, row, column, H, W, O, U, p, q)[:, None] + channel
        g = _masked_gradient(grad, y, at, (m < M)[:, None] & (n < N)[None, :], slope)
        i = tl.minimum(tl.maximum(row + s, 0), H - 1)
        j = tl.minimum(tl.maximum(column + t, 0), W - 1)
        pixels = tl.load(
            x + (((image * H + i) * W + j) * C)[:, None] + c[None, :],
            mask=(m < M)[:, None] & (c < C)[None, :],
            other=0.0,
        )
        acc = tl.dot(tl.trans(g), pixels, acc, input_precision=PRECISION)
        if db is not None:
            bias_sum += tl.sum(g.to(tl.float32), 0)
    at = ((split * tl.num_programs(0) + step).to(tl.int64) * N + n)[:, None] * C + c[None, :]
    tl.store(dw + at, acc, mask=(n < N)[:, None] & (c < C)[None, :])
    if db is not None:
        PHASES: tl.constexpr = 4 if U == 2 and not PACKED else 1
        steps = tl.num_programs(0) // PHASES
        first = (step % steps == 0) & (tl.program_id(1) < n_blocks)
        tl.store(db + (split * PHASES + step // steps) * N + n, bias_sum, mask=(n < N) & first)


@triton.jit
def reduce_weight_gradient_kernel(
    parts, dw, bias_parts, db, splits, rows, O, C, N, total, stride_o, stride_c, stride_a, stride_b,
    U: tl.constexpr, PACKED: tl.constexpr, SPLITS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dw[o, c, a, b] = sum over splits and phases of the element that tap (a, b) belongs to: the adjoint of W.

    A tile has BLOCK numbers, of BLOCK / SPLITS elements and all splits, whose number SPLITS rounds up to a power of
    two: none of the loads waits for another. The last programs, past the end of dw, sum the rows of bias_parts: db[o].
    """
    ELEMENTS: tl.constexpr = BLOCK // SPLITS
    index = tl.program_id(0) * ELEMENTS + tl.arange(0, ELEMENTS)
    split = tl.arange(0, SPLITS)
    c, tap, o = index % C, (index // C) % 9, index // (9 * C)
    a, b = tap // 3, tap % 3
    STEPS: tl.constexpr = 16 if U == 2 and not PACKED else 9
    acc = tl.zeros((SPLITS, ELEMENTS), tl.float32)
    for p in tl.static_range(U):
        for q in tl.static_range(U):
            step = _step(p, q, _read_by(a, p, U), _read_by(b, q, U), U, PACKED)
            n = (p * 2 + q) * O + o if PACKED else o
            at = ((split.to(tl.int64) * STEPS)[:, None] + step[None, :]) * (N * C) + (n * C + c)[None, :]
            acc += tl.load(parts + at, mask=(split < splits)[:, None] & (index < total)[None, :], other=0.0)
    at = o * stride_o + c * stride_c + a * stride_a + b * stride_b
    tl.store(dw + at, tl.sum(acc, 0).to(dw.dtype.element_ty), mask=index < total)
    if bias_parts is not None:
        CHANNELS: tl.constexpr = BLOCK // ROWS
        row = tl.arange(0, ROWS)
        last = tl.program_id(0) - tl.num_programs(0) + tl.cdiv(O, CHANNELS)
        channel = last * CHANNELS + tl.arange(0, CHANNELS)
        inside = (channel >= 0) & (channel < O)
        values = tl.load(
            bias_parts + row[:, None] * O + channel[None, :], mask=(row < rows)[:, None] & inside[None, :], other=0.0
        )
        tl.store(db + channel, tl.sum(values, 0).to(db.dtype.element_ty), mask=inside)
