"""Registers, spills and shared memory of every kernel variant that the shipped recipes use, with no GPU needed.

    tools/dev kernels [--capability 9.0 ...] [--dtype bfloat16 ...] [--recipe celeba64 ...]

The complete table takes ten minutes on two cores. Each op runs at the recipes' shapes with its launches recorded
instead of started; every distinct variant is then compiled for each compute capability by Triton's own compiler and
assembler.
"""

import argparse
import contextlib
import io
import multiprocessing
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from torch import Tensor
from torch.overrides import TorchFunctionMode
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bench.kernels.cases import recipe_runs
from fastvae.kernels import dispatch
from fastvae.progress_bar import tqdm
from fastvae.recipes import RECIPES

# Bytes a thread that a variant may spill, of 255 registers of 4 bytes. The assembler itself moves a few words aside to
# let more blocks run at once: 20 bytes of the forward convolution on 12.0 in half precision, which uses 80 registers.
SPILL_LIMIT = 40
CAPABILITIES = ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))

_DTYPES = ("bfloat16", "float16", "float32")
_CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
_POINTERS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
    torch.int32: "*i32",
}


@dataclass(frozen=True)
class Variant:
    """One compilation of a kernel: what Triton would key its cache by, but for the target.

    Attributes:
        kernel: the jitted function.
        signature: (argument, type) in order, "constexpr" for those in `constants`.
        constants: (argument, value), ones among them, which Triton compiles in.
        aligned: indices of the arguments divisible by 16.
        options: num_warps and num_stages.
    """

    kernel: triton.JITFunction
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, object], ...]
    aligned: tuple[int, ...]
    options: tuple[tuple[str, int], ...]

    @property
    def name(self) -> str:
        """The kernel and its constants, as the table shows them; what is None, an argument left out, is not shown."""
        shown = ", ".join(f"{k}={v}" for k, v in self.constants if v is not None)
        return f"{self.kernel.__name__.removesuffix('_kernel')}({shown})"


@dataclass(frozen=True)
class Resources:
    """What one variant needs on one processor: registers a thread, bytes spilled a thread, shared bytes a block."""

    registers: int
    spilled: int
    shared: int


def variant_of(kernel, args: tuple, options: dict) -> Variant:
    """The variant that Triton would compile for this launch."""
    options = dict(options)
    launch_options = tuple((k, options.pop(k)) for k in ("num_warps", "num_stages") if k in options)
    bound = dict(zip(kernel.arg_names, args, strict=False)) | options
    signature, constants, aligned = [], [], []
    for index, parameter in enumerate(kernel.params):
        value = bound.get(parameter.name, parameter.default if parameter.has_default else None)
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
            kind = "constexpr"
            constants.append((parameter.name, value))
        elif isinstance(value, Tensor):
            kind = _POINTERS[value.dtype]
            aligned.append(index)  # torch's allocator aligns far beyond 16 bytes
        elif isinstance(value, float):
            kind = "fp32"
        else:
            kind = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                aligned.append(index)
        signature.append((parameter.name, kind))
    return Variant(kernel, tuple(signature), tuple(constants), tuple(aligned), launch_options)


class _Undrawn(TorchFunctionMode):
    """Leaves out drawing random numbers, which takes longer than all else where no kernel is started."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        function = {torch.randn: torch.empty, torch.randn_like: torch.empty_like}.get(function, function)
        return function(*args, **(kwargs or {}))


def recorded(capability: tuple[int, int], run) -> list[Variant]:
    """The distinct variants that `run()` would start on a GPU of this capability, in order of first use."""
    variants = {}

    def record(kernel, grid, args, options):
        variants.setdefault(variant_of(kernel, args, options))

    with dispatch.force("triton", capability=capability, launch=record), _Undrawn():
        run()
    return list(variants)


def compile_for(variant: Variant, capability: tuple[int, int]):
    """Triton's compiled kernel, with PTX and machine code in `.asm`."""
    names = [name for name, _ in variant.signature]
    source = ASTSource(
        variant.kernel,
        dict(variant.signature),
        {(names.index(name),): value for name, value in variant.constants},
        {(index,): [["tt.divisibility", 16]] for index in variant.aligned},
    )
    target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)
    with contextlib.redirect_stdout(io.StringIO()):  # a failing assembler prints all of its input
        return triton.compile(source, target=target, options=dict(variant.options))


