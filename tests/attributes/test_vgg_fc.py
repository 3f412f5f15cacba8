"""VGG-FC against torch.nn's layers, and files that are not VGG-19."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fastvae.attributes.vgg_fc import vgg_fc_source
from fastvae.errors import FastvaeError, UsageError
from tests.attributes.data import tiny_vgg

CPU = torch.device("cpu")


def as_torchvision_builds_it(weights) -> nn.Module:
    layers, inputs, index = [], 3, 0
    for count in (2, 2, 4, 4, 4):
        for _ in range(count):
            outputs = len(weights[f"features.{index}.weight"])
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            inputs, index = outputs, index + 2
        layers.append(nn.MaxPool2d(2, 2))
        index += 1
    first, second = (weights[f"classifier.{i}.weight"] for i in (0, 3))
    model = nn.Module()
    model.features = nn.Sequential(*layers)
    model.classifier = nn.Sequential(
        nn.Linear(*first.shape[::-1]), nn.ReLU(), nn.Dropout(), nn.Linear(*second.shape[::-1]), nn.ReLU()
    )
    model.load_state_dict(weights)
    return model.eval()


@pytest.fixture
def images():
    return np.random.Generator(np.random.PCG64(0)).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)


@pytest.mark.parametrize("convention", ["torchvision", "caffe"])
def test_the_same_as_the_layers_of_torch(images, tmp_path, convention):
    weights = tiny_vgg((2, 3, 2, 3, 2), fc=(6, 4))
    if convention == "torchvision":
        path = tmp_path / "vgg19.pth"
        torch.save(
            {f"module.{key}": value for key, value in weights.items()} | {"classifier.6.bias": torch.zeros(9)}, path
        )
    else:
        path = tmp_path / "vgg19.safetensors"
        save_file(weights, path, metadata={"convention": "caffe"})
    source = vgg_fc_source(path, CPU)
    assert source.count == 4 and convention in source.name.lower() and "fc7" in source.name
    found = source.encode(images, np.array([4, 0, 2]), "VGG-FC")

    x = torch.from_numpy(images[[4, 0, 2]]).permute(0, 3, 1, 2).double()
    x = nn.functional.interpolate(x, size=(224, 224), mode="bilinear", align_corners=False)
    if convention == "torchvision":
        x = (x / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
            3, 1, 1
        )
    else:
        x = x[:, [2, 1, 0]] - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    model = as_torchvision_builds_it(weights).double()
    with torch.no_grad():
        expected = model.classifier(model.features(x.double()).flatten(1)).numpy()
    assert found.dtype == np.float32 and (expected > 0).any() and (found >= 0).all()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max())


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda w: w.pop("classifier.3.weight"), r"has no classifier.3.weight: .* fully\s+connected layers"),
        (lambda w: w.pop("features.34.bias"), "has no features.34.bias"),
        (lambda w: w.update({"features.2.weight": torch.zeros(2, 7, 3, 3)}), r"must be \[2, 2, 3, 3\].*got \[2, 7, 3"),
        (lambda w: w.update({"classifier.0.weight": torch.zeros(5, 2 * 36)}), r"must be \[5, 98\].*got \[5, 72\]"),
        (lambda w: w.update({"classifier.3.bias": torch.zeros(4)}), r"classifier.3.bias .* must be \[3\].*got \[4\]"),
        (lambda w: w.update({"classifier.3.bias": torch.full((3,), torch.nan)}), "holds NaN"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, change, words):
    weights = tiny_vgg()
    change(weights)
    path = tmp_path / "vgg19.safetensors"
    save_file(weights, path)
    with pytest.raises(FastvaeError, match=words):
        vgg_fc_source(path, CPU)


class Code:
    def __reduce__(self):
        return (print, ("this code should not run",))


@pytest.mark.parametrize("content", [b"", b"not a file of torch's", "code", "list"])
def test_files_that_are_refused(tmp_path, content, capsys):
    path = tmp_path / "vgg19.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(Code() if content == "code" else [torch.zeros(1)], path)
    with pytest.raises(FastvaeError, match=r"tensors alone|must contain a state dict"):
        vgg_fc_source(path, CPU)
    assert not capsys.readouterr().out


def test_names_of_files(tmp_path):
    with pytest.raises(UsageError, match=r"takes a .pth, .pt or .safetensors"):
        vgg_fc_source(tmp_path / "vgg19.h5", CPU)
    with pytest.raises(FastvaeError, match="there is no file"):
        vgg_fc_source(tmp_path / "vgg19.pth", CPU)
