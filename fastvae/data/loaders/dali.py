"""Batches of JPEGs decoded by NVIDIA DALI, on a GPU (nvJPEG) or on the CPU, by one and the same pipeline.

Host threads read the files a few batches ahead and look at their headers, 25 us a picture. What is a plain JPEG
(`plain_jpeg`) goes to DALI as bytes, with its crop box; everything else, and what DALI refuses, is decoded by Pillow
in the same threads and written into its row of DALI's batch. So what DALI does with orientation, CMYK, files that are
cut short, or a PNG named .jpg, never matters.

Pixels, on the CPU, against Pillow's: at most 1 level apart inside, and at most 19 in the outermost ring of pixels,
where DALI's antialiased resize repeats the edge and Pillow renormalises its weights (6,000 CelebA pictures, 178x218
to 64x64; means of 0.13 and 0.54 levels). A GPU decodes JPEGs with arithmetic of its own; a test allows a mean of 2.

Errors. A DALI pipeline that raises is dead and does not say which picture it was. Then the pictures of all batches
that DALI has and the reader has not are decoded one by one, those that are refused are remembered, and a new
pipeline begins with the first of these batches. Each such failure finds a picture that is never given to DALI again,
or ends the run with what DALI said.
"""

import logging
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from fastvae.data.decoders.crop import crop_box
from fastvae.data.decoders.plain_jpeg import plain_jpeg_size, read_if_small
from fastvae.data.loaders import dali_pipeline
from fastvae.data.loaders.dali_outputs import DeviceOutputs, HostOutputs, Outputs
from fastvae.data.loaders.dali_pipeline import QUEUE_DEPTH, Sample
from fastvae.data.loaders.loader import started_ahead
from fastvae.data.loaders.picture_files import CROP, PictureFiles
from fastvae.errors import FastvaeError
from fastvae.files.places import shown

_AHEAD = 4
# Pictures a task of the reading threads: small enough that several work on one batch.
_TASK = 16
# DALI's buffers never shrink, and 64 pictures of this size are 0.8 GB.
_MOST_PIXELS = 2048 * 2048
_logger = logging.getLogger("fastvae")


@dataclass
class _Part:
    """Some pictures, ready for DALI: a sample for each, blank where Pillow has decoded; and Pillow's, by row."""

    indices: np.ndarray
    samples: list[Sample] = field(default_factory=list)
    replaced: dict[int, np.ndarray] = field(default_factory=dict)

    def for_dali(self) -> dict[int, Sample]:
        """The samples that are pictures, by index."""
        rows = enumerate(zip(self.indices.tolist(), self.samples, strict=True))
        return {index: sample for row, (index, sample) in rows if row not in self.replaced}


class _Queue:
    """Batches on their way: the first `fed` of them are with DALI."""

    def __init__(self):
        self.batches: list[_Part] = []
        self.fed = 0

    def feed(self) -> list[Sample]:
        """DALI's source: the samples of the next batch."""
        if self.fed == len(self.batches):
            raise StopIteration
        self.fed += 1
        return self.batches[self.fed - 1].samples

    def pop(self) -> None:
        """The first batch has reached the reader."""
        del self.batches[0]
        self.fed -= 1


