"""`VAE.accelerate`: the same methods, faster."""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from numbers import Integral
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from fastvae.errors import FastvaeError
from fastvae.inference.fold import require_finite
from fastvae.inference.given_images import as_batch, as_latents
from fastvae.machine import choose_precision, usable_device
from fastvae.models import VAE

# Largest allowed error against the plain module, relative to the largest value; documented in `VAE.accelerate`.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 0.05, torch.float16: 0.05}
METHODS = ("encode", "decode", "reconstruct")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_logger = logging.getLogger("fastvae")
_warned: set[str] = set()
Result = TypeVar("Result")


class Backend(Protocol):
    """The implementation behind an `AcceleratedVAE`: its methods take checked inputs on the right device."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]: ...

    def decode(self, z: Tensor) -> Tensor: ...

    def reconstruct(self, images: Tensor) -> Tensor: ...


class AcceleratedVAE:
    """A trained VAE for inference only, with the methods of `VAE`; made by `VAE.accelerate`.

    Images may be uint8 arrays or tensors [H, W, 3] or [B, H, W, 3], float ones [3, H, W] or [B, 3, H, W] in [-1, 1], or
    PIL images of mode RGB (one or a list), always of `image_size`. Results are new float32 tensors on `device`, without
    gradients. An empty batch gives empty results. The native and captured backends split large batches, so that their
    feature maps take no more memory than a small batch's.

    On a GPU the first call of each method compiles and captures it, for its batch size and for floats or 8-bit pixels;
    that takes seconds. `warm_up` does so ahead of time. It cannot be called while a CUDA graph is being captured.

    Calls from several threads take turns. It can be copied and pickled: it keeps its weights on the host, and a copy is
    made from them as by `VAE.accelerate`, which raises if the machine does not have the GPU that it was made for.

    Attributes:
        image_size: height and width of the images, in pixels.
        latent: dimensions of z.
        stages: how often encoder and decoder halve and double a map.
        device: of its computations and results.
        dtype: of its weights and feature maps.
        backend: name of the implementation: "native", "eager" or "captured".
    """

    def __init__(
        self,
        vae: VAE,
        backend: Backend,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        batch_sizes: tuple[int, ...] = (1,),
    ):
        self.image_size, self.width, self.latent, self.stages = vae.image_size, vae.width, vae.latent, vae.stages
        self.device, self.dtype, self.backend = device, dtype, name
        self._run = backend
        # For copies: the backend holds memory of C++ or a GPU, which cannot be copied.
        self._weights = {name: value.detach().to("cpu", copy=True) for name, value in vae.state_dict().items()}
        self._batch_sizes = batch_sizes

    def __reduce__(self):
        sizes = (self.image_size, self.width, self.latent, self.stages)
        return _accelerate_copy, (sizes, self._weights, self.dtype, self._batch_sizes, self.device)

    def encode(self, images: Any) -> tuple[Tensor, Tensor]:
        """Images -> mean and log-variance of q(z|x), each [B, latent].

        Raises:
            FastvaeError: they are not as the class describes, hold NaN or values out of range (only checked on a CPU),
                or the results do not fit into memory.
        """
        return self._guarded(images, lambda: self._run.encode(self._batch(images)))

    def decode(self, z: Any) -> Tensor:
        """z, float array or tensor [B, latent] -> images [B, 3, H, W] in [-1, 1].

        Raises:
            FastvaeError: as `encode`.
        """
        return self._guarded(z, lambda: self._run.decode(as_latents(z, self.latent, self.device)))

    def reconstruct(self, images: Any) -> Tensor:
        """Images -> decode(mean of q(z|x)), [B, 3, H, W] in [-1, 1].

        Raises:
            FastvaeError: as `encode`.
        """
        return self._guarded(images, lambda: self._run.reconstruct(self._batch(images)))

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Images [count, 3, H, W] in [-1, 1], decoded from draws of the prior N(0, I).

        Args:
            count: how many, >= 0.
            generator: of `device`; None for torch's global one.

        Raises:
            FastvaeError: `count` or the generator is invalid, or the results do not fit into memory.
        """
        if not isinstance(count, Integral) or count < 0:
            raise FastvaeError(f"expected count as a number of images, 0 or more; got {count!r}")
        if generator is not None and generator.device.type != self.device.type:
            raise FastvaeError(f"expected a generator of {self.device}; got one of {generator.device}")
        # range(count) has the length of the batch, for the message if memory is too small.
        return self._guarded(range(count), lambda: self._run.decode(self._drawn(count, generator)))

    def warm_up(self, *methods: str) -> None:
        """Makes methods ready, so that no later call compiles or captures anything.

        Calls each for every batch size that it was accelerated for, with floats and with 8-bit pixels.

        Args:
            methods: "encode", "decode", "reconstruct"; none for all of them. `sample` is ready when decode is.

        Raises:
            FastvaeError: there is no such method, or it cannot be captured or does not fit into memory.
        """
        for method in methods:
            if method not in METHODS:
                raise FastvaeError(f"expected methods out of {', '.join(METHODS)}; got {method!r}")
        for method in methods or METHODS:
            is_decode = method == "decode"
            shape = (self.latent,) if is_decode else (3, self.image_size, self.image_size)
            run = getattr(self._run, method)
            for dtype in (torch.float32,) if is_decode else (torch.float32, torch.uint8):
                for size in self._batch_sizes:
                    self._guarded(range(size), partial(run, torch.zeros(size, *shape, dtype=dtype, device=self.device)))

    def __call__(self, images: Any) -> Tensor:
        """The same as `reconstruct`."""
        return self.reconstruct(images)

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"AcceleratedVAE({self.image_size}x{self.image_size}, {self.backend}, {dtype}, {self.device})"

    def _batch(self, images: Any) -> Tensor:
        return as_batch(images, self.image_size, self.device)

    def _drawn(self, count: int, generator: torch.Generator | None) -> Tensor:
        return torch.randn(count, self.latent, generator=generator, dtype=torch.float32, device=self.device)

    def _guarded(self, given: Any, run: Callable[[], Result]) -> Result:
        try:
            with torch.no_grad():
                return run()
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and "allocate memory" not in str(error):
                raise
            count = len(given) if hasattr(given, "__len__") else 1
            size = count * 3 * self.image_size**2 * 4 / 1e9
            raise FastvaeError(
                f"a batch of {count} does not fit into memory (as float32 images it takes {size:.1f} GB): "
                "pass fewer at a time"
            ) from error


