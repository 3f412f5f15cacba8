"""`VAE.accelerate`: the same results, whatever computes them, from any number of threads."""

import contextlib
import copy
import logging
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fastvae
from fastvae import native_library as library
from fastvae.errors import FastvaeError
from fastvae.inference import accelerated
from fastvae.inference.captured import split
from tests.conftest import blobs

# Stated in `VAE.accelerate`, of the largest value.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 0.05, torch.float16: 0.05}
needs_compiler = pytest.mark.skipif(library.host_compiler() is None, reason="needs a C++ compiler")


def trained(size: int, width: int, latent: int) -> fastvae.VAE:
    """A VAE after some steps of training as an autoencoder, on discs."""
    torch.manual_seed(0)
    vae = fastvae.VAE(size, width, latent).train()
    optimizer = torch.optim.Adam(vae.parameters(), 2e-3)
    images = torch.from_numpy(blobs(16, size)).permute(0, 3, 1, 2).float() / 127.5 - 1
    for _ in range(15):
        loss = (vae.reconstruct(images) - images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return vae.eval()


# Sizes that use every kind of layer: Winograd's and direct ones, channels that fill vectors and others.
VAES = {"32 wide": (32, 16, 10), "16 narrow": (16, 3, 5), "48": (48, 4, 7)}


@pytest.fixture(scope="module", params=VAES.values(), ids=VAES.keys())
def vae(request) -> fastvae.VAE:
    return trained(*request.param)


@pytest.fixture(scope="module")
def small() -> fastvae.VAE:
    return trained(16, 4, 6)


def of(vae, count: int) -> np.ndarray:
    return blobs(count, vae.image_size, seed=1)


def floats(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


@needs_compiler
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("count", [1, 2, 11])
def test_results_are_the_plain_module_s(vae, dtype, count):
    fast = vae.accelerate(dtype)
    assert fast.backend == ("eager" if dtype == torch.float16 else "native")
    pixels = of(vae, count)
    with torch.no_grad():
        plain = [
            *vae.encode(floats(pixels)),
            vae.reconstruct(floats(pixels)),
            vae.decode(vae.encode(floats(pixels))[0]),
        ]
    found = [*fast.encode(pixels), fast.reconstruct(pixels), fast.decode(plain[0])]
    for y, expected in zip(found, plain, strict=True):
        assert y.dtype == torch.float32 and y.shape == expected.shape and not y.requires_grad
        assert (y - expected).abs().max() <= BOUNDS[dtype] * expected.abs().max()
    if dtype == torch.float32:  # and it is not the plain module, or a bound of its own would mean nothing
        assert (found[2] - plain[2]).abs().max() > 0 and plain[2].std() > 0.05


@needs_compiler
@pytest.mark.parametrize(
    "size, width, stages",
    [
        (64, 8, None),
        (32, 5, None),
        (8, 4, None),
        (28, 16, None),
        (128, 4, None),
        (256, 2, None),
        (32, 3, 5),
        (36, 4, 2),
    ],
)
def test_random_weights(size, width, stages):
    vae = fastvae.VAE(size, width, latent=9, stages=stages).eval()
    x = torch.rand(2, 3, size, size) * 2 - 1
    with torch.no_grad():
        expected = vae.reconstruct(x)
    # Untrained it draws grey: what is held to the bound is the little that there is.
    for dtype in (torch.float32, torch.bfloat16):
        for batch in (1, 8):
            error = (vae.accelerate(dtype, batch_sizes=(batch,)).reconstruct(x) - expected).abs().max()
            assert error <= BOUNDS[dtype] * expected.abs().max()


@needs_compiler
def test_every_form_of_input_gives_the_same(small):
    fast = small.accelerate()
    pixels = of(small, 2)
    expected = fast(floats(pixels))
    for given in (pixels, torch.from_numpy(pixels), [Image.fromarray(p) for p in pixels]):
        # 8 bits are scaled by the engine itself, in one rounding less or more
        assert (fast.reconstruct(given) - expected).abs().max() <= 1e-5
    channels_last = floats(pixels).contiguous(memory_format=torch.channels_last)
    assert torch.equal(fast.reconstruct(channels_last), expected)
    assert torch.equal(fast.reconstruct(floats(pixels)[:1].expand(2, -1, -1, -1)), expected[:1].expand(2, -1, -1, -1))


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("made_for", [1, 8])
def test_a_result_does_not_depend_on_its_batch(vae, dtype, made_for):
    fast, pixels = vae.accelerate(dtype, batch_sizes=(made_for,)), of(vae, 19)
    whole = fast.reconstruct(pixels)
    assert torch.equal(whole, torch.cat([fast.reconstruct(p) for p in pixels]))


def test_empty_batches(small):
    for fast in (small.accelerate(), small.accelerate(torch.bfloat16)):
        assert fast.reconstruct(of(small, 1)[:0]).shape == (0, 3, 16, 16)
        assert [y.shape for y in fast.encode(torch.zeros(0, 3, 16, 16))] == [(0, 6)] * 2
        assert fast.sample(0).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_warming_up_changes_nothing(small, dtype):
    fast = small.accelerate(dtype, batch_sizes=(1, 3))
    before = fast.reconstruct(of(small, 2))
    fast.warm_up()
    assert torch.equal(fast.reconstruct(of(small, 2)), before)
    with pytest.raises(FastvaeError, match="methods out of encode, decode, reconstruct; got 'sample'"):
        fast.warm_up("sample")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda f: pickle.loads(pickle.dumps(f))])
