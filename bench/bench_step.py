"""Time of one training step on the CPU: ours against the plain composition, interleaved in one run.

    python -m bench.bench_step [--batch 32] [--width 32] [--rounds 8] [--no-compiled] [--out record.json]

Prints the median and the quartiles of each contender and the ratio to the plain eager step in float32; with --out,
writes them as a record. Before anything is timed, the plain step's gradients must agree with ours.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import torch

from bench.plain_step import PlainStep
from fastvae.config import ModelConfig
from fastvae.lossnet import load_loss_network
from fastvae.objectives.vae_wgan import VaeWgan, VaeWganOptions
from fastvae.train.run_folder import environment
from fastvae.train.step import Step, to_images


def ours(loss_network, width: int, *, bf16: bool, compiled: bool):
    """Our step under the peer's signature."""
    objective = VaeWgan(VaeWganOptions(vgg="random"), ModelConfig(width=width), loss_network)
    objective.to(torch.device("cpu"))
    objective.train()
    updates = objective.updates(5e-4)
    step = Step(objective, updates, device=torch.device("cpu"), bf16=bf16, compile_passes=compiled)
    return lambda pixels, noise: step(pixels, noise, 0)


def check_same_step(loss_network, pixels, noise) -> None:
    """Raises AssertionError unless both steps give encoder and decoder the same gradient, up to rounding."""
    plain = PlainStep(loss_network, 8, bf16=False, channels_last=False)
    # Algorithm 1 takes all gradients at the same weights, the peer updates its critic first: hold the weights still.
    for optimizer in (plain.vae_optimizer, plain.critic_optimizer):
        optimizer.param_groups[0]["lr"] = 0.0
    with torch.no_grad():
        for p in plain.critic.parameters():
            p.clamp_(-0.01, 0.01)
    objective = VaeWgan(VaeWganOptions(vgg="random"), ModelConfig(width=8), loss_network)
    objective.encoder.load_state_dict(plain.encoder.state_dict())
    objective.decoder.load_state_dict({_without_wrapper(k): v for k, v in plain.decoder.state_dict().items()})
    objective.critic.load_state_dict(plain.critic.state_dict())
    objective.train()
    objective.loss(to_images(pixels), noise)[0].backward()
    plain(pixels, noise)
    for name in ("encoder", "decoder"):
        expected = getattr(plain, name).parameters()
        for p, q in zip(expected, objective.networks[name].parameters(), strict=True):
            assert torch.allclose(p.grad, q.grad, rtol=1e-2, atol=1e-2 * p.grad.abs().max().item()), name


def _without_wrapper(key: str) -> str:
    """ "stages.1.0.1.weight" -> "stages.1.0.weight": the stock pair of modules adds an index."""
    parts = key.split(".")
    if parts[0] == "to_image" or (parts[0] == "stages" and parts[2] == "0" and len(parts) == 5):
        del parts[-2]
    return ".".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--no-compiled", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    loss_network = load_loss_network("random").to(memory_format=torch.channels_last)
    pixels = torch.randint(0, 256, (options.batch, 64, 64, 3), dtype=torch.uint8)
    noise = torch.randn(options.batch, 100)
    check_same_step(loss_network, pixels[:4], noise[:4])

    contenders = {
        "plain eager fp32": PlainStep(loss_network, options.width, bf16=False, channels_last=False),
        "plain eager fp32 channels_last": PlainStep(loss_network, options.width, bf16=False, channels_last=True),
        "plain eager bf16 channels_last": PlainStep(loss_network, options.width, bf16=True, channels_last=True),
        "ours eager fp32": ours(loss_network, options.width, bf16=False, compiled=False),
        "ours eager bf16": ours(loss_network, options.width, bf16=True, compiled=False),
    }
    if not options.no_compiled:
        contenders["ours compiled fp32"] = ours(loss_network, options.width, bf16=False, compiled=True)
        contenders["ours compiled bf16"] = ours(loss_network, options.width, bf16=True, compiled=True)
    first_s = {}
    for name, step in contenders.items():
        start = time.perf_counter()
        step(pixels, noise)
        first_s[name] = time.perf_counter() - start
        step(pixels, noise)
    times_s = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, step in contenders.items():
            start = time.perf_counter()
            step(pixels, noise)
            times_s[name].append(time.perf_counter() - start)
    report(options, first_s, times_s)


def report(options, first_s: dict[str, float], times_s: dict[str, list[float]]) -> None:
    """Prints the table and writes the record."""
    base = statistics.median(times_s["plain eager fp32"])
    for name, values in times_s.items():
        low, median, high = statistics.quantiles(values, n=4)
        print(
            f"{name:<32} {median:6.3f} s ({low:.3f} to {high:.3f})  {options.batch / median:6.1f} images/s  "
            f"{base / median:5.2f} x  first call {first_s[name]:.1f} s"
        )
    if options.out:
        record = {
            "what": "one training step of the VAE-WGAN at 64x64 on the CPU, interleaved",
            "command": " ".join(["python -m bench.bench_step", *sys.argv[1:]]),
            "machine": {"processor": platform.processor() or platform.machine(), **environment()},
            "batch": options.batch,
            "width": options.width,
            "times_s": times_s,
            "first_call_s": first_s,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
