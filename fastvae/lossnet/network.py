"""VGG-19 up to conv5_1, frozen: the reconstruction loss compares its feature maps."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvae.errors import UsageError
from fastvae.kernels import provider
from fastvae.kernels.dispatch import forced
from fastvae.kernels.layout import ALIGNED_CHANNELS, with_channels
from fastvae.lossnet.pair import forward_pair

TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")

# Output channels of the convolutions between two poolings. VGG-19 has three more convolutions of 512 channels and a
# classifier, which no tap needs.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512,))

# On the 0..255 scale, RGB. The original subtracts (103.939, 116.779, 123.68) from BGR.
CAFFE_MEAN_RGB = (123.68, 116.779, 103.939)


def conv_layers() -> dict[int, tuple[str, int, int]]:
    """Every convolution up to conv5_1, by its index in torchvision's `features`: (name, inputs, outputs)."""
    layers: dict[int, tuple[str, int, int]] = {}
    index, inputs = 0, 3
    for block, widths in enumerate(BLOCKS, start=1):
        for position, outputs in enumerate(widths, start=1):
            layers[index] = (f"conv{block}_{position}", inputs, outputs)
            index, inputs = index + 2, outputs  # a convolution and its ReLU
        index += 1  # the pooling
    return layers


def tap_indices(taps: Sequence[str]) -> dict[str, int]:
    """The taps in order of depth, each with the index of its ReLU in torchvision's `features`.

    Raises:
        UsageError: a tap is unknown or repeated, or there is none.
    """
    relus = {name.replace("conv", "relu"): index + 1 for index, (name, _, _) in conv_layers().items()}
    wanted = (taps,) if isinstance(taps, str) else tuple(taps)
    if not wanted or len(set(wanted)) < len(wanted) or not set(wanted) <= set(TAPS):
        raise UsageError(
            f"the loss network's layers must be one or more of {', '.join(TAPS)}, each at most once; "
            f"got {', '.join(map(str, wanted)) or 'none'}"
        )
    return {tap: relus[tap] for tap in TAPS if tap in wanted}


