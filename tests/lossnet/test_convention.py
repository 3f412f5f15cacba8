"""Whose weights a file holds, and what conv1_1 must become to take our images."""

import pytest
import torch
import torch.nn.functional as F

from fastvae.lossnet.convention import CAFFE, CAFFE_RGB, TORCHVISION, recognise


def test_recognises_each_kind(make_weights):
    caffe = make_weights("caffe")["features.0.weight"]
    torchvision = make_weights("torchvision")["features.0.weight"]
    assert recognise(caffe) == (CAFFE, True)
    assert recognise(caffe.half().float()) == (CAFFE, True)
    assert recognise(caffe.flip(1)) == (CAFFE_RGB, True)
    assert recognise(torchvision) == (TORCHVISION, True)
    assert recognise(make_weights("unknown")["features.0.weight"]) == (None, False)
    assert recognise(torch.zeros(64, 3, 3, 3)) == (None, False)


def test_rescaled_weights_are_not_taken_for_the_original_ones(make_weights):
    assert recognise(0.3 * make_weights("caffe")["features.0.weight"]) == (CAFFE, False)
    # Their biases are of another scale than their weights, so that nothing is known about them.
    assert recognise(0.3 * make_weights("torchvision")["features.0.weight"]) == (None, False)


@pytest.mark.parametrize("convention", [CAFFE, TORCHVISION], ids=["caffe", "torchvision"])
def test_folding_is_exact_at_the_borders_too(convention, images, make_weights):
    def channels(*values):
        return torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)

    weight = make_weights()["features.0.weight"].double()
    rgb = (images.double() + 1) / 2
    if convention is CAFFE:
        as_trained = 255 * rgb.flip(1) - channels(103.939, 116.779, 123.68)
    else:
        as_trained = (rgb - channels(0.485, 0.456, 0.406)) / channels(0.229, 0.224, 0.225)
    expected = F.conv2d(as_trained, weight, padding=1)
    ours = F.conv2d(255 * rgb - channels(*convention.mean), convention.fold_into(weight), padding=1)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