def test_copies_compute_the_same(small, copied, dtype):
    fast, state = small.accelerate(dtype, batch_sizes=(1, 4)), torch.get_rng_state()
    twin = copied(fast)
    assert torch.equal(torch.get_rng_state(), state)
    assert repr(twin) == repr(fast) and twin._batch_sizes == (1, 4) and twin._run is not fast._run
    torch.testing.assert_close(twin.reconstruct(of(small, 3)), fast.reconstruct(of(small, 3)))
    del fast  # and nothing of its memory is used
    assert twin.sample(2).isfinite().all()


def reconstruct_elsewhere(fast, pixels, results) -> None:
    results.put(fast.reconstruct(pixels).numpy())


def test_a_spawned_process_takes_it(small):
    fast, pixels = small.accelerate(), of(small, 2)
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=reconstruct_elsewhere, args=(fast, pixels, results))
    process.start()
    found = results.get()
    process.join()
    assert process.exitcode == 0
    assert torch.equal(torch.from_numpy(found), fast.reconstruct(pixels))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_that_are_not_finite_are_refused(small, dtype):
    vae = copy.deepcopy(small)
    vae.encoder.mean.weight.data[0, 0] = float("nan")
    with pytest.raises(FastvaeError, match=r"encoder\.mean\.weight holds NaN"):
        vae.accelerate(dtype)


def test_samples_are_the_plain_module_s(small):
    draws = [v.sample(3, generator=torch.Generator().manual_seed(5)) for v in (small, small.accelerate())]
    assert (draws[0] - draws[1]).abs().max() <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_program_s_defaults_change_nothing(dtype):
    """Memory that compiled code writes into is of its own type and place, whatever a tensor is by default."""
    vae, pixels = trained(*VAES["32 wide"]), blobs(2, 32)
    z, seed = torch.zeros(2, vae.latent), torch.Generator().manual_seed
    expected = vae.accelerate()
    expected = [expected.reconstruct(pixels), expected.decode(z), *expected.encode(pixels)]
    sample = vae.accelerate().sample(2, generator=seed(5))
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        with torch.device("meta"):
            fast = vae.accelerate()
            found = [fast.reconstruct(pixels), fast.decode(z), *fast.encode(pixels)]
            drawn = fast.sample(2, generator=seed(5))
    finally:
        torch.set_default_dtype(before)
    assert all(torch.equal(f, e) for f, e in zip([*found, drawn], [*expected, sample], strict=True))


@pytest.mark.gpu
def test_a_module_on_a_gpu_is_accelerated_on_the_cpu():
    vae = trained(*VAES["32 wide"])
    expected = vae.accelerate().sample(2, generator=torch.Generator().manual_seed(5))
    fast = vae.to("cuda").accelerate(device="cpu")
    assert torch.equal(fast.sample(2, generator=torch.Generator().manual_seed(5)), expected)


def test_it_is_a_copy(small):
    vae = copy.deepcopy(small)
    fast, pixels = vae.accelerate(), of(vae, 2)
    before = fast.reconstruct(pixels)
    with torch.no_grad():
        for p in vae.parameters():
            p.zero_()
    assert torch.equal(fast.reconstruct(pixels), before)


def test_training_mode_changes_nothing(small):
    fast, pixels = copy.deepcopy(small).train().accelerate(), of(small, 2)
    assert torch.equal(fast.reconstruct(pixels), small.accelerate().reconstruct(pixels))


def wrong_answers(fast, calls: int, around=contextlib.nullcontext) -> list[int]:
    """Eight threads call at once with batches of their own, each within `around()`: who got another's answer."""
    wrong = []
    batches = [blobs(1 + i % 3, 16, seed=i) for i in range(8)]
    expected = [fast.reconstruct(b) for b in batches]

    def call(i: int) -> None:
        with around():
            for _ in range(calls):
                if not torch.equal(fast.reconstruct(batches[i]), expected[i]):
                    wrong.append(i)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(8)))
    return wrong


@needs_compiler
def test_eight_threads_get_their_own_answers(small):
    assert not wrong_answers(small.accelerate(), 50)


@needs_compiler
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="forking is POSIX's")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_it_survives_a_fork(small):
    """A forked process has the engine and none of its threads: the caller does all of the work, and can end."""
    torch.set_num_threads(2)
    try:
        fast = small.accelerate()
    finally:
        torch.set_num_threads(1)
    expected = fast.reconstruct(of(small, 3))

    def child(results) -> None:
        results.put(torch.equal(fast.reconstruct(of(small, 3)), expected))

    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=child, args=(results,))
    process.start()
    process.join(300)  # a child that waits for its parent's threads would never end
    ended = process.exitcode
    if ended is None:
        process.kill()
    assert ended == 0 and results.get() is True


