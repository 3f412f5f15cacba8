"""Tiles and launches of `replicate_conv2d`'s Triton kernels."""

import torch
import triton
from torch import Tensor

from . import replicate_conv_triton as kernels
from . import tiles
from .dispatch import capability, launch
from .layout import channels_last
from .packed_weight import WEIGHT_TILE, Form, pack_by_triton


def choose_tile(direction: str, x_shape: torch.Size, weight: Tensor, upsample: int, like: Tensor) -> tiles.Tile | None:
    """The tile of one direction, or None if ATen was measured to be faster.

    Args:
        direction: "forward", "data_gradient" or "weight_gradient".
        x_shape: of the op's input, [B, C, H, W].
        weight: the op's weight [O, C, 3, 3].
        upsample: 1 or 2.
        like: a tensor whose dtype and device determine the tile.
    """
    # Integers, even if the compiler traces with symbols.
    batch, c, h, w, o = (int(size) for size in (*x_shape, weight.shape[0]))
    shape_class = f"u{upsample} c{c} o{o} {h}x{w} b{tiles.size_class(batch)}"
    default = _default_tile(direction, x_shape, Form.of(weight, upsample), like.dtype, capability(like))
    return tiles.choose(f"replicate_conv2d.{direction}", shape_class, like.dtype, capability(like), default)


def _default_tile(
    direction: str, x_shape: torch.Size, form: Form, dtype: torch.dtype, sm: tuple[int, int]
) -> tiles.Tile:
    batch, c, h, w = x_shape
    tensor_cores = dtype != torch.float32 or _float32_precision(dtype, sm) == "tf32"
    depth = 64 if dtype != torch.float32 else 32 if tensor_cores else 16
    widest = 64 if tensor_cores else 32
    common = {"num_warps": 4, "num_stages": 3 if sm >= (8, 0) else 2}
    if direction == "weight_gradient":
        return {"BLOCK_M": _block(form.columns, widest), "BLOCK_N": _block(c, widest), "BLOCK_K": depth, **common}
    columns, inner = (form.columns, c) if direction == "forward" else (c, form.columns)
    block_n = _block(columns, widest)
    phases = form.phases if direction == "forward" else 1
    programs = triton.cdiv(batch * h * w, 128) * triton.cdiv(columns, block_n) * phases
    # In the packed form the data gradient has a short product and long addresses; with 128 rows these take all
    # registers.
    wide = (
        tensor_cores and programs >= tiles.ENOUGH_PROGRAMS // 2 and not (form.packed and direction == "data_gradient")
    )
    return {"BLOCK_M": 128 if wide else 64, "BLOCK_N": block_n, "BLOCK_K": _block(inner, depth), **common}


def _block(count: int, largest: int) -> int:
    """The power of two at or above `count`, at least 16 for the tensor cores and at most `largest`."""
    return min(largest, max(16, tiles.size_class(count)))


def _float32_precision(dtype: torch.dtype, sm: tuple[int, int]) -> str:
    """How products of this dtype are computed; for float32 as set for torch's convolutions."""
    allowed = torch.backends.cudnn.conv.fp32_precision == "tf32"
    return "tf32" if dtype == torch.float32 and allowed and sm >= (8, 0) else "ieee"


def _pixels(batch: int, h: int, w: int) -> int:
    """Number of pixels of one launch, which are counted in 32 bits."""
    count = batch * h * w
    if count > 2**30:
        raise ValueError(f"replicate_conv2d takes at most 2^30 pixels in a call; got {batch} maps of {h}x{w}")
    return count


