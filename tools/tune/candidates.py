"""The tiles that `tools.tune` tries: pure functions of an op's default tile and the size of its problem.

Each list starts from the default, so that names the tuner knows nothing of keep their values. It leaves out what cannot
be best: tiles larger than the problem, tiles that overflow the registers or the shared memory of every GPU there is,
and tiles so large that most of a GPU would have none. What only some GPUs cannot run is left to Triton to refuse.
"""

from itertools import product

from fastvae.kernels.tiles import Tile, size_class

# A GPU with 132 multiprocessors, an H100's number, should find work for half of them.
_ENOUGH_PROGRAMS = 64
# Accumulators of a product that each thread holds, of its 255 registers, by the number of warps: with fewer the tensor
# cores wait for addresses, with more the next loads have no place, and more warps pay only where each has enough to do.
_ACCUMULATORS = {2: (4, 32), 4: (4, 128), 8: (32, 128)}
# Bytes of shared memory that a program can have on the largest GPUs of today.
_SHARED = 227 * 2**10
_STAGES = (2, 3, 4, 5)
# Where loads that run ahead of the products exist; before, stages do nothing.
_ASYNCHRONOUS = (8, 0)


def _sizes(count: int, smallest: int, largest: int) -> list[int]:
    """Powers of two from `smallest` to `largest`, none above the one that covers `count`, and at least that one."""
    cover = max(16, size_class(count))
    return [size for size in (16, 32, 64, 128, 256) if min(smallest, cover) <= size <= min(largest, cover)]


def _fits(tile: Tile, itemsize: int) -> bool:
    accumulators = tile["BLOCK_M"] * tile["BLOCK_N"] // (32 * tile["num_warps"])
    fewest, limit = _ACCUMULATORS[tile["num_warps"]]
    staged = tile["num_stages"] * (tile["BLOCK_M"] + tile["BLOCK_N"]) * tile["BLOCK_K"] * itemsize
    return fewest <= accumulators <= limit and staged <= _SHARED


def _tiles_of_product(
    default: Tile, rows: list[int], columns: list[int], inner: list[int], itemsize: int
) -> list[Tile]:
    made = [
        {**default, "BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "num_warps": warps}
        for m, n, k, warps in product(rows, columns, inner, _ACCUMULATORS)
    ]
    return [tile for tile in made if _fits(tile, itemsize)]


def over_pixels(default: Tile, pixels: int, columns: int, inner: int, itemsize: int, *, phases: int = 1) -> list[Tile]:
    """For a product [pixels, inner] x [inner, columns] in each of `phases`: the forward pass and the data gradient."""
    inner_sizes = _sizes(inner, 64 // itemsize, 128 // itemsize)
    made = _tiles_of_product(default, _sizes(pixels, 32, 256), _sizes(columns, 32, 128), inner_sizes, itemsize)
    return _busy(made, pixels, columns, phases)


def over_weights(default: Tile, rows: int, columns: int, pixels: int, itemsize: int) -> list[Tile]:
    """For the weight gradient, [rows, pixels] x [pixels, columns], whose pixels are split until the GPU is full."""
    inner_sizes = _sizes(pixels, 64 // itemsize, 256 // itemsize)
    return _tiles_of_product(default, _sizes(rows, 32, 128), _sizes(columns, 32, 128), inner_sizes, itemsize)


def _busy(made: list[Tile], pixels: int, columns: int, phases: int) -> list[Tile]:
    def programs(tile: Tile) -> int:
        return -(-pixels // tile["BLOCK_M"]) * -(-columns // tile["BLOCK_N"]) * phases

    enough = min(_ENOUGH_PROGRAMS, max(map(programs, made)))
    return [tile for tile in made if programs(tile) >= enough]


def pipelines(tile: Tile, itemsize: int, capability: tuple[int, int]) -> list[Tile]:
    """A product's tile with its loads further ahead and less far."""
    if capability < _ASYNCHRONOUS:
        return []
    made = [{**tile, "num_stages": stages} for stages in _STAGES if stages != tile["num_stages"]]
    return [tile for tile in made if _fits(tile, itemsize)]


def of_sums(default: Tile, rows: int, columns: int) -> list[Tile]:
    """For sums over the rows of a matrix, two float32 numbers for each element of a tile of 2048 to 8192."""
    made = [
        {**default, "BLOCK_M": elements // n, "BLOCK_C": n, "num_warps": warps}
        for elements, n, warps in product((2048, 4096, 8192), _sizes(columns, 32, 128), (4, 8))
    ]
    return [tile for tile in made if tile["BLOCK_M"] <= max(16, size_class(rows))]


def elementwise(default: Tile, count: int, itemsize: int) -> list[Tile]:
    """For the kernels that do the same to every element: from 1 to 8 loads of 16 bytes by each thread."""
    made = [
        {**default, "BLOCK": 32 * warps * bytes_each // itemsize, "num_warps": warps}
        for warps, bytes_each in product((2, 4, 8), (16, 32, 64, 128))
    ]
    return [tile for tile in made if tile["BLOCK"] <= size_class(count)]
