"""Shapes, ranges, keys and sizes of the networks."""

import pytest
import torch
from torch import nn

from fastvae.models import VAE, Critic, Decoder, Encoder
from fastvae.models.dcgan import DcganDiscriminator, DcganGenerator


@pytest.mark.parametrize(
    ("image_size", "stages", "side"),
    [(8, 1, 4), (28, 2, 7), (32, 3, 4), (48, 3, 6), (64, 4, 4), (112, 4, 7), (128, 5, 4), (256, 6, 4)],
)
def test_shapes_at_any_size_and_width(image_size, stages, side):
    """Every network of `stages`, counted from its convolutions, ends in a map of `side` pixels."""
    width, deepest = 3, 3 * min(2 ** (stages - 1), 8)
    vae = VAE(image_size, width, latent=7).eval()
    images = torch.rand(2, 3, image_size, image_size) * 2 - 1
    mean, log_variance = vae.encode(images)
    assert mean.shape == log_variance.shape == (2, 7)
    assert vae.decode(mean).shape == images.shape
    assert vae.encoder.stages(images).shape == (2, deepest, side, side) == (2, *vae.decoder.map_shape)
    critic = Critic(image_size, width, in_channels=5).eval()
    assert critic(torch.rand(2, 5, image_size, image_size)).shape == (2,)
    generator, discriminator = DcganGenerator(image_size, width, 7).eval(), DcganDiscriminator(image_size, width).eval()
    assert generator(mean).shape == images.shape and discriminator(images).shape == (2,)
    for head in (critic.head, discriminator.head):
        assert (head.in_channels, head.kernel_size) == (deepest, (side, side))
    upsampling = [m for m in vae.decoder.modules() if getattr(m, "upsample", 1) == 2]
    assert len(upsampling) == len(vae.encoder.stages) == len(critic.stages) == len(discriminator.convs) == stages
    assert vae.stages == generator.stages == stages and generator.layers[0].kernel_size == (side, side)


def test_stages_can_be_chosen():
    vae = VAE(36, 2, 3, stages=2).eval()
    assert vae.reconstruct(torch.zeros(1, 3, 36, 36)).shape == (1, 3, 36, 36) and vae.decoder.map_shape == (4, 9, 9)
    assert Critic(32, stages=4).head.kernel_size == (2, 2) and VAE(64, 2, 3, stages=6).decoder.map_shape == (16, 1, 1)
    for wrong in (0, 1.5, 3):
        with pytest.raises(ValueError, match="stages"):
            VAE(36, 2, 3, stages=wrong)


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
    with pytest.raises(
        ValueError, match=r"images of torch.float32, as the weights are; got torch.float64: pass `images\.to"
    ):
        vae.encode(torch.zeros(1, 3, 16, 16, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"z of torch.float32, as the weights are; got torch.float16"):
        vae.decode(torch.zeros(1, 4, dtype=torch.float16))
    with torch.autocast("cpu", torch.bfloat16):
        assert vae.eval()(torch.zeros(1, 3, 16, 16, dtype=torch.bfloat16)).shape == (1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"\[B, 4\]"):
        vae.decode(torch.zeros(1, 5))
    with pytest.raises(ValueError, match=r"got 44: 40 and 48 are the nearest, or choose the number of stages, 1 to 2"):
        VAE(44)
    with pytest.raises(ValueError, match="from 8 to 1024; got 2048"):
        VAE(2048)
