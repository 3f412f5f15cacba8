"""The crop of a picture that becomes the training image, for all decoders."""

from fastvae.errors import FastvaeError, UsageError

# (left, top, right, bottom) of the authors' crop of an aligned 178x218 CelebA picture.
CELEBA_SIZE = (178, 218)
CELEBA_BOX = (30, 40, 168, 178)
# A picture with a smaller side after the crop counts as broken: it is an icon or has a damaged header.
SMALLEST_SIDE = 8

Box = tuple[int, int, int, int]
Crop = str | Box | None


def crop_box(width: int, height: int, crop: Crop) -> Box:
    """The box (left, top, right, bottom), in pixels, of `crop` in a picture of width x height.

    Args:
        width: of the upright picture, in pixels.
        height: of the upright picture, in pixels.
        crop: see `check_crop`.

    Raises:
        FastvaeError: the box does not fit the picture, or is smaller than 8 pixels on a side.
    """
    if crop == "auto":
        crop = "celeba" if (width, height) == CELEBA_SIZE else "center"
    if crop is None:
        box = (0, 0, width, height)
    elif crop == "celeba":
        box = CELEBA_BOX
    elif crop == "center":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
    else:
        box = crop
    if box[2] > width or box[3] > height:
        raise FastvaeError(f"the crop {box} does not fit into {width}x{height} pixels")
    if min(box[2] - box[0], box[3] - box[1]) < SMALLEST_SIDE:
        raise FastvaeError(f"too small: {width}x{height} pixels, less than {SMALLEST_SIDE} on a side after the crop")
    return box


def check_crop(crop: Crop) -> None:
    """Raises UsageError unless `crop` is one of these.

    "auto": the CelebA box for a 178x218 picture, else the largest centred square (square pictures are not cropped).
    "celeba": the box (30, 40, 168, 178). "center": the largest centred square. None: the complete picture, stretched if
    it is not square. Four integers: left, top, right, bottom.
    """
    if crop is None or crop in ("auto", "celeba", "center"):
        return
    if isinstance(crop, tuple) and len(crop) == 4 and all(isinstance(edge, int) for edge in crop):
        left, top, right, bottom = crop
        if 0 <= left < right and 0 <= top < bottom:
            return
    raise UsageError(
        f'crop must be "auto", "celeba", "center", None or (left, top, right, bottom) in pixels; got {crop!r}'
    )