@pytest.mark.parametrize("given", ["a", torch.zeros(1, 3, 8, 8), torch.full((1, 3, 16, 16), 200.0)])
def test_bad_input_is_one_error(small, given):
    fast = small.accelerate()
    for verb in (fast.encode, fast.reconstruct, fast):
        with pytest.raises(FastvaeError, match="expected"):
            verb(given)
    with pytest.raises(FastvaeError, match="expected z"):
        fast.decode(torch.zeros(1, 3))


@pytest.mark.parametrize("arguments", [(-1,), (1.5,), ("3",)])
def test_bad_counts(small, arguments):
    with pytest.raises(FastvaeError, match="0 or more; got"):
        small.accelerate().sample(*arguments)


def test_a_batch_that_is_too_large(small):
    """Nine hundred terabytes of results, of one image."""
    huge = torch.zeros(1, 16, 16, 3, dtype=torch.uint8).expand(300_000_000_000, -1, -1, -1)
    with pytest.raises(FastvaeError, match=r"300000000000 does not fit into memory .* 921600.0 GB\): pass fewer"):
        small.accelerate().reconstruct(huge)


@pytest.mark.parametrize("given", [3, np.int64(3), [np.int64(3)]], ids=repr)
def test_one_batch_size_is_a_number(small, given):
    assert small.accelerate(batch_sizes=given)._batch_sizes == (3,)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"batch_sizes": ()}, "1 or more"),
        ({"batch_sizes": (1, 0)}, r"1 or more; got \(1, 0\)"),
        ({"batch_sizes": (2.0,)}, "1 or more"),
        ({"batch_sizes": 0}, "1 or more; got 0"),
        ({"batch_sizes": None}, "1 or more; got None"),
        ({"dtype": torch.int8}, "got torch.int8"),
        ({"device": "meta"}, "expected a CPU or CUDA device; got meta"),
    ],
)
def test_bad_arguments(small, arguments, words):
    with pytest.raises(FastvaeError, match=words):
        small.accelerate(**arguments)


def test_cuda_without_cuda(small, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FastvaeError, match="torch sees no cuda"):
        small.accelerate(device="cuda")


def test_no_compiler_means_one_warning_and_the_same_results(small, monkeypatch, caplog):
    monkeypatch.setattr(library, "host_compiler", lambda: None)
    monkeypatch.setattr(accelerated, "_warned", set())
    library._loaded.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "fastvae"):
            first, second = small.accelerate(), small.accelerate()
    finally:
        library._loaded.cache_clear()
    assert first.backend == second.backend == "eager"
    assert [r.getMessage() for r in caplog.records] == [
        "accelerate falls back to torch's operations, which are slower: there is no C++ compiler (g++ or clang++)"
    ]
    pixels = of(small, 3)
    with torch.no_grad():
        assert (first.reconstruct(pixels) - small.reconstruct(floats(pixels))).abs().max() <= 1e-5


def test_pieces_of_a_batch():
    sizes = (1, 4, 16)
    found = [[(size, len(piece)) for size, piece in split(torch.zeros(n, 1), sizes)] for n in (0, 1, 3, 16, 37)]
    assert found == [[(1, 0)], [(1, 1)], [(4, 3)], [(16, 16)], [(16, 16), (16, 16), (16, 5)]]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", BOUNDS)
def test_captured(vae, dtype):
    fast = vae.accelerate(dtype, batch_sizes=(1, 4), device="cuda")
    assert fast.backend == "captured" and fast.device.type == "cuda"
    for count in (0, 1, 3, 4, 11):
        pixels = of(vae, count)
        with torch.no_grad():
            plain = [*vae.encode(floats(pixels)), vae.reconstruct(floats(pixels))]
        for given in (pixels, floats(pixels).cuda(), torch.from_numpy(pixels).pin_memory()):
            for y, expected in zip([*fast.encode(given), fast.reconstruct(given)], plain, strict=True):
                assert y.is_cuda and y.dtype == torch.float32 and y.shape == expected.shape
                if count:
                    assert (y.cpu() - expected).abs().max() <= BOUNDS[dtype] * expected.abs().max()


@pytest.mark.gpu
def test_captured_from_threads_on_streams_of_their_own(small):
    fast = small.accelerate(device="cuda", batch_sizes=(1, 2))
    assert not wrong_answers(fast, 100, lambda: torch.cuda.stream(own_stream()))


def own_stream() -> torch.cuda.Stream:
    """One that begins after all that was done before, as what a thread reads must be there."""
    torch.cuda.synchronize()
    return torch.cuda.Stream()


@pytest.mark.gpu
def test_results_outlive_the_next_call(small):
    fast = small.accelerate(device="cuda")
    first = fast.reconstruct(of(small, 1))
    kept = first.clone()
    fast.reconstruct(255 - of(small, 1))
    assert torch.equal(first, kept)


def test_nothing_of_the_module_s_training_is_left(small):
    assert not any(isinstance(m, nn.Module) for m in vars(small.accelerate()).values())
