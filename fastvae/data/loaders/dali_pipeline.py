"""A DALI pipeline from JPEG bytes to square images, on the CPU or on a GPU."""

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fastvae.data.decoders.crop import Box

# Batches in progress in DALI.
QUEUE_DEPTH = 3


class Sample(NamedTuple):
    """DALI's input for one picture: the file's bytes, as `nvidia.dali.tensors.TensorCPU`, and the crop box."""

    data: Any
    box: Box


def sample(data: bytes, box: Box) -> Sample:
    """A sample for `build`'s source.

    DALI would convert arrays to its own tensors when they are fed, 5 us each in the thread that waits for batches.
    """
    from nvidia.dali.tensors import TensorCPU

    return Sample(TensorCPU(np.frombuffer(data, np.uint8), ""), box)


def blank() -> Sample:
    """A tiny grey picture, for rows that DALI does not decode."""
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
    """Builds the pipeline: decodes the box and resizes it, linear and antialiased.

    On a GPU, nvJPEG decodes with the CPU decoder's chroma upsampling, and the GPU resizes.

    Args:
        source: called for each batch; returns 1 to `batch_size` samples, or raises StopIteration.
        batch_size: largest number of samples in a batch.
        image_size: pixels a side of the results.
        threads: number of DALI's threads.
        device_id: number of the GPU, or None for the CPU.
        queue_depth: batches in progress.

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
            # All or nothing: DALI would give a share of each batch to the hardware decoder, whose pixels may differ,
            # and an image's pixels must not depend on its position in the batch.
            "hw_decoder_load": 1.0,
            # Otherwise all processes on a machine pin their threads to the same cores.
            "affine": False,
        }
    # Only the dynamic executor can return results in stream order.
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


def rejected(samples: dict[int, Sample], **options: Any) -> dict[int, str]:
    """Decodes samples one by one, to find those that DALI rejects.

    A pipeline that has raised cannot be used any more, and does not report which sample failed.

    Args:
        samples: by index.
        options: for `build`: image_size, threads, device_id.

    Returns:
        DALI's message for each rejected sample, by index.
    """
    messages: dict[int, str] = {}
    remaining = list(samples)
    while remaining:
        indices = iter(tuple(remaining))
        pipeline = build(lambda indices=indices: [samples[next(indices)]], batch_size=1, queue_depth=1, **options)
        while remaining:
            index = remaining.pop(0)
            try:
                pipeline.run()
            # DALI has no exception class of its own.
            except Exception as error:
                messages[index] = reason(error)
                break
    return messages


def reason(error: Exception) -> str:
    """DALI's message without the traceback of the pipeline's definition."""
    text = str(error)
    return " ".join(text.rpartition("encountered:")[2].partition("Current pipeline")[0].split()) or repr(error)
