"""Each file format gives the same weights back, and every broken file a message."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastvae.errors import FastvaeError, UsageError
from fastvae.lossnet.formats import read_weights

LAYERS = {0, 2, 5}
KERAS = {0: "block1_conv1", 2: "block1_conv2", 5: "block2_conv1"}


def keras_arrays(weights, weight_suffix, bias_suffix):
    arrays = {}
    for index, name in KERAS.items():
        kernel = weights[f"features.{index}.weight"].permute(2, 3, 1, 0).contiguous().numpy()
        arrays[name + weight_suffix] = kernel
        arrays[name + bias_suffix] = weights[f"features.{index}.bias"].numpy()
    return arrays


def save_h5(path, weights):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in KERAS.values()]
        for name, array in keras_arrays(weights, "_W_1:0", "_b_1:0").items():
            file[f"{name.split('_W')[0].split('_b_')[0]}/{name}"] = array
        file.create_group("block1_pool")


SAVE = {
    "safetensors": lambda path, weights: save_file(weights, path),
    "pth": lambda path, weights: torch.save(weights, path),
    "legacy.pth": lambda path, weights: torch.save(weights, path, _use_new_zipfile_serialization=False),
    "nested.pt": lambda path, weights: torch.save(
        {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in weights.items()}}, path
    ),
    "old.npz": lambda path, weights: np.savez(path, **keras_arrays(weights, "_W", "_b")),
    "new.npz": lambda path, weights: np.savez(path, **keras_arrays(weights, "/kernel:0", "/bias:0")),
    "h5": save_h5,
}


@pytest.mark.parametrize("kind", SAVE)
def test_formats_give_the_same_weights(kind, tmp_path, make_weights):
    weights = make_weights()
    path = tmp_path / f"vgg19.{kind}"
    SAVE[kind](path, weights | {"classifier.0.bias": torch.zeros(3)})
    tensors, _ = read_weights(path, LAYERS)
    assert tensors.keys() == weights.keys()
    assert all(torch.equal(tensors[key], weights[key]) for key in weights)


def test_reads_only_what_is_asked_for_as_float32(tmp_path, make_weights):
    path = tmp_path / "vgg19.safetensors"
    half = {key: value.half() for key, value in make_weights().items()}
    save_file(half, path, metadata={"source": "a test"})
    tensors, metadata = read_weights(path, {0})
    assert set(tensors) == {"features.0.weight", "features.0.bias"}
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    assert metadata == {"source": "a test"}


class Malicious:
    """Unpickling this would create a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("how", ["torch.save", "pickle"])
def test_a_malicious_pickle_is_refused_and_not_run(how, tmp_path, make_weights):
    path, trace = tmp_path / "vgg19.pth", tmp_path / "executed"
    content = make_weights() | {"surprise": Malicious(trace)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    with pytest.raises(FastvaeError, match="refused"):
        read_weights(path, LAYERS)
    assert not trace.exists()


def test_an_npz_of_objects_is_refused_and_not_run(tmp_path):
    path, trace = tmp_path / "vgg19.npz", tmp_path / "executed"
    np.savez(path, block1_conv1_W=np.array([Malicious(trace)], dtype=object))
    with pytest.raises(FastvaeError, match="cannot be read"):
        read_weights(path, {0})
    assert not trace.exists()


@pytest.mark.parametrize("kind", SAVE)
@pytest.mark.parametrize("keep", [0.0, 0.6], ids=["empty", "cut-short"])
def test_truncated_files_are_named(kind, keep, tmp_path, make_weights):
    path = tmp_path / f"vgg19.{kind}"
    SAVE[kind](path, make_weights())
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(FastvaeError, match=path.name):
        read_weights(path, LAYERS)


def test_missing_and_unknown_files_are_named(tmp_path):
    with pytest.raises(FastvaeError, match=r"there is no file .*vgg19.npz"):
        read_weights(tmp_path / "vgg19.npz", LAYERS)
    with pytest.raises(UsageError, match=r"\.safetensors, \.pth, \.pt, \.npz, \.h5"):
        read_weights(tmp_path / "vgg19.caffemodel", LAYERS)


def test_missing_layers_and_wrong_shapes_are_named(tmp_path, make_weights):
    path = tmp_path / "vgg19.safetensors"
    save_file(make_weights(up_to=2), path)
    with pytest.raises(FastvaeError, match=r"no weight of conv2_1.*features\.5\.weight.*block2_conv1"):
        read_weights(path, LAYERS)
    save_file(make_weights() | {"features.2.weight": torch.zeros(64, 64, 1, 1)}, path)
    with pytest.raises(FastvaeError, match=r"conv1_2.*\(64, 64, 3, 3\).*\(64, 64, 1, 1\)"):
        read_weights(path, LAYERS)
    save_file(make_weights() | {"features.5.bias": torch.full((128,), torch.nan)}, path)
    with pytest.raises(FastvaeError, match=r"conv2_1.*finite"):
        read_weights(path, LAYERS)


def test_a_file_without_a_state_dict_is_named(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "vgg19.pth")
    with pytest.raises(FastvaeError, match=r"state dict.*Tensor"):
        read_weights(tmp_path / "vgg19.pth", LAYERS)


def test_h5_without_h5py_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "vgg19.h5").touch()
    with pytest.raises(FastvaeError, match="pip install h5py"):
        read_weights(tmp_path / "vgg19.h5", LAYERS)