def accelerate(
    vae: VAE,
    dtype: torch.dtype | None = None,
    batch_sizes: int | Sequence[int] = (1,),
    device: torch.device | str | None = None,
) -> AcceleratedVAE:
    """See `VAE.accelerate`."""
    device = usable_device(device or vae.decoder.linear.weight.device)
    given = tuple(batch_sizes) if isinstance(batch_sizes, Iterable) else (batch_sizes,)
    if not given or any(not isinstance(n, Integral) or n < 1 for n in given):
        raise FastvaeError(f"expected batch_sizes as numbers of images, 1 or more; got {batch_sizes!r}")
    sizes = tuple(map(int, given))
    if device.type not in ("cpu", "cuda"):
        raise FastvaeError(f"expected a CPU or CUDA device; got {device}")
    if dtype is None:
        dtype = torch.float32 if device.type == "cpu" else _DTYPES[choose_precision("auto", device).value]
    if dtype not in BOUNDS:
        raise FastvaeError(f"dtype must be float32, bfloat16 or float16; got {dtype}")
    require_finite(vae, dtype)
    if device.type == "cuda":
        from fastvae.inference.captured import CapturedVAE

        return AcceleratedVAE(vae, CapturedVAE(vae, dtype, sizes, device), "captured", device, dtype, sizes)
    if dtype != torch.float16:
        from fastvae.inference.native.vae import NativeVAE

        try:
            native = NativeVAE(vae, torch.get_num_threads(), dtype, min(sizes))
            return AcceleratedVAE(vae, native, "native", device, dtype, sizes)
        except FastvaeError as error:
            _warn_once(f"accelerate falls back to torch's operations, which are slower: {error}")
    from fastvae.inference.eager import EagerVAE

    return AcceleratedVAE(vae, EagerVAE(vae, dtype), "eager", device, dtype, sizes)


def _accelerate_copy(
    sizes: tuple[int, int, int, int],
    weights: dict[str, Tensor],
    dtype: torch.dtype,
    batch_sizes: tuple[int, ...],
    device: torch.device,
) -> AcceleratedVAE:
    with torch.device("meta"):  # no random number is drawn
        vae = VAE(*sizes)
    vae.load_state_dict(weights, assign=True)
    return accelerate(vae.eval(), dtype, batch_sizes, device)


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        _logger.warning("%s", message)