def _empty(batch: int, c: int, h: int, w: int, like: Tensor) -> Tensor:
    """[batch, c, h, w] in channels_last. Permuted, since with memory_format Inductor would fill it first."""
    return torch.empty((batch, h, w, c), dtype=like.dtype, device=like.device).permute(0, 3, 1, 2)


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    packed: Tensor | None,
    residual: Tensor | None,
    upsample: int,
    negative_slope: float | None,
    tile: tiles.Tile,
    *,
    sums: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """y, and with `sums` float32 [2, O]: for each channel the sum of y and of its square over all pixels.

    Packs the weight unless `packed` is it.
    """
    form, sm = Form.of(weight, upsample), capability(x)
    x, residual = channels_last(x), None if residual is None else channels_last(residual)
    bias = None if bias is None else bias.contiguous()
    batch, c, h, w = x.shape
    o, n = weight.shape[0], form.columns
    y = _empty(batch, o, upsample * h, upsample * w, x)
    m = _pixels(batch, h, w)
    grid = (triton.cdiv(m, tile["BLOCK_M"]), triton.cdiv(n, tile["BLOCK_N"]), form.phases)
    partial_sums = None
    if sums:
        partial_sums = torch.empty((grid[0] * form.phases, 2, n // o, o), dtype=torch.float32, device=x.device)
    if packed is None:
        (packed,) = pack_by_triton([weight], [upsample], x.dtype)
    launch(
        kernels.forward_kernel,
        grid,
        *(x, packed, bias, residual, y, partial_sums, m, h, w, c, o, n, negative_slope),
        U=upsample,
        PACKED=form.packed,
        PRECISION=_float32_precision(x.dtype, sm),
        **tile,
    )
    return y, None if partial_sums is None else partial_sums.sum((0, 2))


def data_gradient(
    grad: Tensor,
    y: Tensor | None,
    weight: Tensor,
    packed: Tensor | None,
    upsample: int,
    negative_slope: float | None,
    tile: tiles.Tile,
) -> Tensor:
    """dL/dx from dL/dy; y is needed for its sign if there is a LeakyReLU. Packs the weight unless `packed` is it."""
    form, sm = Form.of(weight, upsample), capability(grad)
    grad, y = channels_last(grad), None if y is None else channels_last(y)
    batch, o, h, w = grad.shape
    h, w = h // upsample, w // upsample
    c, n = weight.shape[1], form.columns
    dx = _empty(batch, c, h, w, grad)
    if packed is None:
        (packed,) = pack_by_triton([weight], [upsample], grad.dtype)
    _pixels(batch, h, w)
    # The first, those between, the last: each of the nine kinds of pixels has programs of its own.
    rows, columns = ((1, max(size - 2, 0), min(size - 1, 1)) for size in (h, w))
    blocks = sum(triton.cdiv(batch * i * j, tile["BLOCK_M"]) for i in rows for j in columns)
    launch(
        kernels.data_gradient_kernel,
        (blocks, triton.cdiv(c, tile["BLOCK_N"])),
        *(grad, y, packed, dx, batch, h, w, c, o, n, negative_slope),
        U=upsample,
        PACKED=form.packed,
        PRECISION=_float32_precision(grad.dtype, sm),
        **tile,
    )
    return dx


def weight_gradient(
    grad: Tensor,
    y: Tensor | None,
    x: Tensor,
    weight: Tensor,
    with_bias: bool,
    upsample: int,
    negative_slope: float | None,
    tile: tiles.Tile,
) -> tuple[Tensor, Tensor]:
    """dL/dweight in the weight's layout and dtype, and dL/dbias in that dtype, empty unless `with_bias`."""
    form, sm = Form.of(weight, upsample), capability(grad)
    grad, x, y = channels_last(grad), channels_last(x), None if y is None else channels_last(y)
    batch, c, h, w = x.shape
    o, n = weight.shape[0], form.columns
    m = _pixels(batch, h, w)
    blocks = triton.cdiv(n, tile["BLOCK_M"]) * triton.cdiv(c, tile["BLOCK_N"])
    # Depends only on shape and tile, so that the order of the sums, and so each bit, is the same in every run.
    splits = min(triton.cdiv(tiles.ENOUGH_PROGRAMS, form.steps * blocks), triton.cdiv(m, 2 * tile["BLOCK_K"]))
    split_size = tile["BLOCK_K"] * triton.cdiv(m, tile["BLOCK_K"] * max(splits, 1))
    splits = triton.cdiv(m, split_size) if m else 0
    parts = torch.empty((splits, form.steps, n, c), dtype=torch.float32, device=x.device)
    bias_parts, db, rows = None, weight.new_empty(0), 0
    if with_bias:
        rows = splits * form.phases * (n // o)
        bias_parts, db = torch.empty((rows, o), dtype=torch.float32, device=x.device), weight.new_empty(o)
    launch(
        kernels.weight_gradient_kernel,
        (form.steps, blocks, splits),
        *(grad, y, x, parts, bias_parts, m, h, w, c, o, n, negative_slope, split_size),
        U=upsample,
        PACKED=form.packed,
        PRECISION=_float32_precision(grad.dtype, sm),
        **tile,
    )
    dw, split_class, row_class = torch.empty_like(weight), tiles.size_class(splits), tiles.size_class(rows)
    size = WEIGHT_TILE["BLOCK"]
    programs = triton.cdiv(dw.numel(), size // split_class)
    launch(
        kernels.reduce_weight_gradient_kernel,
        (programs + triton.cdiv(db.numel(), size // row_class),),
        *(parts, dw, bias_parts, db, splits, rows, o, c, n, dw.numel(), *dw.stride()),
        U=upsample,
        PACKED=form.packed,
        SPLITS=split_class,
        ROWS=row_class,
        **WEIGHT_TILE,
    )
    return dw, db
