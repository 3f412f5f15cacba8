"""What this machine can do at best, measured: the ceilings that an op's time is compared with."""

from dataclasses import asdict, dataclass

import torch

from bench.measuring.clock import interleaved


@dataclass(frozen=True)
class Ceilings:
    """Measured by torch's own copy and matrix product.

    Attributes:
        copy_gb_per_s: of a copy larger than any cache, bytes read and bytes written both counted, 1e9 a GB.
        product_tflop_per_s: of a dense square product, by the operands' dtype.
        float32_is_tf32: whether the float32 product ran in TF32, on tensor cores.
    """

    copy_gb_per_s: float
    product_tflop_per_s: dict[str, float]
    float32_is_tf32: bool = False

    def name(self, dtype: str) -> str:
        """Of a product, human-readable: "TF32" where it is what float32 ran in."""
        return "TF32" if dtype == "float32" and self.float32_is_tf32 else dtype

    def floor_s(self, flops: int, moved: int, dtype: torch.dtype) -> float:
        """The least time for this work on this machine: the larger of its two shares."""
        product = self.product_tflop_per_s[str(dtype).removeprefix("torch.")]
        return max(flops / (product * 1e12), moved / (self.copy_gb_per_s * 1e9))

    def as_json(self) -> dict:
        """For the record."""
        return asdict(self)


def measure(device: str, dtypes: list[torch.dtype], *, rounds: int = 10) -> Ceilings:
    """Measures both kinds of ceiling; seconds.

    Args:
        device: "cuda" or "cpu".
        dtypes: of the products; float32 ones as torch is set, TF32 on GPUs where convolutions may use it.
        rounds: calls that are timed; the fastest counts, for a ceiling is what is possible.
    """
    on_gpu = device == "cuda"
    source = torch.ones(2**30 if on_gpu else 2**28, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    size = 8192 if on_gpu else 1536
    before = torch.backends.cuda.matmul.fp32_precision
    tf32 = torch.backends.cudnn.conv.fp32_precision == "tf32"
    if tf32:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        calls = {"copy": lambda: target.copy_(source)}
        for dtype in dtypes:
            a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
            calls[str(dtype).removeprefix("torch.")] = lambda a=a, b=b: a @ b
        samples = interleaved(calls, rounds=rounds, device=device)
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    fastest = {name: min(values) for name, values in samples.items()}
    copy = fastest.pop("copy")
    products = {n: 2 * size**3 / s / 1e12 for n, s in fastest.items()}
    has_tf32 = on_gpu and torch.cuda.get_device_capability() >= (8, 0)
    return Ceilings(2 * source.numel() / copy / 1e9, products, tf32 and has_tf32 and "float32" in products)
