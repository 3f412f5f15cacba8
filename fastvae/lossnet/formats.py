"""Reading VGG-19's convolutions from the file formats in which its weights go round. No pickle is run."""

import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fastvae.errors import FastvaeError, UsageError
from fastvae.lossnet.network import conv_layers

_TORCHVISION_KEY = re.compile(r"(?:^|\.)features\.(\d+)\.(weight|bias)$")
# block1_conv1_W, block1_conv1/kernel:0, block1_conv1/block1_conv1/bias:0: Keras over the years.
_KERAS_KEY = re.compile(r"block(\d)_conv(\d)")
_INDICES = {name: index for index, (name, _, _) in conv_layers().items()}


def read_weights(path: Path, layers: set[int]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads the convolutions of the given `features` indices.

    Args:
        path: a `.safetensors`, `.pth` or `.pt` file with torchvision's keys, or a `.h5` or `.npz` file with
            Keras's layer names and kernels [H, W, I, O].
        layers: torchvision's indices of the convolutions to read.

    Returns:
        float32 tensors under torchvision's keys, kernels [O, I, H, W], and the file's metadata (of
        safetensors).

    Raises:
        FastvaeError: the file is missing, broken, refused, or lacks layers, or a layer has another shape.
        UsageError: the file's suffix is none of the above.
    """
    readers: dict[str, Callable[[Path], Iterator[tuple[str, Tensor]]]] = {
        ".safetensors": _safetensors,
        ".pth": _torch_file,
        ".pt": _torch_file,
        ".npz": _npz,
        ".h5": _h5,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            f"weights of the loss network must be a {', '.join(readers)} file; got {path}. Convert it, or "
            f"use --vgg caffe, torchvision or random."
        )
    if not path.is_file():
        raise FastvaeError(f"there is no file {path} with weights of the loss network. Check the path.")
    wanted = {f"features.{index}.{kind}" for index in layers for kind in ("weight", "bias")}
    tensors = {}
    try:
        metadata = _metadata(path)
        for key, tensor in reader(path):
            if key in wanted:
                tensors[key] = tensor.to(torch.float32)
    except (
        SafetensorError,
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        KeyError,
        zipfile.BadZipFile,
    ) as error:
        raise FastvaeError(
            f"{path} cannot be read as a {path.suffix} file; it may be cut short or of another kind "
            f"({type(error).__name__}: {error}). Copy or download it again."
        ) from error
    _check(path, tensors, layers)
    return tensors, metadata


def _check(path: Path, tensors: Mapping[str, Tensor], layers: set[int]) -> None:
    convs = conv_layers()
    for index in sorted(layers):
        name, inputs, outputs = convs[index]
        for kind, shape in (("weight", (outputs, inputs, 3, 3)), ("bias", (outputs,))):
            tensor = tensors.get(f"features.{index}.{kind}")
            if tensor is None:
                keras = name.replace("_", "_conv").replace("conv", "block", 1)
                raise FastvaeError(
                    f"{path} has no {kind} of {name}: expected torchvision's key features.{index}.{kind} "
                    f"or Keras's layer {keras}. Give a file with VGG-19 up to {convs[max(layers)][0]}, or "
                    f"ask for fewer taps."
                )
            if tuple(tensor.shape) != shape:
                raise FastvaeError(
                    f"the {kind} of {name} in {path} must be {shape}, as in VGG-19; got "
                    f"{tuple(tensor.shape)}. Give a file of VGG-19, not of another network."
                )
            if not torch.isfinite(tensor).all():
                raise FastvaeError(
                    f"the {kind} of {name} in {path} must be finite; got NaN or infinity. Copy the file again."
                )


def _metadata(path: Path) -> dict[str, str]:
    if path.suffix.lower() != ".safetensors":
        return {}
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def _safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 (not a dict: it cannot be iterated)
            if match := _TORCHVISION_KEY.search(key):
                yield match[0].lstrip("."), file.get_tensor(key)


def _torch_file(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FastvaeError(
            f"{path} holds more than tensors, or is broken or no PyTorch file. Loading it could run code, so "
            f"it is refused. Save its state dict alone, by torch.save(model.state_dict(), ...) or as "
            f".safetensors."
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise FastvaeError(f"{path} must hold a state dict (name -> tensor); got {type(content).__name__}.")
    for key, tensor in content.items():
        if isinstance(tensor, Tensor) and (match := _TORCHVISION_KEY.search(str(key))):
            yield match[0].lstrip("."), tensor


def _npz(path: Path) -> Iterator[tuple[str, Tensor]]:
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays.files:
            yield from _keras_layer(name, lambda name=name: arrays[name])


def _h5(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        import h5py
    except ImportError as error:
        raise FastvaeError(
            f"reading {path} needs h5py, which is not installed. Run `pip install h5py`, or convert the file "
            f"to .safetensors on a machine that has it."
        ) from error
    datasets: dict[str, h5py.Dataset] = {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: datasets.update({name: item}) if hasattr(item, "shape") else None)
        for name, dataset in datasets.items():
            yield from _keras_layer(name, lambda dataset=dataset: dataset[()])


def _keras_layer(name: str, read: Callable[[], np.ndarray]) -> Iterator[tuple[str, Tensor]]:
    """One array under its torchvision key, if it belongs to a convolution that we know."""
    match = _KERAS_KEY.search(name)
    index = _INDICES.get(f"conv{match[1]}_{match[2]}") if match else None
    if index is None:
        return
    array = read()
    kind = "weight" if array.ndim == 4 else "bias"
    axes = (3, 2, 0, 1) if array.ndim == 4 else range(array.ndim)
    # float32 already here, since numpy has types that torch has not: those of big-endian files, for one.
    array = np.ascontiguousarray(array.transpose(*axes), dtype=np.float32)
    yield f"features.{index}.{kind}", torch.from_numpy(array)
