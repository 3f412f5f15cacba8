"""Which way of computing a convolution is the fastest for a map and a number of images."""

from collections.abc import Sequence

from fastvae.inference.native.engine import TILE, Form

# Multiplications and additions in the time that reading one number of a filter takes: 110 GFLOP/s beside 25 GB/s on one
# core of a Zen 4. In bfloat16 both are twice as fast.
_FLOPS_PER_FILTER = 20.0
# Products along one axis of a tile, and taps along one axis of the filter that the definition reads.
_PRODUCTS = {Form.CONV3X3_TILE2: 4, Form.CONV3X3_TILE4: 6, Form.DOWNSAMPLING: 6}


def fastest(forms: Sequence[Form], taps: int, size: int, images: int) -> Form | None:
    """The fastest of the given forms, or None for the definition.

    Per pair of channels the definition has 2 taps multiplications and additions for each output, a form fewer, but
    more filters to read, once for all images. The two overlap, so the longer one counts. (Form.UPSAMPLING has fewer of
    both and needs no choice.)

    Args:
        taps: filters per pair of channels in the definition.
        size: height and width of the output map.
        images: that share one reading of the filters.
    """

    def time(form: Form | None) -> float:
        filters = taps if form is None else _PRODUCTS[form] ** 2
        flops = 2 * filters * (size if form is None else size // TILE[form]) ** 2
        return max(flops, _FLOPS_PER_FILTER * filters / images)

    return min((None, *forms), key=time)
