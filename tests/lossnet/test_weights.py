"""From a name or a file to a network that takes RGB in [-1, 1] and has Caffe's levels."""

import logging
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from fastvae.errors import FastvaeError, UsageError
from fastvae.lossnet import TAPS, load_loss_network
from fastvae.lossnet.calibrate import CAFFE_TAP_RMS, calibration_images, tap_rms

REAL = os.environ.get("FASTVAE_VGG19", "")
TWO = TAPS[:2]


@pytest.fixture
def save(tmp_path, make_weights):
    def save(kind, metadata=None, change=None):
        path = tmp_path / f"{kind}.safetensors"
        weights = make_weights(kind)
        save_file(change(weights) if change else weights, path, metadata)
        return path

    return save


def features(weights, x):
    """relu1_1 and relu2_1 by hand, of an input in the weights' own scale."""

    def conv(x, index):
        return F.relu(F.conv2d(x, weights[f"features.{index}.weight"], weights[f"features.{index}.bias"], padding=1))

    first = conv(x, 0)
    return first, conv(F.max_pool2d(conv(first, 2), 2), 5)


def test_caffe_weights_see_bgr_minus_the_mean(save, make_weights, images):
    network = load_loss_network(save("caffe"), taps=TWO)
    bgr = ((images + 1) * 127.5).flip(1) - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    for ours, expected in zip(network(images), features(make_weights("caffe"), bgr), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-3)
    assert "original Caffe scale" in network.source


def test_a_saved_network_loads_as_it_was(save, tmp_path, images):
    network = load_loss_network(save("caffe"), taps=TWO)
    save_file(network.state_dict(), tmp_path / "again.safetensors")
    again = load_loss_network(tmp_path / "again.safetensors", taps=TWO)
    assert all(torch.equal(a, b) for a, b in zip(again(images), network(images), strict=True))


def test_torchvision_weights_get_the_adapter(save, make_weights, images, caplog):
    with caplog.at_level(logging.INFO, logger="fastvae"):
        network = load_loss_network(save("torchvision"), taps=TWO)
    for tap, level in tap_rms(network, calibration_images()).items():
        assert level == pytest.approx(CAFFE_TAP_RMS[tap], rel=0.01)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    theirs = features(make_weights("torchvision"), ((images + 1) / 2 - mean) / std)
    for tap, ours, plain in zip(TWO, network(images), theirs, strict=True):
        gain = (ours.norm() / plain.norm()).item()
        torch.testing.assert_close(ours, gain * plain, rtol=1e-3, atol=1e-4 * ours.max().item())
        assert f"{tap} " in caplog.text
    assert "torchvision" in network.source


def test_rescaled_caffe_weights_are_brought_to_the_levels(save, images):
    def smaller(weights):
        return {key: 0.1 * value for key, value in weights.items()}

    network = load_loss_network(save("caffe", change=smaller), taps=TWO)
    for tap, level in tap_rms(network, calibration_images()).items():
        assert level == pytest.approx(CAFFE_TAP_RMS[tap], rel=0.01)


def test_unknown_weights_are_loaded_with_a_warning(save, caplog):
    load_loss_network(save("unknown"), taps=TWO)
    assert "neither the original VGG-19 nor torchvision's" in caplog.text


def test_metadata_states_the_convention(save, caplog):
    network = load_loss_network(save("unknown", {"convention": "torchvision"}), taps=TWO)
    assert "torchvision scale" in network.source and not caplog.records
    with pytest.raises(FastvaeError, match=r"caffe, caffe-rgb, torchvision.*lab"):
        load_loss_network(save("unknown", {"convention": "lab"}), taps=TWO)


@pytest.mark.parametrize(
    ("name", "hint"), [("cafe", "did you mean 'caffe'"), ("torch-vision", "torchvision"), ("xyzzy", "choose from")]
)
def test_unknown_names_get_a_hint(name, hint):
    with pytest.raises(UsageError, match=f"caffe, torchvision, random.*{name}.*|.*{hint}"):
        load_loss_network(name)


def test_taps_are_checked_before_anything_is_read():
    with pytest.raises(UsageError, match="relu1_1"):
        load_loss_network("/nowhere.npz", taps=("conv1_1",))


@pytest.mark.skipif(not REAL, reason="FASTVAE_VGG19 does not name a file of the original weights")
def test_original_weights_have_the_levels_that_are_pinned():
    network = load_loss_network(Path(REAL))
    assert "original Caffe scale" in network.source and "levels" not in network.source
    for tap, level in tap_rms(network, calibration_images()).items():
        assert level == pytest.approx(CAFFE_TAP_RMS[tap], rel=0.02)
