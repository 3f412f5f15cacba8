"""Triton kernels of `replicate_conv2d`: implicit matrix products over channels_last maps.

With x the input [B, H, W, C], y the output [B, U H, U W, O] and U the upsampling, each pixel of the *input's* grid
has U x U outputs, its phases (p, q). By the identity of `replicate_conv`, along one axis

    y[U i + p] = sum_s W[p, s] x[clamp(i + s)],     s in {-1, 0, 1},     W[p, s] = sum of w[a] over (p + a - 1) // U = s

so the upsampled and the padded map are never stored. The kernels have two forms:

    by phase    the grid has an axis of phases; U = 1: one phase, 3 x 3 shifts; U = 2: four phases, 2 x 2 shifts each
    packed      U = 2 with few output channels: the phases are 4 O columns of one product over 3 x 3 shifts, since
                four products of 3 columns would each be padded to 16

and `packed_weight_kernel` writes W for both as [shift, column, C], summed in float32 before any rounding. Results are
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
def _read_by(a, p, U: tl.constexpr):
    """The shift s of tap a of phase p: (p + a - 1) // U, rounded down."""
    return (p + a - 1 + U) // U - 1


@triton.jit
def packed_weight_kernel(
    weight, packed, O, C, N, total, stride_o, stride_c, stride_a, stride_b,
    U: tl.constexpr, PACKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """packed[step, n, c] = W[p, s] of both axes: the sum of the taps that phase (p, q) reads at shift (s, t)."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c, n, step = index % C, (index // C) % N, index // (C * N)
    p, q, s, t = _shift(step, U, PACKED)
    o = n
    if PACKED:
        p, q, o = n // (2 * O), (n // O) % 2, n % O
    acc = tl.zeros((BLOCK,), tl.float32)
    for a in tl.static_range(3):
        for b in tl.static_range(3):
            reads = (index < total) & (_read_by(a, p, U) == s) & (_read_by(b, q, U) == t)
            at = o * stride_o + c * stride_c + a * stride_a + b * stride_b
            acc += tl.load(weight + at, mask=reads, other=0.0).to(tl.float32)
    tl.store(packed + index, acc.to(packed.dtype.element_ty), mask=index < total)


@triton.jit
def forward_kernel(
    x, packed, bias, y, partial_sums, M, H, W, C: tl.constexpr, O: tl.constexpr, N: tl.constexpr, slope,
    U: tl.constexpr, PACKED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """y = act(sum over shifts and channels of x[clamp(i + s), clamp(j + t), c] W[n, c] + bias[n])."""
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
    if slope is not None:
        acc = tl.where(acc > 0, acc, acc * tl.cast(slope, tl.float32))
    result = acc.to(y.dtype.element_ty)
    p, q, _, _ = _shift(phase * STEPS, U, PACKED)
    at = _pixel(image, row, column, H, W, O, U, p, q)[:, None] + _channel(n, W, O, PACKED)[None, :]
    tl.store(y + at, result, mask=(m < M)[:, None] & (n < N)[None, :])
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
def data_gradient_kernel(
    grad, y, packed, dx, M, H, W, C: tl.constexpr, O: tl.constexpr, N: tl.constexpr, slope,
    U: tl.constexpr, PACKED: tl.constexpr, PIXELS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """dx[i, j, c] = sum of W[p, q, s, t][n, c] g[k, l, n] over the pixels (k, l) with clamp((k, l) + (s, t)) = (i, j).

    That is the pixel (i - s, j - t); for s = -1 on the first row also row 0, which reads itself once more; likewise for
    s = 1 on the last row, and along columns. `PIXELS` says which pixels of dx to compute: "all", the "interior", where
    there is no second source and indices need no checks, or the "ring" around it.
    """
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    STEPS: tl.constexpr = 16 if U == 2 and not PACKED else 9
    if PIXELS == "all":
        image, row, column = _coordinates(m, H, W)
    elif PIXELS == "interior":
        image, row, column = _coordinates(m, H - 2, W - 2)
        row, column = row + 1, column + 1
    else:  # first row, last row, then the two ends of every row between
        image = (m // (2 * W + 2 * H - 4)).to(tl.int64)
        place = m % (2 * W + 2 * H - 4)
        side = place - 2 * W
        row = tl.where(place < W, 0, tl.where(side < 0, H - 1, 1 + side // 2))
        column = tl.where(place < W, place, tl.where(side < 0, place - W, (side % 2) * (W - 1)))
    blocks = tl.cdiv(N, BLOCK_K)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for block in range(0, STEPS * blocks):
        step = block // blocks
        n = (block % blocks) * BLOCK_K + tl.arange(0, BLOCK_K)
        p, q, s, t = _shift(step, U, PACKED)
        i, j = row - s, column - t
        inside = (m < M)[:, None] & (n < N)[None, :]
        channel = _channel(n, W, O, PACKED)[None, :]
        if PIXELS == "interior":
            at = _pixel(image, i, j, H, W, O, U, p, q)[:, None] + channel
            g = _masked_gradient(grad, y, at, inside, slope)
        else:
            first_i, first_j = (i >= 0) & (i < H), (j >= 0) & (j < W)
            # Where the shift points outside the map on this side, the border pixel was read instead.
            again_i = ((s < 0) & (row == 0)) | ((s > 0) & (row == H - 1))
            again_j = ((t < 0) & (column == 0)) | ((t > 0) & (column == W - 1))
            total = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
            for again in tl.static_range(4):
                k = row if again // 2 else i
                l = column if again % 2 else j
                valid = (again_i if again // 2 else first_i) & (again_j if again % 2 else first_j)
                at = _pixel(image, k, l, H, W, O, U, p, q)[:, None] + channel
                total += _masked_gradient(grad, y, at, inside & valid[:, None], slope).to(tl.float32)
            g = total.to(grad.dtype.element_ty)
        b = tl.load(
            packed + (step * N + n)[:, None] * C + c[None, :],
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
    parts, dw, splits, O, C, N, total, stride_o, stride_c, stride_a, stride_b,
    U: tl.constexpr, PACKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dw[o, c, a, b] = sum over splits and phases of the element that tap (a, b) belongs to: the adjoint of W."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c, tap, o = index % C, (index // C) % 9, index // (9 * C)
    a, b = tap // 3, tap % 3
    STEPS: tl.constexpr = 16 if U == 2 and not PACKED else 9
    acc = tl.zeros((BLOCK,), tl.float32)
    for p in tl.static_range(U):
        for q in tl.static_range(U):
            s, t = _read_by(a, p, U), _read_by(b, q, U)
            n = o
            if U == 2 and not PACKED:
                step = (p * 2 + q) * 4 + (s + 1 - p) * 2 + t + 1 - q
            else:
                step = (s + 1) * 3 + t + 1
            if PACKED:
                n = (p * 2 + q) * O + o
            for split in range(0, splits):
                at = ((split * STEPS + step).to(tl.int64) * N + n) * C + c
                acc += tl.load(parts + at, mask=index < total, other=0.0)
    at = o * stride_o + c * stride_c + a * stride_a + b * stride_b
    tl.store(dw + at, acc.to(dw.dtype.element_ty), mask=index < total)
