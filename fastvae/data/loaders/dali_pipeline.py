"""A DALI pipeline from JPEG bytes to square images, on the CPU or on a GPU."""

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fastvae.data.decoders.crop import Box

# Batches that DALI works on at a time.
QUEUE_DEPTH = 3


class Sample(NamedTuple):
    """What DALI gets of one picture: the file's bytes, as `nvidia.dali.tensors.TensorCPU`, and the box to cut out."""

    data: Any
    box: Box


def sample(data: bytes, box: Box) -> Sample:
    """A file and its crop, for `build`'s source.

    DALI would turn arrays into its own tensors when they are fed, 5 us each in the thread that waits for batches.
    """
    from nvidia.dali.tensors import TensorCPU

    return Sample(TensorCPU(np.frombuffer(data, np.uint8), ""), box)


def blank() -> Sample:
    """A tiny grey picture, which stands where DALI is not to decode."""
    file = BytesIO()
    Image.new("RGB", (16, 16), "gray").save(file, "JPEG")
    return sample(file.getvalue(), (0, 0, 16, 16))


def build(
    source: Callable[[], Sequence[Sample]],
    *,
    batch_size: int,
    image_size: int,
    threads: int,
    device_id: int | None,
    queue_depth: int = QUEUE_DEPTH,
) -> Any:
    """The pipeline, built: decodes what lies in the box and resizes it, linear and antialiased.

    On a GPU nvJPEG decodes and the GPU resizes, with the CPU decoder's chroma upsampling.

    Args:
        source: called for each batch; gives 1 to `batch_size` samples, or raises StopIteration.
        batch_size: the most samples of a batch.
        image_size: pixels a side of the results.
        threads: of DALI's own.
        device_id: number of the GPU, or None for the CPU.
        queue_depth: batches that are worked on at a time.

    Returns:
        `nvidia.dali.Pipeline` with one output, uint8 [b, image_size, image_size, 3], RGB.
    """
    from nvidia.dali import Pipeline, fn, types

    def inputs() -> tuple[list[Any], np.ndarray, np.ndarray]:
        data, boxes = zip(*source(), strict=True)
        boxes = np.array(boxes, np.int32)
        return list(data), np.ascontiguousarray(boxes[:, :2]), np.ascontiguousarray(boxes[:, 2:])

    decoder: dict[str, Any] = {"device": "cpu"}
    if device_id is not None:
        decoder = {
            "device": "mixed",
            "jpeg_fancy_upsampling": True,
            # All or nothing: DALI gives a share of each batch to the hardware decoder, whose pixels may differ, and
            # an image's pixels must not depend on its place in the batch.
            "hw_decoder_load": 1.0,
            # Else each process on a machine ties its threads to the same cores.
            "affine": False,
        }
    # The dynamic executor is the one that can give results out in the order of a stream.
    pipeline = Pipeline(batch_size, threads, device_id, prefetch_queue_depth=queue_depth, exec_dynamic=True)
    with pipeline:
        data, start, end = fn.external_source(
            source=inputs, num_outputs=3, dtype=[types.UINT8, types.INT32, types.INT32], ndim=[1, 1, 1]
        )
        pieces = fn.decoders.image_slice(data, start=start, end=end, axis_names="WH", output_type=types.RGB, **decoder)
        size = [image_size, image_size]
        pipeline.set_outputs(fn.resize(pieces, size=size, interp_type=types.INTERP_LINEAR, antialias=True))
    pipeline.build()
    return pipeline


def refused(samples: dict[int, Sample], **options: Any) -> dict[int, str]:
    """Decodes samples one by one, to find those that DALI refuses.

    A pipeline that has raised is dead, and does not say which sample it was.

    Args:
        samples: by index.
        options: of `build`: image_size, threads, device_id.

    Returns:
        What DALI says of each that it refuses.
    """
    found: dict[int, str] = {}
    left = list(samples)
    while left:
        coming = iter(tuple(left))
        pipeline = build(lambda coming=coming: [samples[next(coming)]], batch_size=1, queue_depth=1, **options)
        while left:
            index = left.pop(0)
            try:
                pipeline.run()
            # DALI raises what its operators do, not one class of its own.
            except Exception as error:
                found[index] = reason(error)
                break
    return found


def reason(error: Exception) -> str:
    """What DALI says, without the traceback of the pipeline's definition."""
    text = str(error)
    return " ".join(text.rpartition("encountered:")[2].partition("Current pipeline")[0].split()) or repr(error)
