"""Shapes, ranges, keys and sizes of the networks."""

import pytest
import torch
from torch import nn

from fastvae.models import VAE, Critic, Decoder, Encoder


@pytest.mark.parametrize("image_size", [16, 32, 48, 64])
@pytest.mark.parametrize("width", [3, 4])
def test_shapes_at_any_multiple_of_16_and_any_width(image_size, width):
    vae = VAE(image_size, width, latent=7).eval()
    images = torch.rand(2, 3, image_size, image_size) * 2 - 1
    mean, log_variance = vae.encode(images)
    assert mean.shape == log_variance.shape == (2, 7)
    assert vae.decode(mean).shape == images.shape
    assert Critic(image_size, width, in_channels=5)(torch.rand(2, 5, image_size, image_size)).shape == (2,)


def test_the_paper_has_what_the_paper_says():
    encoder, decoder, critic = Encoder(), Decoder(), Critic()
    strided = [m for m in encoder.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert [(m.in_channels, m.out_channels, m.kernel_size) for m in strided] == [
        (3, 32, (4, 4)),
        (32, 64, (4, 4)),
        (64, 128, (4, 4)),
        (128, 256, (4, 4)),
    ]
    upsampling = [m for m in decoder.modules() if getattr(m, "upsample", 1) == 2]
    assert [(m.in_channels, m.out_channels) for m in upsampling] == [(256, 128), (128, 64), (64, 32), (32, 3)]
    assert all(m.padding_mode == "replicate" for m in decoder.modules() if isinstance(m, nn.Conv2d))
    assert critic.head.kernel_size == (4, 4) and critic.head.out_channels == 1
    assert Critic(32).head.kernel_size == (2, 2)


def test_decoder_is_the_plain_composition():
    """The same weights in plain torch modules, under the same keys."""

    class Plain(nn.Conv2d):
        def __init__(self, i, o, upsample=1, bias=True):
            super().__init__(i, o, 3, padding=1, padding_mode="replicate", bias=bias)
            self.upsample = upsample

        def forward(self, x):
            return super().forward(nn.functional.interpolate(x, scale_factor=self.upsample, mode="nearest"))

    decoder = Decoder(32, 4, 6).double().eval()
    plain = Decoder(32, 4, 6).double().eval()
    for parent in list(plain.modules()):
        for name, m in list(parent.named_children()):
            if isinstance(m, nn.Conv2d):
                setattr(
                    parent,
                    name,
                    Plain(m.in_channels, m.out_channels, m.upsample, m.bias is not None).double(),
                )
    plain.load_state_dict(decoder.state_dict())
    z = torch.randn(2, 6, dtype=torch.float64)
    assert torch.allclose(decoder(z), plain(z), atol=1e-12)


def test_ranges_and_determinism_of_sampling():
    vae = VAE(16, 2, 4).eval()
    images = vae.sample(5, generator=torch.Generator().manual_seed(1))
    assert images.abs().max() <= 1
    assert torch.equal(images, vae.sample(5, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(vae(images), vae.reconstruct(images))
    assert vae.sample(0).shape == (0, 3, 16, 16)


def test_refuses_wrong_shapes_and_types():
    vae = VAE(16, 2, 4)
    with pytest.raises(ValueError, match=r"\[B, 3, 16, 16\]; got \[1, 3, 32, 32\]"):
        vae.encode(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"127\.5"):
        vae.encode(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\[B, 4\]"):
        vae.decode(torch.zeros(1, 5))
    with pytest.raises(ValueError, match="multiple of 16"):
        VAE(40)
