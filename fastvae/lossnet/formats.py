"""Reads VGG-19's convolutions from the common formats of its weights. No pickle is run."""

import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastvae.errors import FastvaeError, UsageError
from fastvae.files.places import is_file
from fastvae.files.reading import Malformed, open_regular
from fastvae.files.tensor_file import load_state_dict, open_safetensors
from fastvae.lossnet.network import conv_layers

_TORCHVISION_KEY = re.compile(r"(?:^|\.)features\.(\d+)\.(weight|bias)$")
# block1_conv1_W, block1_conv1/kernel:0, block1_conv1/block1_conv1/bias:0: different versions of Keras.
_KERAS_KEY = re.compile(r"block(\d)_conv(\d)")
_INDICES = {name: index for index, (name, _, _) in conv_layers().items()}


class Stored(NamedTuple):
    """A tensor in a file, not read yet, with torchvision's key."""

    key: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]


def read_weights(path: Path, layers: set[int]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads the convolutions of the given `features` indices.

    Args:
        path: a `.safetensors`, `.pth` or `.pt` file with torchvision's keys, or a `.h5` or `.npz` file with
            Keras's layer names and kernels [H, W, I, O].
        layers: torchvision's indices of the convolutions to read.

    Returns:
        float32 tensors under torchvision's keys, kernels [O, I, H, W]; and the metadata of a safetensors file.

    Raises:
        FastvaeError: the file is missing, damaged or unsafe, lacks layers, or a layer has another shape (which is
            checked before reading it).
        UsageError: the file has another suffix.
    """
    readers: dict[str, Callable[[Path], Iterator[Stored]]] = {
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
    if not is_file(path):
        raise FastvaeError(f"no file {path} with weights of the loss network. Check the path.")
    wanted, tensors = _wanted(layers), {}
    try:
        metadata = _metadata(path)
        for stored in reader(path):
            if stored.key in wanted:
                _check_shape(path, stored, wanted[stored.key])
                if stored.key in tensors:
                    raise FastvaeError(f"{path} holds {stored.key} more than once: which one is meant?")
                tensors[stored.key] = stored.read().to(torch.float32)
    except FastvaeError:
        raise
    except Exception as error:  # readers may raise anything for damaged files
        raise FastvaeError(
            f"{path} cannot be read as a {path.suffix} file; it may be truncated or of another kind "
            f"({type(error).__name__}: {first_line(error)}). Copy or download it again."
        ) from error
    _check(path, tensors, layers)
    return tensors, metadata


def first_line(error: Exception) -> str:
    """An exception's message in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]


def _wanted(layers: set[int]) -> dict[str, tuple[int, ...]]:
    """Shapes by torchvision's keys."""
    convs = conv_layers()
    shapes = {}
    for index in layers:
        _, inputs, outputs = convs[index]
        shapes |= {f"features.{index}.weight": (outputs, inputs, 3, 3), f"features.{index}.bias": (outputs,)}
    return shapes


def _check_shape(path: Path, stored: Stored, shape: tuple[int, ...]) -> None:
    if stored.shape != shape:
        index, kind = stored.key.split(".")[1:]
        raise FastvaeError(
            f"the {kind} of {conv_layers()[int(index)][0]} in {path} must be {shape}, as in VGG-19; got "
            f"{stored.shape}. Use a file with VGG-19, not another network."
        )


def _check(path: Path, tensors: Mapping[str, Tensor], layers: set[int]) -> None:
    convs = conv_layers()
    for index in sorted(layers):
        name = convs[index][0]
        for kind in ("weight", "bias"):
            tensor = tensors.get(f"features.{index}.{kind}")
            if tensor is None:
                keras = name.replace("_", "_conv").replace("conv", "block", 1)
                raise FastvaeError(
                    f"{path} has no {kind} of {name}: expected torchvision's key features.{index}.{kind} "
                    f"or Keras's layer {keras}. Use a file with VGG-19 up to {convs[max(layers)][0]}, or "
                    f"use fewer taps."
                )
            if not torch.isfinite(tensor).all():
                raise FastvaeError(
                    f"the {kind} of {name} in {path} must be finite; got NaN or infinity. Copy the file again."
                )


def _metadata(path: Path) -> dict[str, str]:
    if path.suffix.lower() != ".safetensors":
        return {}
    with open_safetensors(path) as file:
        return file.metadata() or {}


def _safetensors(path: Path) -> Iterator[Stored]:
    with open_safetensors(path) as file:
        for key in file.keys():  # noqa: SIM118 (not a dict: it cannot be iterated)
            if match := _TORCHVISION_KEY.search(key):
                shape = tuple(file.get_slice(key).get_shape())
                # A copy: the tensor is a memory map, which changes with the file.
                yield Stored(match[0].lstrip("."), shape, lambda key=key: file.get_tensor(key).clone())


def _torch_file(path: Path) -> Iterator[Stored]:
    try:
        content = load_state_dict(path)
    except Malformed as error:
        raise FastvaeError(f"{path} is not a file of weights: {error}") from error
    except pickle.UnpicklingError as error:
        raise FastvaeError(
            f"{path} contains more than tensors, is damaged, or is not a PyTorch file. Loading it could run code, so "
            f"it is not loaded. Save only its state dict, with torch.save(model.state_dict(), ...) or as "
            f".safetensors."
        ) from error
    for key, tensor in content.items():
        if match := _TORCHVISION_KEY.search(key):
            yield Stored(match[0].lstrip("."), tuple(tensor.shape), lambda tensor=tensor: tensor)


def _npz(path: Path) -> Iterator[Stored]:
    with open_regular(path) as file:
        with zipfile.ZipFile(file) as archive:
            shapes = {}
            for name in archive.namelist():
                if _keras_index(name) is not None:
                    with archive.open(name) as member:
                        shapes[name.removesuffix(".npy")] = _npy_shape(member)
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            for name, shape in shapes.items():
                yield _keras_layer(name, shape, lambda name=name: arrays[name])


def _npy_shape(file: IO[bytes]) -> tuple[int, ...]:
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        raise ValueError(f"arrays of version {version} are not supported")
    return read[version](file)[0]


def _h5(path: Path) -> Iterator[Stored]:
    try:
        import h5py
    except ImportError as error:
        raise FastvaeError(
            f"reading {path} needs h5py, which is not installed. Run `pip install h5py`, or convert the file "
            f"to .safetensors on another machine."
        ) from error
    datasets: dict[str, h5py.Dataset] = {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: datasets.update({name: item}) if hasattr(item, "shape") else None)
        for name, dataset in datasets.items():
            if _keras_index(name) is not None:
                yield _keras_layer(name, tuple(dataset.shape), lambda dataset=dataset: dataset[()])


def _keras_index(name: str) -> int | None:
    """torchvision's index of the convolution of a Keras array, or None; what an optimiser keeps of it has its name."""
    match = None if "optimizer" in name else _KERAS_KEY.search(name)
    return _INDICES.get(f"conv{match[1]}_{match[2]}") if match else None


def _keras_layer(name: str, shape: tuple[int, ...], read: Callable[[], np.ndarray]) -> Stored:
    """A Keras array, kernels [H, W, I, O], as torchvision has it, kernels [O, I, H, W]."""
    kind = "weight" if len(shape) == 4 else "bias"
    axes = (3, 2, 0, 1) if len(shape) == 4 else tuple(range(len(shape)))

    def transposed() -> Tensor:
        # Converted to float32 here, since torch lacks some of NumPy's types, such as big-endian ones.
        return torch.from_numpy(np.ascontiguousarray(read().transpose(*axes), dtype=np.float32))

    return Stored(f"features.{_keras_index(name)}.{kind}", tuple(shape[axis] for axis in axes), transposed)