class DaliLoader:
    """A `loader.Loader` of picture files; broken ones are replaced as `PictureFiles` says.

    Args:
        pictures: the files; others than JPEGs are decoded by Pillow.
        batch_size: the most images of a batch.
        device: where the batches come to be: a GPU, or the CPU.
        workers: threads of DALI, and as many that read files, 1 or more.

    Raises:
        FastvaeError: DALI is not installed.
    """

    def __init__(self, pictures: PictureFiles, *, batch_size: int, device: torch.device, workers: int):
        from fastvae.data.decoders import dali as decode_dali

        if not decode_dali.is_available():
            raise FastvaeError(
                "the loader dali needs DALI, which cannot be imported; run `pip install 'fastvae[dali]'` "
                "(nvidia-dali-cuda120 for CUDA 12), or use the loader packed or pillow"
            )
        self.image_size = pictures.image_size
        self._pictures, self._batch_size, self._workers = pictures, batch_size, workers
        self._device = device
        device_id = None
        if device.type == "cuda":
            device_id = torch.cuda.current_device() if device.index is None else device.index
        self._options = {"image_size": self.image_size, "threads": workers, "device_id": device_id}
        self._blank = dali_pipeline.blank()
        # Indices of those that DALI is not given, and what it said.
        self._refused: dict[int, str] = {}
        self._has_said_why_pillow = False

    def batches(self, indices: Iterable[np.ndarray]) -> Generator[Tensor, None, None]:
        """See `loader.Loader.batches`; on a GPU the batches are on it.

        Raises:
            FastvaeError: DALI fails for another reason than a picture, or more than 1 % of the data set are broken.
        """
        pool = ThreadPoolExecutor(self._workers, "dali loader")
        outputs: Outputs = HostOutputs(self.image_size)
        if self._device.type == "cuda":
            outputs = DeviceOutputs(self.image_size, self._device)
        read = started_ahead(lambda batch: self._start(pool, batch), indices, ahead=_AHEAD)
        queue = _Queue()
        pipeline = None
        try:
            while True:
                queue.batches.extend(map(self._without_refused, islice(read, QUEUE_DEPTH - len(queue.batches))))
                if not queue.batches:
                    return
                first = queue.batches[0]
                try:
                    if pipeline is None:
                        queue.fed = 0
                        pipeline = dali_pipeline.build(queue.feed, batch_size=self._batch_size, **self._options)
                    pipeline.schedule_run()
                    images = outputs.take(pipeline, len(first.indices), first.replaced)
                # DALI raises what its operators do, not one class of its own.
                except Exception as error:
                    pipeline = None
                    self._find_refused(queue.batches, error)
                    queue.batches = [self._without_refused(batch) for batch in queue.batches]
                    continue
                queue.pop()
                yield images
        finally:
            pool.shutdown(cancel_futures=True)
            outputs.close()
            del pipeline

    def _start(self, pool: ThreadPoolExecutor, indices: np.ndarray) -> Callable[[], _Part]:
        if not 1 <= len(indices) <= self._batch_size:
            raise ValueError(f"a batch must have 1 to {self._batch_size} images; got {len(indices)}")
        tasks = [pool.submit(self._read, indices[at : at + _TASK]) for at in range(0, len(indices), _TASK)]

        def finish() -> _Part:
            batch = _Part(indices)
            for task in tasks:
                part = task.result()
                at = len(batch.samples)
                batch.samples += part.samples
                batch.replaced.update({at + row: image for row, image in part.replaced.items()})
            return batch

        return finish

    def _read(self, indices: np.ndarray) -> _Part:
        part = _Part(indices)
        for row, index in enumerate(indices.tolist()):
            sample = None if index in self._refused else self._plain_jpeg(index)
            if sample is None:
                part.replaced[row] = self._pictures.decode(index)
            part.samples.append(sample or self._blank)
        return part

    def _plain_jpeg(self, index: int) -> Sample | None:
        """The file, unless Pillow is to decode it or to find out what is wrong with it."""
        path = self._pictures.paths[index]
        try:
            data = read_if_small(path)
            size = None if data is None else plain_jpeg_size(data)
            if size is not None and size[0] * size[1] <= _MOST_PIXELS:
                return dali_pipeline.sample(data, crop_box(*size, CROP))
        except (OSError, FastvaeError):
            return None
        if not self._has_said_why_pillow:
            self._has_said_why_pillow = True
            _logger.info("Pillow decodes what is no plain JPEG (8-bit JFIF without EXIF), such as %s", shown(path))
        return None

    def _without_refused(self, batch: _Part) -> _Part:
        """The batch, read again if DALI has refused one of its pictures since."""
        if not self._refused or self._refused.keys().isdisjoint(batch.for_dali()):
            return batch
        return self._read(batch.indices)

    def _find_refused(self, batches: list[_Part], error: Exception) -> None:
        """Adds to the refused what DALI cannot decode of these batches.

        Raises:
            FastvaeError: it can decode every one.
        """
        suspects = {index: sample for batch in batches for index, sample in batch.for_dali().items()}
        try:
            # Out of memory, or a GPU that is gone, must not look like many broken pictures.
            works = not dali_pipeline.refused({0: self._blank}, **self._options)
            found = dali_pipeline.refused(suspects, **self._options) if works else {}
        except Exception:  # no pipeline can be built
            found = {}
        if not found:
            raise FastvaeError(
                f"DALI failed, and not because of a picture: {dali_pipeline.reason(error)}; "
                "use the loader packed or pillow"
            ) from error
        self._refused.update(found)
        for index, why in found.items():
            _logger.info("DALI refuses %s (%s); Pillow decodes it", shown(self._pictures.paths[index]), why)
