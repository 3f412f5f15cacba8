"""VGG-FC: features of VGG-19's fully connected layers, the baseline of Table 1.

    f = relu(W7 relu(W6 flatten(maps of pool5) + b6) + b7), of the image resized to 224x224: fc7, 4096 features

Source: Simonyan and Zisserman 2015, Table 1, column E; Hou et al. 2017 (DFC-VAE), from which the paper takes the
baseline. It does not say which of the layers it is: this is the last one before the class scores, after its ReLU.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastvae.attributes.features import FeatureSource
from fastvae.errors import FastvaeError, UsageError
from fastvae.files.places import is_file
from fastvae.files.reading import Malformed
from fastvae.files.tensor_file import check_size, load_state_dict, open_safetensors
from fastvae.lossnet.convention import BY_NAME, TORCHVISION, Convention, recognise
from fastvae.progress_bar import progress_bar

_SIDE = 224
_BATCH = 32
_BLOCKS = (2, 2, 4, 4, 4)  # convolutions between two poolings
_CLASSIFIER = (0, 3)  # fc6 and fc7 by torchvision's index; 1 and 4 are ReLUs, 2 and 5 dropout
_KEY = re.compile(r"(?:^|\.)((?:features|classifier)\.\d+\.(?:weight|bias))$")


def vgg_fc_source(path: Path, device: torch.device) -> FeatureSource:
    """fc7 of a complete VGG-19.

    Args:
        path: a `.pth`, `.pt` or `.safetensors` file with torchvision's keys. The widths of the layers are its own.
            The input is what the file is for: as its metadata say ("convention"), or as its first layer tells, or else
            torchvision's.
        device: where it computes.

    Raises:
        UsageError: the file has another suffix.
        FastvaeError: it is missing, broken or refused, lacks layers, or their shapes do not fit each other.
    """
    weights, stated = _read(path)
    _check(path, weights)
    first = weights["features.0.weight"]
    convention = BY_NAME.get(stated or "")
    if convention is None and tuple(first.shape) == (64, 3, 3, 3):
        convention = recognise(first)[0]
    convention = convention or TORCHVISION
    weights = {key: tensor.to(device) for key, tensor in weights.items()}
    count = len(weights["classifier.3.bias"])

    def encode(images: np.ndarray, indices: np.ndarray, label: str) -> np.ndarray:
        features = np.empty((len(indices), count), np.float32)
        with torch.inference_mode(), progress_bar(what=label, total=len(indices), unit=" images") as bar:
            for start in range(0, len(indices), _BATCH):
                batch = torch.from_numpy(np.ascontiguousarray(images[indices[start : start + _BATCH]]))
                features[start : start + len(batch)] = fc7(batch.to(device), weights, convention).cpu().numpy()
                bar.update(len(batch))
        return features

    return FeatureSource(f"VGG-FC ({path.name}, fc7, {convention.name})", count, None, encode)


def fc7(images: Tensor, weights: Mapping[str, Tensor], convention: Convention) -> Tensor:
    """Images uint8 [B, H, W, 3] RGB -> float32 [B, width of fc7], non-negative."""
    mean, divisor = (torch.tensor(c, device=images.device).view(3, 1, 1) for c in (convention.mean, convention.divisor))
    x = F.interpolate(images.permute(0, 3, 1, 2).float(), (_SIDE, _SIDE), mode="bilinear", antialias=True)
    x = (x - mean) / divisor
    if convention.order == "BGR":
        x = x.flip(1)
    for block in _convolutions():
        for index in block:
            x = F.relu_(F.conv2d(x, weights[f"features.{index}.weight"], weights[f"features.{index}.bias"], padding=1))
        x = F.max_pool2d(x, 2)
    x = x.flatten(1)
    for index in _CLASSIFIER:
        x = F.relu_(F.linear(x, weights[f"classifier.{index}.weight"], weights[f"classifier.{index}.bias"]))
    return x


def _convolutions() -> list[list[int]]:
    """torchvision's indices of the convolutions, by block."""
    blocks, index = [], 0
    for count in _BLOCKS:
        blocks.append([index + 2 * position for position in range(count)])  # each with its ReLU
        index += 2 * count + 1  # and the pooling
    return blocks


def _read(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """float32 tensors under torchvision's keys, and the convention that the file states, if it does."""
    if path.suffix.lower() not in (".pth", ".pt", ".safetensors"):
        raise UsageError(f"--vgg-fc takes a .pth, .pt or .safetensors file of a whole VGG-19; got {path}")
    if not is_file(path):
        raise FastvaeError(f"there is no file {path} with VGG-19's weights. Check the path.")
    stated = None
    try:
        if path.suffix.lower() == ".safetensors":
            check_size(path.stat().st_size)
            with open_safetensors(path) as file:
                stated = (file.metadata() or {}).get("convention")
                # Copies: what is given is a map of the file, which changes with it.
                content = {key: file.get_tensor(key).clone() for key in file.keys() if _KEY.search(key)}  # noqa: SIM118
        else:
            content = load_state_dict(path)
        return {match[1]: tensor.float() for key, tensor in content.items() if (match := _KEY.search(key))}, stated
    except Malformed as error:
        raise FastvaeError(f"{path} is not what it should be: {error}") from error
    except Exception as error:  # what readers raise on damaged files is open-ended
        raise FastvaeError(
            f"{path} cannot be read as tensors alone ({type(error).__name__}): it is cut short, of another kind, or "
            "holds code, which is not run. Save a state dict, or download it again."
        ) from error


def _check(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Every layer is there, and takes what the one before it gives."""
    layers = [f"features.{index}" for block in _convolutions() for index in block]
    inputs = 3
    for layer in [*layers, *(f"classifier.{index}" for index in _CLASSIFIER)]:
        if layer == "classifier.0":
            inputs *= (_SIDE // 2 ** len(_BLOCKS)) ** 2
        weight, bias = weights.get(f"{layer}.weight"), weights.get(f"{layer}.bias")
        if weight is None or bias is None:
            raise FastvaeError(
                f"{path} has no {layer}.{'weight' if weight is None else 'bias'}: --vgg-fc needs VGG-19 with its fully "
                "connected layers, under torchvision's keys features.N.* and classifier.0/3.*"
            )
        outputs = len(weight) if weight.ndim else 0
        expected = (outputs, inputs, 3, 3) if layer.startswith("features") else (outputs, inputs)
        for kind, tensor, shape in (("weight", weight, expected), ("bias", bias, (outputs,))):
            if tuple(tensor.shape) != shape or not outputs:
                raise FastvaeError(
                    f"{layer}.{kind} in {path} must be {list(shape)}, after the layer before it in VGG-19; "
                    f"got {list(tensor.shape)}"
                )
            if not torch.isfinite(tensor).all():
                raise FastvaeError(f"{layer}.{kind} in {path} holds NaN or infinity. Copy the file again.")
        inputs = outputs
