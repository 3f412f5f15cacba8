"""How the pictures that DALI refuses are found."""

import numpy as np
import pytest

from fastvae.data.decoders import dali as decode_dali
from fastvae.data.decoders.crop import CELEBA_BOX
from fastvae.data.loaders import dali_pipeline
from tests.data.jpeg_folder import save_faces

pytestmark = pytest.mark.skipif(not decode_dali.is_available(), reason="DALI is not installed")
OPTIONS = {"image_size": 16, "threads": 1, "device_id": None}


def good(folder):
    save_faces(folder, 1)
    return dali_pipeline.sample((folder / "0000.jpg").read_bytes(), CELEBA_BOX)


@pytest.mark.parametrize("bad", [[], [0], [9], [3, 4], [0, 5, 9], list(range(10))], ids=str)
def test_each_that_is_refused_is_found(tmp_path, bad):
    samples = dict.fromkeys(range(10), good(tmp_path))
    samples.update(dict.fromkeys(bad, dali_pipeline.sample(b"rubbish" * 20, CELEBA_BOX)))
    found = dali_pipeline.rejected(samples, **OPTIONS)
    assert sorted(found) == bad
    assert all(why and "\n" not in why and "traceback" not in why for why in found.values())


def test_the_blank_is_decoded():
    pipeline = dali_pipeline.build(lambda: [dali_pipeline.blank()] * 3, batch_size=4, **OPTIONS)
    (images,) = pipeline.run()
    images = images.as_array()
    assert images.shape == (3, 16, 16, 3) and np.abs(images.astype(int) - 128).max() <= 1


def test_what_dali_says_in_short():
    error = RuntimeError(
        "Error in operator, which was used\n  File x\n\nencountered:\n\nout of\nmemory\nCurrent pipeline"
    )
    assert dali_pipeline.reason(error) == "out of memory"
    assert dali_pipeline.reason(ValueError("no such thing")) == "no such thing"
    assert dali_pipeline.reason(MemoryError()) == "MemoryError()"
