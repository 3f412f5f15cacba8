"""A VAE in the engine: its folded layers (see `fastvae.inference.fold`) and its methods."""

import torch
from torch import Tensor, nn

from fastvae.inference.fold import folded
from fastvae.inference.native.engine import Activation, Engine, Form, Layer, Map
from fastvae.inference.native.forms import fastest
from fastvae.models import VAE
from fastvae.models.blocks import NEGATIVE_SLOPE

# Eight images of 64x64 share one reading of the filters; larger ones come in fewer, so that their maps take no more.
_IMAGES_AT_A_TIME = 8
_PIXELS_AT_A_TIME = _IMAGES_AT_A_TIME * 64 * 64


class NativeVAE:
    """The methods of `VAE` on the CPU, for checked images and z.

    Args:
        vae: in eval mode; its weights are copied.
        threads: number of threads per call.
        dtype: of weights and feature maps, float32 or bfloat16.
        batch: number of images per call that it is made for; others are computed in the same way.

    Raises:
        FastvaeError: the engine cannot be compiled here.
    """

    def __init__(
        self,
        vae: VAE,
        threads: int,
        dtype: torch.dtype = torch.float32,
        batch: int = 1,
        flags: tuple[str, ...] = (),
    ):
        self.image_size, self.latent = vae.image_size, vae.latent
        size = vae.image_size
        images_at_a_time = max(min(_PIXELS_AT_A_TIME // size**2, _IMAGES_AT_A_TIME), 1)
        self._images_per_reading = min(batch, images_at_a_time)
        self._engine = engine = Engine(threads, images_at_a_time, dtype, flags)
        self._pixels = engine.add_map(size, size, 3)
        self._mean, self._log_variance = (engine.add_map(1, 1, vae.latent) for _ in range(2))
        features, self._encoder = self._pixels, []
        for stage in vae.encoder.stages:
            features, layers = self._stage(features, stage, upsample=False)
            self._encoder += layers
        heads = {"mean": self._mean, "log_variance": self._log_variance}
        self._heads = [self._head(name, features, getattr(vae.encoder, name), to) for name, to in heads.items()]
        x, first = self._linear(vae)
        self._decoder = [first]
        for stage in vae.decoder.stages:
            x, layers = self._stage(x, stage, upsample=True)
            self._decoder += layers
        weight, bias = folded(vae.decoder.to_image, None)
        by_parity = torch.stack([torch.stack(row) for row in parity_filters(weight)])
        self._decoder.append(engine.add_to_image("to image", x, by_parity, bias))
        self._reconstruction = [*self._encoder, self._heads[0], *self._decoder]

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, H, W], float32 in [-1, 1] or uint8 -> mean and log-variance [B, latent]."""
        mean, log_variance = (images.new_empty(len(images), self.latent, dtype=torch.float32) for _ in range(2))
        results = ((self._mean, mean), (self._log_variance, log_variance))
        self._engine.run([*self._encoder, *self._heads], self._pixels, images, vectors=results)
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """[B, latent] float32 -> [B, 3, H, W] in [-1, 1]."""
        images = self._empty(len(z))
        self._engine.run(self._decoder, self._mean, z[:, :, None, None], images=images)
        return images

    def reconstruct(self, images: Tensor) -> Tensor:
        """[B, 3, H, W], float32 in [-1, 1] or uint8 -> [B, 3, H, W] in [-1, 1]."""
        made = self._empty(len(images))
        self._engine.run(self._reconstruction, self._pixels, images, images=made)
        return made

    def layer_seconds(self, images: Tensor) -> list[tuple[Layer | None, float]]:
        """Seconds that `reconstruct` takes for each layer; the first entry, None, is reading the images."""
        seconds = torch.zeros(1 + len(self._reconstruction), dtype=torch.float64, device="cpu")
        made = self._empty(len(images))
        self._engine.run(self._reconstruction, self._pixels, images, images=made, seconds=seconds)
        return list(zip((None, *self._reconstruction), seconds.tolist(), strict=True))

    def _empty(self, batch: int) -> Tensor:
        # The engine writes float32 into memory of the CPU, whatever the program's defaults are.
        return torch.empty(batch, 3, self.image_size, self.image_size, dtype=torch.float32, device="cpu")

    def _stage(self, x: Map, stage: nn.Sequential, *, upsample: bool) -> tuple[Map, list[Layer]]:
        """Adds a convolution and a residual block; returns the output map and the layers."""
        engine, (conv, norm, _, block) = self._engine, stage
        weight, bias = folded(conv, norm)
        size = 2 * x.height if upsample else x.height // 2
        first, second, third = (engine.add_map(size, size, len(weight), replicate=upsample) for _ in range(3))
        place = f"{'decoder' if upsample else 'encoder'} {size}x{size}"
        activated = {"activation": Activation.LEAKY_RELU, "slope": NEGATIVE_SLOPE}
        add = self._upsampling if upsample else self._downsampling
        layer = add(place, x, first, weight, bias, **activated)
        middle = self._conv3x3(f"{place} first 3x3", first, second, *folded(block.conv1, block.bn1), **activated)
        last = self._conv3x3(
            f"{place} second 3x3", second, third, *folded(block.conv2, block.bn2), residual=first, **activated
        )
        return third, [layer, middle, last]

    def _upsampling(self, place: str, source: Map, to: Map, weight: Tensor, bias: Tensor, **options) -> Layer:
        name, form = f"{place} upsampling", Form.UPSAMPLING
        if self._engine.takes_winograd(source, to, form):
            weight = weight.permute(0, 2, 3, 1)
            return self._engine.add_winograd(name, source, to, weight, bias, form=form, **options)
        filters = [
            (kernel, bias, (row - 1, column - 1), (row, column))
            for row, kernels in enumerate(parity_filters(weight))
            for column, kernel in enumerate(kernels)
        ]
        sizes = {"positions": (source.height, source.width), "step": 2}
        return self._engine.add_direct(name, source, to, filters, **sizes, **options)

    def _downsampling(self, place: str, source: Map, to: Map, weight: Tensor, bias: Tensor, **options) -> Layer:
        return self._conv(f"{place} downsampling", (Form.DOWNSAMPLING,), 2, source, to, weight, bias, **options)

    def _conv3x3(self, name: str, source: Map, to: Map, weight: Tensor, bias: Tensor, **options) -> Layer:
        forms = (Form.CONV3X3_TILE2, Form.CONV3X3_TILE4)
        return self._conv(name, forms, 1, source, to, weight, bias, **options)

    def _conv(
        self,
        name: str,
        forms: tuple[Form, ...],
        stride: int,
        source: Map,
        to: Map,
        weight: Tensor,
        bias: Tensor,
        **options,
    ) -> Layer:
        """Adds a convolution with one pixel of padding, in the fastest way."""
        possible = [form for form in forms if self._engine.takes_winograd(source, to, form)]
        form = fastest(possible, weight[0, 0].numel(), to.height, self._images_per_reading)
        weight = weight.permute(0, 2, 3, 1)
        if form is not None:
            return self._engine.add_winograd(name, source, to, weight, bias, form=form, **options)
        sizes = {"positions": (to.height, to.width), "stride": stride}
        return self._engine.add_direct(name, source, to, [(weight, bias, (-1, -1), (0, 0))], **sizes, **options)

    def _head(self, name: str, features: Map, head: nn.Linear, to: Map) -> Layer:
        """Adds a linear layer on a map, as a convolution with a single window."""
        weight = head.weight.detach().unflatten(1, (features.channels, features.height, features.width))
        filters = [(weight.permute(0, 2, 3, 1), head.bias.detach(), (0, 0), (0, 0))]
        return self._engine.add_direct(name, features, to, filters, positions=(1, 1))

    def _linear(self, vae: VAE) -> tuple[Map, Layer]:
        """Adds the decoder's linear layer, with separate filters for each pixel of its output map."""
        channels, height, width = vae.decoder.map_shape
        to = self._engine.add_map(height, width, channels, replicate=True)
        weight = vae.decoder.linear.weight.detach().unflatten(0, vae.decoder.map_shape)
        bias = vae.decoder.linear.bias.detach().unflatten(0, vae.decoder.map_shape)
        filters = [
            (weight[:, y, x, None, None], bias[:, y, x], (0, 0), (y, x)) for y in range(height) for x in range(width)
        ]
        layer = self._engine.add_direct("linear", self._mean, to, filters, positions=(1, 1), activation=Activation.RELU)
        return to, layer


def parity_filters(weight: Tensor) -> list[list[Tensor]]:
    """[O, C, 3, 3] -> for each parity of output row and column the 2x2 filter [O, 2, 2, C] on the low-resolution map.

    Along one axis even outputs use taps (w0, w1 + w2), odd ones (w0 + w1, w2); see kernels/replicate_conv.py.
    """
    weight = weight.permute(0, 2, 3, 1)

    def halves(taps: Tensor, dim: int) -> list[Tensor]:
        first, middle, last = taps.unbind(dim)
        return [torch.stack((first, middle + last), dim), torch.stack((first + middle, last), dim)]

    return [halves(rows, 2) for rows in halves(weight, 1)]
