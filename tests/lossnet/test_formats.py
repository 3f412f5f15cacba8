"""Each file format gives the same weights back, and every broken file a message."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastvae.attributes.vgg_fc import vgg_fc_source
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
    with pytest.raises(FastvaeError, match="it is not loaded"):
        read_weights(path, LAYERS)
    assert not trace.exists()


def test_an_npz_of_objects_is_refused_and_not_run(tmp_path):
    path, trace = tmp_path / "vgg19.npz", tmp_path / "executed"
    np.savez(path, block1_conv1_b=np.array([Malicious(trace)] * 64, dtype=object))
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


def claim(path, numbers):
    """An array of so many numbers, in a file of a few bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("block1_conv1_W.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": numbers})


HOSTILE = {
    "text.safetensors": lambda path: path.write_text("words"),
    "header.safetensors": lambda path: path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}"),
    "claims.safetensors": lambda path: save_file({"features.0.weight": torch.zeros(1 << 16)}, path),
    "views.pth": lambda path: torch.save({"features.0.bias": torch.zeros(1).expand(10**12)}, path),
    "sparse.pth": lambda path: torch.save({"features.0.bias": torch.zeros(64).to_sparse()}, path),
    "meta.pth": lambda path: torch.save({"features.0.bias": torch.zeros(64, device="meta")}, path),
    "names.pth": lambda path: torch.save({3: torch.zeros(1), "state_dict": {"features.0.bias": "x"}}, path),
    "claims.npz": lambda path: claim(path, (3, 3, 10**9, 10**9)),
    "not-a-zip.npz": lambda path: path.write_bytes(b"\x93NUMPY"),
    "text.h5": lambda path: path.write_text("words"),
    "pipe.pth": os.mkfifo,
    "pipe.safetensors": os.mkfifo,
    "pipe.npz": os.mkfifo,
    "folder.pth": Path.mkdir,
    "folder.safetensors": Path.mkdir,
    "large.pth": lambda path: (path.touch(), os.truncate(path, 1 << 40)),
    "large.safetensors": lambda path: (path.touch(), os.truncate(path, 1 << 40)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_a_line(name, tmp_path):
    path = tmp_path / name
    if name.endswith(".h5"):
        pytest.importorskip("h5py")
    HOSTILE[name](path)
    for read in (lambda: read_weights(path, LAYERS), lambda: vgg_fc_source(path, torch.device("cpu"))):
        with pytest.raises(FastvaeError) as error:
            read()
        assert "\n" not in str(error.value) and path.name in str(error.value) and len(str(error.value)) < 600


def test_a_dataset_that_claims_more_than_the_file_has(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "claims.h5", "w") as file:
        file.create_dataset("block1_conv1/kernel:0", (3, 3, 10**6, 10**6), chunks=(3, 3, 10, 10), dtype="f4")
    with pytest.raises(FastvaeError, match=r"must be \(64, 3, 3, 3\)"):
        read_weights(tmp_path / "claims.h5", LAYERS)


def test_names_that_are_not_utf8(tmp_path, make_weights):
    for ending in ("safetensors", "pth"):
        plain = tmp_path / f"x.{ending}"
        SAVE[ending](plain, make_weights())
        path = plain.rename(tmp_path / os.fsdecode(b"\xfc." + ending.encode()))
        assert read_weights(path, LAYERS)[0].keys() == make_weights().keys()


def test_missing_and_unknown_files_are_named(tmp_path):
    with pytest.raises(FastvaeError, match=r"no file .*vgg19.npz"):
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
