"""The contenders of the comparison of inference: our VAE and the plain composition, each in several forms."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.measuring.clock import captured_call
from bench.measuring.ours import OURS
from bench.step.plain_step import with_stock_modules
from fastvae import VAE
from fastvae.inference.accelerated import AcceleratedVAE
from fastvae.machine import choose_precision, compile_obstacle
from fastvae.pictures import to_images

VERBS = ("reconstruct", "encode", "decode")


@dataclass(frozen=True)
class Job:
    """What a contender has to do: with `host_copies` from 8-bit pixels (or z) in the host's memory to results there."""

    verb: str
    batch: int
    host_copies: bool

    @property
    def name(self) -> str:
        """Human-readable."""
        return f"{self.verb} {self.batch}" + (" with host copies" if self.host_copies else "")


@dataclass(frozen=True)
class Form:
    """How a model runs: "eager", "compiled" or, on a GPU, "captured" in a CUDA graph or by `VAE.accelerate`.

    On a CPU `bench accelerate` measures the latter: its threads and torch's would disturb each other in one process.
    """

    ours: bool
    precision: str
    channels_last: bool
    how: str

    @property
    def name(self) -> str:
        """As in the record. Ours is always in channels_last."""
        layout = " channels_last" if self.channels_last and not self.ours else ""
        return f"{OURS if self.ours else 'plain'} {self.how} {self.precision}{layout}"


BASE = Form(False, "fp32", False, "eager")


def forms(device: str, note: Callable[[str], None]) -> list[Form]:
    """Those that this machine runs, the base first."""
    best = choose_precision("auto", torch.device(device))
    if best.value == "fp32":
        note(f"left out what computes in bfloat16: {best.reason}")
    precisions = tuple(dict.fromkeys(("fp32", best.value)))
    made = [BASE]
    for ours in (False, True):
        made += [Form(ours, precision, True, "eager") for precision in precisions]
        if device == "cuda":
            made.append(Form(ours, best.value, True, "captured"))
    if device == "cuda":
        made.append(Form(True, best.value, True, "accelerated"))
    if obstacle := compile_obstacle(torch.device(device)):
        note(f"left out what is compiled: {obstacle}")
        return made
    return [*made, *(Form(ours, best.value, True, "compiled") for ours in (False, True))]


def trained_vae(width: int, image_size: int = 64, latent: int = 100, stages: int | None = None) -> VAE:
    """A VAE in eval mode whose batch normalisations have statistics and weights as after some training."""
    torch.manual_seed(0)
    vae = VAE(image_size, width, latent, stages).train()
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
        for _ in range(10):
            vae.reconstruct(smooth_images(8, image_size))
    return vae.eval()


def smooth_images(count: int, size: int = 64) -> Tensor:
    """Images [count, 3, size, size] in [-1, 1] of soft blotches."""
    return nn.functional.interpolate(torch.rand(count, 3, 8, 8) * 2 - 1, size=(size, size), mode="bilinear")


def plain_vae(vae: VAE) -> VAE:
    """The same VAE of torch's own modules."""
    plain = copy.deepcopy(vae)
    weights = list(plain.decoder.state_dict().values())
    decoder = with_stock_modules(plain.decoder).to(weights[0])
    decoder.load_state_dict(dict(zip(decoder.state_dict(), weights, strict=True)))
    return plain.eval()


def model_of(form: Form, vae: VAE, device: str, batches: Sequence[int] = (1,)) -> VAE | AcceleratedVAE:
    """The VAE as the form has it, for all jobs.

    Args:
        form: how it runs.
        vae: ours.
        device: "cuda" or "cpu".
        batches: of all jobs, for which an accelerated one is captured.
    """
    dtype = torch.bfloat16 if form.precision == "bf16" else torch.float32
    if form.how == "accelerated":
        return vae.accelerate(dtype, batches, device)
    model = copy.deepcopy(vae) if form.ours else plain_vae(vae)
    layout = torch.channels_last if form.channels_last else torch.contiguous_format
    return model.to(device, dtype, memory_format=layout)


def function(model: VAE, job: Job) -> Callable[[Tensor], list[Tensor]]:
    """What runs on the device: 8-bit pixels are converted there, where there are some."""
    dtype = model.decoder.linear.weight.dtype
    verb = getattr(model, job.verb)

    def run(x: Tensor) -> list[Tensor]:
        return _results(verb((to_images(x) if x.dtype == torch.uint8 else x).to(dtype)), job)

    return run


def _results(returned: Tensor | tuple[Tensor, ...], job: Job) -> list[Tensor]:
    results = list(returned) if isinstance(returned, tuple) else [returned]
    if not job.host_copies:
        return results
    return [to_pixels(y) if y.dim() == 4 else y.float() for y in results]


def to_pixels(images: Tensor) -> Tensor:
    """[B, 3, H, W] in [-1, 1] -> uint8 [B, H, W, 3]."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def inputs_of(job: Job, latent: int, device: str) -> Tensor:
    """uint8 [B, 64, 64, 3] in pinned host memory, or images [B, 3, 64, 64], or z [B, latent], on the device."""
    torch.manual_seed(1)
    if job.verb == "decode":
        x = torch.randn(job.batch, latent)
    else:
        x = smooth_images(job.batch)
        x = to_pixels(x) if job.host_copies else x
    if device == "cpu":
        return x
    return x.pin_memory() if job.host_copies else x.to(device)


def caller(form: Form, model: VAE | AcceleratedVAE, job: Job, x: Tensor, device: str) -> Callable[[], list[Tensor]]:
    """A function without arguments that does the job and returns its results, with host copies in pinned memory.

    On a GPU it does not wait for them.
    """
    if form.how == "accelerated":  # it takes 8-bit pixels as they are

        def run(x: Tensor) -> list[Tensor]:
            return _results(getattr(model, job.verb)(x), job)

    else:
        run = function(model, job)
        if x.is_floating_point() and not job.host_copies:
            layout = torch.channels_last if x.dim() == 4 and form.channels_last else torch.preserve_format
            x = x.to(model.decoder.linear.weight.dtype, memory_format=layout)
    if form.how == "compiled":
        run = torch.compile(run, dynamic=False, **_compiler_settings(device))
    # Compiled code and inference tensors do not always go together.
    guard = torch.no_grad if form.how == "compiled" else torch.inference_mode
    buffers: list[Tensor] = []

    def call() -> list[Tensor]:
        with guard():
            if device == "cpu" or not job.host_copies:
                return run(x)
            results = run(x.to(device, non_blocking=True))
            if not buffers:
                buffers.extend(torch.empty_like(y, device="cpu").pin_memory() for y in results)
            for buffer, y in zip(buffers, results, strict=True):
                buffer.copy_(y, non_blocking=True)
            return buffers

    return captured_call(call) if form.how == "captured" else call


def _compiler_settings(device: str) -> dict:
    if device == "cuda":
        return {"mode": "max-autotune"}
    # The weights become constants in the layout that oneDNN wants.
    return {"options": {"freezing": True}}
