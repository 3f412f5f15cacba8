"""Taps are brought to Caffe's levels by factors that change nothing else."""

import pytest
import torch

from fastvae.errors import FastvaeError
from fastvae.lossnet import TAPS, LossNetwork
from fastvae.lossnet.calibrate import CAFFE_TAP_RMS, balance_taps, calibration_images, tap_rms

THREE = TAPS[:3]


def balance(network):
    return balance_taps(network, tap_rms(network, calibration_images()))


def test_the_images_are_those_that_the_levels_were_measured_on():
    images = calibration_images()
    assert images.shape == (32, 3, 64, 64) and images.dtype == torch.float32
    assert images.min() >= -1 and images.max() <= 1
    # The taps follow the contrast of the images. If the drawing has changed this much, measure CAFFE_TAP_RMS again.
    assert images.mean().item() == pytest.approx(-0.175, abs=0.02)
    assert images.std().item() == pytest.approx(0.442, rel=0.03)


def test_balanced_taps_have_the_levels_and_are_multiples_of_what_they_were(make_weights, images):
    network = LossNetwork(THREE)
    network.load_state_dict(make_weights("unknown", up_to=10))
    before = network(images)
    gains = balance(network)
    assert list(gains) == list(THREE)
    for tap, level in tap_rms(network, calibration_images()).items():
        assert level == pytest.approx(CAFFE_TAP_RMS[tap], rel=1e-4)
    for tap, old, new in zip(THREE, before, network(images), strict=True):
        torch.testing.assert_close(new, old * gains[tap], rtol=1e-4, atol=1e-5 * new.max().item())


def test_gains_do_not_depend_on_which_taps_are_returned(make_weights):
    weights = make_weights("unknown", up_to=5)
    both, deeper = LossNetwork(THREE[:2]), LossNetwork(THREE[1])
    both.load_state_dict(weights)
    deeper.load_state_dict(weights)
    assert balance(both) == balance(deeper)


def test_a_dead_tap_is_refused(make_weights):
    network = LossNetwork(THREE[0])
    network.load_state_dict({key: 0 * value for key, value in make_weights(up_to=0).items()})
    with pytest.raises(FastvaeError, match="relu1_1"):
        balance(network)
