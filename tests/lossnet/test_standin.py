"""The stand-in has VGG-19's levels, tells images apart, and says what it is."""

import logging

import pytest
import torch

from fastvae.lossnet import TAPS, load_loss_network
from fastvae.lossnet.calibrate import CAFFE_TAP_RMS, calibration_images, tap_rms


@pytest.fixture(scope="module")
def stand_in():
    return load_loss_network("random")


def test_taps_have_the_levels_of_the_original(stand_in):
    for tap, level in tap_rms(stand_in, calibration_images()).items():
        assert level == pytest.approx(CAFFE_TAP_RMS[tap], rel=1e-3)


def test_tells_two_faces_apart_at_every_depth(stand_in):
    for tap, features in zip(TAPS, stand_in(calibration_images()[:2]), strict=True):
        one, other = features
        distance = ((one - other).norm() / (one.norm() * other.norm()).sqrt()).item()
        assert distance > 0.3, (tap, distance)


def test_channels_are_on_about_half_of_the_time(stand_in):
    for features in stand_in(calibration_images()):
        assert 0.35 < (features > 0).float().mean() < 0.65


def test_is_the_same_every_time_and_at_every_depth(stand_in):
    shallow = load_loss_network("random", taps=("relu2_1",))
    for key, value in shallow.state_dict().items():
        torch.testing.assert_close(value, stand_in.state_dict()[key], rtol=1e-4, atol=1e-6)


def test_says_that_it_is_a_stand_in(caplog):
    with caplog.at_level(logging.WARNING, logger="fastvae"):
        network = load_loss_network("random", taps=("relu1_1",))
    assert len(caplog.records) == 1 and "RANDOM STAND-IN, not VGG-19" in caplog.text
    assert "RANDOM STAND-IN" in network.source and "RANDOM STAND-IN" in repr(network)