def resources(variant: Variant, capability: tuple[int, int]) -> Resources:
    """Compiles one variant, and asks what its machine code needs.

    Raises:
        RuntimeError: the answer cannot be read.
    """
    compiled = compile_for(variant, capability)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as code:
        code.write(compiled.asm["cubin"])
        code.flush()
        asked = [_CUOBJDUMP, "--dump-resource-usage", code.name]
        done = subprocess.run(asked, capture_output=True, text=True)
    used = re.search(r"REG:(\d+) STACK:(\d+)", done.stdout)
    if not used:
        raise RuntimeError(f"no resource report for {variant.name} on {capability}:\n{done.stdout}{done.stderr}")
    # A kernel has nothing else on its stack.
    registers, spilled = map(int, used.groups())
    return Resources(registers, spilled, compiled.metadata.shared)


def of_recipes(capability: tuple[int, int], dtype: torch.dtype, recipes: tuple[str, ...]) -> list[Variant]:
    """Every variant that these recipes start on such a GPU in this precision, each once.

    Args:
        capability: of the GPU.
        dtype: of the activations; parameters and so the optimisers' kernels are float32, and come with that.
        recipes: names.
    """
    variants = {}
    for op, run in recipe_runs(dtype, recipes):
        if dispatch.supports(op, dtype, capability):  # else ATen runs it
            variants |= dict.fromkeys(recorded(capability, run))
    return list(variants)


def _resources_of(job: tuple[tuple[int, int], str, tuple[str, ...]]) -> list[tuple[str, Resources]]:
    """A job for another process: names instead of variants, which cannot travel."""
    capability, dtype, recipes = job
    variants = of_recipes(capability, getattr(torch, dtype), recipes)
    return [(variant.name, resources(variant, capability)) for variant in variants]


def main() -> int:
    """Prints the table; 1 if something spills more than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", nargs="+", metavar="X.Y", default=[f"{a}.{b}" for a, b in CAPABILITIES])
    parser.add_argument("--dtype", nargs="+", choices=_DTYPES, default=_DTYPES)
    parser.add_argument("--recipe", nargs="+", choices=tuple(RECIPES), default=tuple(RECIPES))
    options = parser.parse_args()
    try:
        capabilities = [(int(major), int(minor)) for major, minor in (c.split(".") for c in options.capability)]
    except ValueError:
        parser.error(f"expected compute capabilities like 9.0; got {' '.join(options.capability)}")
    jobs = [(c, d, tuple(options.recipe)) for c in capabilities for d in options.dtype]
    print(f"{'sm':<5} {'dtype':<9} {'registers':>9} {'spilled B':>9} {'shared B':>9}  kernel")
    everything = []
    # A fresh process for each, since a forked one would inherit torch's threads half alive.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        results = tqdm(pool.map(_resources_of, jobs), total=len(jobs), desc="compiling", file=sys.stderr, disable=None)
        for ((major, minor), dtype, _), of_job in zip(jobs, results, strict=True):
            for name, used in dict.fromkeys(of_job):  # variants may differ only in what the name leaves out
                figures = f"{used.registers:>9} {used.spilled:>9} {used.shared:>9}"
                tqdm.write(f"{major}.{minor:<3} {dtype:<9} {figures}  {name}", file=sys.stdout)
            everything += [used for _, used in of_job]
    if not everything:
        print("nothing to compile: ATen runs every op there")
        return 0
    registers, spilled = max(u.registers for u in everything), max(u.spilled for u in everything)
    print(f"{len(everything)} variants; at most {registers} registers, {spilled} bytes spilled ({SPILL_LIMIT} allowed)")
    return int(spilled > SPILL_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
