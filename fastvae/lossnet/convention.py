"""The input conventions of VGG-19 weights, and adapting the weights to our images.

There are three kinds in use: the original Caffe weights (BGR, 0..255 minus the mean colour; the same in Keras), copies
of them with rescaled layers ("normalised", for style transfer), and torchvision's, trained on RGB in 0..1, standardised
by mean and deviation. The magnitude of the weights does not distinguish them: conv1_1 has a root mean square of 0.19 in
Caffe's VGG-19 and 0.25 in torchvision's VGG-16, although their inputs differ by a factor of 58. So each is recognised
by one colour filter.
"""

import dataclasses

import torch
from torch import Tensor

from fastvae.lossnet.network import CAFFE_MEAN_RGB

# Filter 22 of Caffe's conv1_1, [BGR, 3, 3]: blue minus red.
_CAFFE_FILTER = 22
_CAFFE = (
    ((0.1483, 0.1539, 0.1458), (0.1547, 0.1521, 0.1479), (0.1320, 0.1523, 0.1399)),
    ((0.0623, 0.0362, 0.0549), (0.0368, 0.0013, 0.0250), (0.0405, 0.0297, 0.0442)),
    ((-0.1447, -0.1923, -0.1525), (-0.1921, -0.2496, -0.2047), (-0.1611, -0.1937, -0.1592)),
)
# Filter 63 of torchvision's conv1_1, [RGB, 3, 3], as printed by its users: a red edge minus a blue one.
_TORCHVISION_FILTER = 63
_TORCHVISION = (
    ((-0.8106, -0.7432, -0.7789), (-0.1693, 0.3423, -0.0702), (0.5249, 0.9599, 0.7621)),
    ((0.0792, 0.2456, -0.1532), (-0.0709, 0.4465, -0.3807), (-0.1531, 0.1243, -0.1107)),
    ((0.5203, 0.7574, 0.6237), (-0.1073, 0.1876, -0.1218), (-0.6641, -0.6489, -0.5536)),
)
_TORCHVISION_MEAN = (0.485, 0.456, 0.406)
_TORCHVISION_STD = (0.229, 0.224, 0.225)

# Relative: float16 changes the filters by 1e-4; filters of other networks differ by more than 0.5.
_TOLERANCE = 0.02


@dataclasses.dataclass(frozen=True)
class Convention:
    """The input that weights expect.

    Attributes:
        name: human-readable.
        order: of the input channels, "RGB" or "BGR".
        mean: the colour that is subtracted, RGB on the 0..255 scale.
        divisor: of each channel after that, RGB; 1 if the input stays on the 0..255 scale.
    """

    name: str
    order: str
    mean: tuple[float, ...] = CAFFE_MEAN_RGB
    divisor: tuple[float, ...] = (1.0, 1.0, 1.0)

    def fold_into(self, weight: Tensor) -> Tensor:
        """Converts conv1_1's weight [64, 3, 3, 3] to take RGB on the 0..255 scale minus `mean`.

        Exact up to rounding, also at the borders: the zero padding stands for `mean` before and after.
        """
        rgb = weight.flip(1) if self.order == "BGR" else weight
        return rgb / torch.tensor(self.divisor).view(1, 3, 1, 1)


CAFFE = Convention("original Caffe scale, BGR", "BGR")
CAFFE_RGB = Convention("original Caffe scale, turned to RGB", "RGB")
TORCHVISION = Convention(
    "torchvision scale, RGB",
    "RGB",
    mean=tuple(255 * level for level in _TORCHVISION_MEAN),
    divisor=tuple(255 * deviation for deviation in _TORCHVISION_STD),
)


# Values of the key "convention" in the metadata of a safetensors file, which make recognition unnecessary.
BY_NAME = {"caffe": CAFFE, "caffe-rgb": CAFFE_RGB, "torchvision": TORCHVISION}


def recognise(weight: Tensor) -> tuple[Convention | None, bool]:
    """Recognises the convention from conv1_1's weight [64, 3, 3, 3].

    Returns:
        The convention, or None if the weights are unknown; and whether the filter has its original scale. A rescaled
        copy of Caffe's weights counts as Caffe's; of torchvision's only the original does, because the biases of a
        rescaled copy would not match the adapted weights.
    """
    caffe, torchvision = torch.tensor(_CAFFE), torch.tensor(_TORCHVISION)
    if _distance(weight[_TORCHVISION_FILTER], torchvision) < _TOLERANCE:
        return TORCHVISION, True
    for convention, pinned in ((CAFFE, caffe), (CAFFE_RGB, caffe.flip(0))):
        ours = weight[_CAFFE_FILTER]
        size = (ours.norm() / pinned.norm()).clamp(min=1e-12)
        if _distance(ours / size, pinned) < _TOLERANCE:
            return convention, abs(size.item() - 1) < _TOLERANCE
    return None, False


def _distance(ours: Tensor, pinned: Tensor) -> float:
    return ((ours - pinned).norm() / pinned.norm()).item()
