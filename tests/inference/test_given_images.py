"""What may be handed in as images, and what is said of the rest."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fastvae.errors import FastvaeError
from fastvae.inference.given_images import as_batch, as_latents

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
FLOATS = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.mark.parametrize(
    "given",
    [
        PIXELS,
        torch.from_numpy(PIXELS),
        [Image.fromarray(p) for p in PIXELS],
        tuple(Image.fromarray(p) for p in PIXELS),
        np.asfortranarray(PIXELS),
        PIXELS[:, ::-1][:, ::-1],
    ],
    ids=["array", "tensor", "list of PIL", "tuple of PIL", "Fortran order", "backwards"],
)
def test_pixels(given):
    batch = as_batch(given, 16)
    assert batch.dtype == torch.uint8 and torch.equal(batch, torch.from_numpy(PIXELS).permute(0, 3, 1, 2))


def test_read_only_and_swapped_arrays():
    locked = PIXELS.copy()
    locked.flags.writeable = False
    assert torch.equal(as_batch(locked, 16), as_batch(PIXELS, 16))
    swapped = FLOATS.numpy().astype(">f4")
    assert torch.equal(as_batch(swapped, 16), FLOATS)


@pytest.mark.parametrize("given", [PIXELS[0], Image.fromarray(PIXELS[0]), [Image.fromarray(PIXELS[0])]])
def test_one_image_is_a_batch_of_one(given):
    assert torch.equal(as_batch(given, 16), as_batch(PIXELS[:1], 16))
    assert torch.equal(as_batch(FLOATS[0], 16), FLOATS[:1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floats_of_every_kind(dtype):
    batch = as_batch(FLOATS.to(dtype).requires_grad_(), 16)
    assert batch.dtype == torch.float32 and not batch.requires_grad
    assert torch.equal(batch, FLOATS.to(dtype).float())
    assert torch.equal(as_batch(FLOATS.double().numpy(), 16), FLOATS)


@pytest.mark.parametrize(
    "given",
    [
        torch._neg_view(-FLOATS),
        torch.complex(FLOATS, -FLOATS).conj().imag,
        FLOATS.as_subclass(type("Photograph", (torch.Tensor,), {})),
        torch.nn.Parameter(FLOATS),
        FLOATS.repeat(1, 1, 1, 2)[..., ::2] * 0 + FLOATS,
    ],
    ids=["negated", "conjugated", "subclass", "parameter", "gaps"],
)
def test_float_tensors_of_every_kind(given):
    batch = as_batch(given, 16)
    assert torch.equal(batch, FLOATS) and type(batch) is torch.Tensor and not batch.is_neg() and not batch.requires_grad
    z = as_latents(torch._neg_view(-torch.ones(2, 5)), 5)
    assert not z.is_neg() and torch.equal(z, torch.ones(2, 5))


def test_fields_of_records():
    records = np.zeros((2, 3, 16, 16), dtype=[("picture", "f4"), ("label", "u1")])
    records["picture"] = FLOATS
    assert torch.equal(as_batch(records["picture"], 16), FLOATS)


def test_float_tensors_are_not_copied():
    assert as_batch(FLOATS, 16).data_ptr() == FLOATS.data_ptr()


def test_empty_batches():
    assert as_batch(PIXELS[:0], 16).shape == (0, 3, 16, 16)
    assert as_batch(FLOATS[:0], 16).shape == (0, 3, 16, 16)
    assert as_latents(torch.zeros(0, 5), 5).shape == (0, 5)


def cut_file() -> Image.Image:
    whole = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(whole, "png")
    return Image.open(io.BytesIO(whole.getvalue()[:300]))


BAD = {
    "text": ("face.png", "got a str"),
    "empty list": ([], "got a list that is empty"),
    "list of arrays": (list(PIXELS), "got a list"),
    "integers": (torch.zeros(1, 3, 16, 16, dtype=torch.int64), "0..255 belong in uint8"),
    "objects": (np.zeros((16, 16, 3), dtype=object), "got object"),
    "size of pixels": (PIXELS[:, :8], r"\[B, 16, 16, 3\], or without B; got \[2, 8, 16, 3\]: crop and resize"),
    "size of floats": (FLOATS[:, :, :8], r"got \[2, 3, 8, 16\]: crop and resize"),
    "grey pixels": (PIXELS[..., :1], "convert to three channels"),
    "alpha": (torch.cat([FLOATS, FLOATS[:, :1]], 1), "convert to three channels"),
    "channels last floats": (FLOATS.permute(0, 2, 3, 1), r"permute\(0, 3, 1, 2\)"),
    "channels first pixels": (PIXELS.transpose(0, 3, 1, 2), r"permute\(0, 2, 3, 1\)"),
    "no images": (torch.zeros(5), r"got \[5\]"),
    "PIL size": (Image.new("RGB", (20, 16)), r"got 20x16: crop it to a square, then image.resize\(\(16, 16\)\)"),
    "PIL mode": (Image.new("RGBA", (16, 16)), r"got RGBA: use image.convert\('RGB'\)"),
    "NaN": (torch.full((1, 3, 16, 16), float("nan")), "hold NaN"),
    "one NaN": (FLOATS.clone().index_fill_(3, torch.tensor([7]), float("nan")), "hold NaN"),
    "infinite": (torch.full((1, 3, 16, 16), float("inf")), "from inf to inf"),
    "0 to 255": ((FLOATS + 1) * 127.5, r"look like 0..255: pass them as uint8, or images / 127.5 - 1"),
    "sparse": (FLOATS.to_sparse(), "expected a dense tensor"),
    "nested": (torch.nested.nested_tensor(list(FLOATS), layout=torch.jagged), "expected a dense tensor"),
    "meta": (FLOATS.to("meta"), "data in memory; got a Tensor on meta"),
    "zeros of no memory": (torch._efficientzerotensor(2, 3, 16, 16), "data in memory"),
    "complex": (FLOATS.to(torch.complex64), "got values of torch.complex64"),
    "mask": (np.ma.masked_array(FLOATS.numpy(), FLOATS.numpy() > 0), r"array.filled\(...\)"),
    "a cut file": (cut_file(), "PIL image cannot be read: image file is truncated"),
    "no axes": (torch.tensor(1.0), r"got \[\]"),
    "standardised": (FLOATS * 2.5, "scale or clamp them first"),
    "a little out": (FLOATS * 1.01, "got values from -1.01 to 1.01"),
}


@pytest.mark.parametrize("given, words", BAD.values(), ids=BAD.keys())
def test_what_is_wrong_is_said(given, words):
    with pytest.raises(FastvaeError, match=words):
        as_batch(given, 16)


def test_rounding_over_the_edge_is_let_through():
    assert as_batch(torch.full((1, 3, 16, 16), 1.0005), 16).max() > 1


@pytest.mark.parametrize(
    "given, words",
    [
        (torch.zeros(2, 4), r"expected z as floats \[B, 5\]; got a tensor \[2, 4\] of torch.float32"),
        (torch.zeros(5), r"\[5\]"),
        (torch.zeros(2, 5, dtype=torch.int32), "int32"),
        ([[0.0] * 5], "got a list"),
        (torch.tensor([[0.0, 1, 2, 3, float("nan")]]), "NaN or infinite"),
        (torch.zeros(2, 5).to_sparse(), "dense"),
        (torch.zeros(2, 5, device="meta"), "data in memory"),
    ],
)
def test_wrong_latents(given, words):
    with pytest.raises(FastvaeError, match=words):
        as_latents(given, 5)


def test_latents():
    z = np.ones((2, 5))
    assert torch.equal(as_latents(z, 5), torch.ones(2, 5))