class LossNetwork(nn.Module):
    """VGG-19 up to the deepest requested tap, frozen and always in eval mode.

    Source: Simonyan and Zisserman 2015; the choice of taps and of the input scale is Hou et al., section 3.3.

    The `state_dict` has torchvision's keys, `features.N.weight` and `features.N.bias`. The weights take
    **RGB**: `load_loss_network` converts conv1_1 once for files in BGR order, so that no step reorders channels.

    On a GPU conv1_1 runs with eight input channels, of which five are zero. They are added to its weight when the
    network is moved, cast or loaded; after a change of that weight in place, do one of these again.

    Args:
        taps: which feature maps to return, from `TAPS`. Layers deeper than the deepest one are not built.
        mean: subtracted from each input channel, RGB on the 0..255 scale.

    Attributes:
        taps: the names, in order of depth.
        channels: of each tap.
        smallest_side: height and width that images must have at the least, for the poolings.
        source: where the weights came from, human-readable.
        digest: identifies the weights: SHA-256 of the tensors, the same for every file format; "stand-in"; or None if
            nothing was loaded.
    """

    shift: Tensor
    aligned_weight: Tensor | None

    def __init__(self, taps: Sequence[str] = TAPS, *, mean: Sequence[float] = CAFFE_MEAN_RGB):
        super().__init__()
        indices = tap_indices(taps)
        self.taps = tuple(indices)
        self.source, self.digest = "PyTorch's default initialisation, not loaded", None
        self._tap_at = frozenset(indices.values())
        convs = conv_layers()
        deepest = max(self._tap_at)
        # Building must not change the global random state, or a run would depend on the depth of the taps.
        with torch.random.fork_rng(devices=[]):
            self.features = nn.Sequential(*(_layer(convs, index) for index in range(deepest + 1)))
        self._layers = tuple(
            "pool" if isinstance(layer, nn.MaxPool2d) else "tap" if index + 1 in self._tap_at else "conv"
            for index, layer in enumerate(self.features)
            if not isinstance(layer, nn.ReLU)  # fused with the convolution before it
        )
        self.smallest_side = 2 ** sum(isinstance(layer, nn.MaxPool2d) for layer in self.features)
        self.channels = tuple(convs[index - 1][2] for index in indices.values())
        # Not in the state dict, which has only torchvision's keys.
        shift = torch.tensor([[[[127.5 - level]] for level in mean]], dtype=torch.float32)  # [1, 3, 1, 1]
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("aligned_weight", None, persistent=False)
        self.register_load_state_dict_post_hook(_align)
        self.requires_grad_(False)
        self.eval()

    def _apply(self, *arguments, **options) -> "LossNetwork":
        super()._apply(*arguments, **options)  # all of nn.Module's ways to move and cast end here
        _align(self)
        return self

    def train(self, mode: bool = True) -> "LossNetwork":
        """Stays in eval mode: the network is not trained."""
        return super().train(False)

    def round_weights_(self, dtype: torch.dtype) -> "LossNetwork":
        """Converts the convolutions' weights to the dtype of the autocast in which all passes run.

        The features do not change by a bit, since autocast would round the frozen weights in every pass, twice a step.
        Outside autocast the network can no longer be used.
        """
        self.features.to(dtype)
        _align(self)
        return self

    def part(self, taps: Sequence[str]) -> "LossNetwork":
        """The network up to the deepest of the given taps; shares the layers.

        Raises:
            UsageError: a tap is unknown.
            ValueError: a tap is deeper than this network.
        """
        with torch.device("meta"):
            part = LossNetwork(taps)
        if len(part.features) > len(self.features):
            raise ValueError(f"{part.taps[-1]} is deeper than this network, which ends at {self.taps[-1]}")
        part.features = self.features[: len(part.features)]
        part.source, part.digest = self.source, self.digest
        part.shift, part.aligned_weight = self.shift, self.aligned_weight
        return part

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The feature maps of the taps, in order of depth.

        Args:
            images: [B, 3, H, W] RGB in [-1, 1], floating point; H and W at least 2^k with k poolings.

        Returns:
            One non-negative tensor [B, C, H / 2^k, W / 2^k] per tap, after k poolings.
        """
        weight, bias, *_ = self._parameters_of_the_layers()
        x = F.conv2d(with_channels(self.preprocess(images), weight.shape[1]), weight, bias, padding=1)
        taps = []
        for index, layer in enumerate(self.features):
            x = layer(x) if index else x
            if index in self._tap_at:
                taps.append(x)
        return tuple(taps)

    def forward_pair(self, images: Tensor, fakes: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Both sides of the feature loss in one pass: `forward(images)` as constants, and `forward(fakes)`.

        Both share each layer's kernel, and only the maps of the generated images are saved for the backward pass.
        Compile it together with the loss: in torch 2.11, features that leave a compiled graph get no gradient.

        Args:
            images: [B, 3, H, W] RGB in [-1, 1], floating point, as for `forward`.
            fakes: generated images of the same shape; they get the gradient.

        Returns:
            The feature maps of both sides, one tensor per tap in order of depth. Those of `fakes` are differentiable
            once, in reverse mode; for torch.func's transforms, which raise, use `forward`.
        """
        if images.shape != fakes.shape:
            raise ValueError(
                f"the loss network compares images with generated images of the same shape; "
                f"got {tuple(images.shape)} and {tuple(fakes.shape)}"
            )
        return forward_pair(
            self._layers, self._parameters_of_the_layers(), self.preprocess(images), self.preprocess(fakes)
        )

    def check_takes(self, image_size: int) -> None:
        """Raises UsageError if images of so many pixels a side are too small for the deepest tap."""
        if image_size < self.smallest_side:
            raise UsageError(
                f"the loss network needs images of {self.smallest_side}x{self.smallest_side} or more for "
                f"{self.taps[-1]}; these have {image_size}x{image_size}: give other --layers, or larger images"
            )

    def _parameters_of_the_layers(self) -> list[Tensor]:
        """Weight, bias, weight, bias, ... as the convolutions use them."""
        first, *others = self.features.parameters()
        return [first if self.aligned_weight is None else self.aligned_weight, *others]

    def preprocess(self, images: Tensor) -> Tensor:
        """Converts images to the first convolution's input: 0..255 minus the mean."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"the loss network expects floating-point images [B, 3, H, W] in [-1, 1]; "
                f"got {images.dtype} {tuple(images.shape)}"
            )
        if min(images.shape[2:]) < self.smallest_side:
            raise ValueError(
                f"images for {self.taps[-1]} must be at least {self.smallest_side} pixels wide and high; "
                f"got {images.shape[2]}x{images.shape[3]} (H x W)"
            )
        # The shift cannot be folded into conv1_1's bias: the zero padding, which stands for the mean colour, would then
        # stand for mid grey and change the features along the borders.
        return images * 127.5 + self.shift

    def extra_repr(self) -> str:
        return f"taps={', '.join(self.taps)}; weights: {self.source}"


@torch.no_grad()
def _align(network: LossNetwork, *_) -> None:
    """Pads conv1_1's weight where it runs on tensor cores."""
    weight = network.features[0].weight
    # Not asked on a CPU, where a network that moves on to a GPU begins: the answer may take a compiler.
    on_cpu = weight.device.type == "cpu" and forced("conv_relu") is None
    if on_cpu or provider("conv_relu", weight) in ("native", "aten"):
        network.aligned_weight = None
    else:
        # Given the three colours alone, cuDNN copies the map, or does without tensor cores.
        padded = with_channels(weight, ALIGNED_CHANNELS)
        network.aligned_weight = padded.contiguous(memory_format=torch.channels_last)


def _layer(convs: dict[int, tuple[str, int, int]], index: int) -> nn.Module:
    if index in convs:
        _, inputs, outputs = convs[index]
        return nn.Conv2d(inputs, outputs, 3, padding=1)
    if index - 1 in convs:
        # In place: the convolution before keeps its input for the backward pass, never its output.
        return nn.ReLU(inplace=True)
    return nn.MaxPool2d(2)
