"""Where a call of the CPU engine spends its time: every layer beside the least that this machine would need."""

from dataclasses import dataclass

import torch

from bench.inference.contenders import smooth_images, trained_vae
from bench.measuring.ceilings import Ceilings
from fastvae.inference.native.vae import NativeVAE


@dataclass(frozen=True)
class LayerRow:
    """One layer for one image.

    Attributes:
        us: median over complete calls.
        flops_us: its multiplications and additions at the rate of the machine's best matrix product in the same dtype.
        bytes_us: its filters and maps at the rate of the machine's copies from memory, which the caches may beat.
    """

    name: str
    us: float
    mflop: float
    filter_kb: float
    map_kb: float
    flops_us: float
    bytes_us: float

    @property
    def floor_us(self) -> float:
        """The larger of the two."""
        return max(self.flops_us, self.bytes_us)


def measure_layers(width: int, dtype: torch.dtype, *, calls: int, ceilings: Ceilings) -> list[LayerRow]:
    """A row for reading the image, then one for each layer.

    Args:
        width: of the networks.
        dtype: of the filters and maps.
        calls: whose times the medians are of.
        ceilings: of this machine, with the product in this dtype.
    """
    engine, x = NativeVAE(trained_vae(width), torch.get_num_threads(), dtype), smooth_images(1)
    for _ in range(5):
        engine.reconstruct(x)
    timed = [engine.layer_seconds(x) for _ in range(calls)]
    medians = torch.tensor([[s for _, s in call] for call in timed], dtype=torch.float64).median(0).values * 1e6
    rate = ceilings.product_tflop_per_s[str(dtype).removeprefix("torch.")] * 1e6  # flop a microsecond
    bandwidth = ceilings.copy_gb_per_s * 1e3  # bytes a microsecond
    rows = [LayerRow("read the image", round(float(medians[0]), 2), 0.0, 0.0, x.numel() * 4e-3, 0.0, 0.0)]
    for (layer, _), us in zip(timed[0][1:], medians[1:].tolist(), strict=True):
        moved = layer.filter_bytes + layer.map_bytes
        rows.append(
            LayerRow(
                layer.name,
                round(us, 2),
                layer.flops / 1e6,
                layer.filter_bytes / 1e3,
                layer.map_bytes / 1e3,
                round(layer.flops / rate, 2),
                round(moved / bandwidth, 2),
            )
        )
    return rows


def table(rows: list[LayerRow]) -> str:
    """Human-readable, with the sums."""
    lines = [
        f"{'layer':<32} {'us':>7} {'MFLOP':>7} {'filters':>9} {'FLOP floor':>11} {'byte floor':>11} {'reached':>9}"
    ]
    for row in rows:
        share = f"{100 * row.floor_us / row.us:7.0f} %" if row.floor_us else ""
        lines.append(
            f"{row.name:<32} {row.us:7.1f} {row.mflop:7.2f} {row.filter_kb:6.0f} kB {row.flops_us:8.1f} us "
            f"{row.bytes_us:8.1f} us {share:>9}"
        )
    total, floor = sum(row.us for row in rows), sum(row.floor_us for row in rows)
    flops, moved = (sum(getattr(row, name) for row in rows) for name in ("flops_us", "bytes_us"))
    lines.append(
        f"{'all':<32} {total:7.1f} {sum(r.mflop for r in rows):7.2f} {sum(r.filter_kb for r in rows):6.0f} kB "
        f"{flops:8.1f} us {moved:8.1f} us {100 * floor / total:7.0f} %"
    )
    return "\n".join(lines)
