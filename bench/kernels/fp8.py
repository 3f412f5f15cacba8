"""What the loss network would lose and gain with 8-bit floating-point numbers (float8_e4m3fn): a side note, not a path.

Accuracy, anywhere: weights and inputs of every convolution from conv1_2 on are rounded to 8 bits with one scale for a
tensor, the products are exact; beside the same for bfloat16. Speed, on a GPU with 8-bit tensor cores: the matrix
products that these convolutions amount to, in 8 bits against bfloat16. Written out as matrices each image is nine times
as large, so that shallow layers are bound by memory here and not in a convolution: the ratio says what the products can
save at most, not what a step would.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.measuring.clock import interleaved, quartiles
from fastvae.data.faces.faces import draw_faces
from fastvae.kernels import feature_loss
from fastvae.kernels.feature_loss import paper_weights
from fastvae.lossnet import TAPS, LossNetwork, load_loss_network
from fastvae.lossnet.network import BLOCKS, tap_indices
from fastvae.pictures import to_images

Rounding = Callable[[Tensor], Tensor]
_LARGEST = 448.0  # float8_e4m3fn


@dataclass(frozen=True)
class Accuracy:
    """What rounding does. Errors are relative to the unrounded network's, the cosine is between the two gradients."""

    rounded_to: str
    feature_errors: dict[str, float]
    loss_error: float
    gradient_cosine: float


@dataclass(frozen=True)
class Speed:
    """All products of one step, forwards on both sides and backwards on one; medians."""

    bfloat16_ms: float
    float8_ms: float
    ratio: float


def to_float8(x: Tensor) -> Tensor:
    """x rounded to float8_e4m3fn, its largest magnitude at the format's, and back."""
    scale = _LARGEST / x.abs().amax().clamp_min(torch.finfo(x.dtype).tiny)
    return (x * scale).to(torch.float8_e4m3fn).to(x.dtype) / scale


def to_bfloat16(x: Tensor) -> Tensor:
    """x rounded to bfloat16 and back."""
    return x.bfloat16().to(x.dtype)


def features_of(network: LossNetwork, images: Tensor, rounding: Rounding) -> list[Tensor]:
    """The taps with rounded operands; the gradient passes the rounding as if it were not there."""
    x, taps, tap_at = images * 127.5 + network.shift, [], tap_indices(network.taps).values()
    for index, layer in enumerate(network.features):
        if isinstance(layer, nn.Conv2d) and index:
            x = x + (rounding(x) - x).detach()
            x = F.conv2d(x, rounding(layer.weight), layer.bias, padding=1)
        else:
            x = F.relu(x) if isinstance(layer, nn.ReLU) else layer(x)  # its own overwrites what is rounded
        if index in tap_at:
            taps.append(x)
    return taps


def accuracy(network: LossNetwork, images: Tensor, fakes: Tensor) -> Iterator[Accuracy]:
    """Features of the generated images, loss and its gradient there: rounded to bfloat16 and to 8 bits."""

    def run(rounding: Rounding):
        fake = fakes.clone().requires_grad_()
        with torch.no_grad():
            features = features_of(network, images, rounding)
        fake_features = features_of(network, fake, rounding)
        loss = feature_loss(fake_features, features, paper_weights(network.channels))
        return [f.detach() for f in fake_features], loss.item(), torch.autograd.grad(loss, fake)[0]

    features, loss, gradient = run(lambda x: x)
    for name, rounding in (("bfloat16", to_bfloat16), ("float8_e4m3fn", to_float8)):
        rounded, rounded_loss, rounded_gradient = run(rounding)
        errors = [((r - f).norm() / f.norm()).item() for r, f in zip(rounded, features, strict=True)]
        cosine = F.cosine_similarity(rounded_gradient.flatten(), gradient.flatten(), dim=0).item()
        yield Accuracy(
            name,
            {tap: round(error, 5) for tap, error in zip(network.taps, errors, strict=True)},
            round(abs(rounded_loss - loss) / loss, 5),
            round(cosine, 5),
        )


def products(batch: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Rows, sums and columns of each convolution's matrix product from conv1_2 on, forwards and backwards."""
    inputs = 3
    for block in BLOCKS:
        for outputs in block:
            if inputs > 3:
                yield 2 * batch * size**2, 9 * inputs, outputs
                yield batch * size**2, 9 * outputs, inputs
            inputs = outputs
        size //= 2


def speed(batch: int, size: int, rounds: int) -> Speed:
    """Times the products, each kind of operand in turns."""
    total = {"bfloat16": 0.0, "float8": 0.0}
    one = torch.ones((), device="cuda")
    for m, k, n in products(batch, size):
        a, b = torch.randn(m, k, device="cuda", dtype=torch.bfloat16), torch.randn(n, k, device="cuda").bfloat16()
        a8, b8 = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn)
        calls = {
            "bfloat16": lambda a=a, b=b: a @ b.t(),
            "float8": lambda a=a8, b=b8: torch._scaled_mm(
                a, b.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
            ),
        }
        for name, samples in interleaved(calls, rounds=rounds, device="cuda").items():
            total[name] += 1e3 * quartiles(samples)[1]
        del a, b, a8, b8, calls
    ratio = total["bfloat16"] / total["float8"]
    return Speed(round(total["bfloat16"], 4), round(total["float8"], 4), round(ratio, 3))


def measure(weights: str, *, tiny: bool, note: Callable[[str], None]) -> list[Accuracy | Speed]:
    """Accuracy on drawn faces, blurred in place of reconstructions; speed where a GPU has 8-bit tensor cores."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    count = 2 if tiny else 16
    pixels, _ = draw_faces(count, seed=1)
    images = to_images(torch.from_numpy(pixels)).to(device)
    fakes = F.interpolate(F.avg_pool2d(images, 4), scale_factor=4, mode="bilinear")
    network = load_loss_network(weights, taps=TAPS[:2] if tiny else TAPS).to(device, memory_format=torch.channels_last)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # what is rounded is rounded by us alone
        results: list[Accuracy | Speed] = list(accuracy(network, images, fakes))
    if device == "cuda" and torch.cuda.get_device_capability() >= (8, 9):
        results.append(speed(2 if tiny else 64, 64, 3 if tiny else 20))
    else:
        note("fp8: no GPU with 8-bit tensor cores, no products were timed")
    for result in results:
        print(result)
    return results
