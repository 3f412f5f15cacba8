"""Training curves of the reference step and of ours, several seeds each, on the embedded faces.

    python -m bench.step.curve [--steps 200] [--seeds 6] [--out record.json]

Both train the same small VAE-WGAN (32x32, width 8, two layers of the stand-in loss network) in float32, from the same
weights, on the same batches and noise. Rounding drives the two runs of a seed apart, as two machines would; what must
not differ by more than seeds do is the mean curve. States for each loss term the largest distance between the two means
in units of the spread between seeds; with --out, writes a record, and a picture of both beside it.
"""

import argparse
import json
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.reporting import record
from bench.step.reference_step import BATCH, FACES, LR, ReferenceStep
from fastvae.charts import pyplot, save_chart
from fastvae.config import ModelConfig
from fastvae.data.faces.faces import draw_faces
from fastvae.lossnet import load_loss_network
from fastvae.machine import environment
from fastvae.objectives.vae_wgan import VaeWgan, VaeWganOptions
from fastvae.progress_bar import tqdm
from fastvae.train.step import Step

MODEL = ModelConfig(image_size=32, width=8, latent=32)
OPTIONS = VaeWganOptions(layers=("relu1_1", "relu2_1"), vgg="random")
# Steps that a curve is averaged over, since a batch of 8 faces is noisier than the curve's shape.
WINDOW = 25
SYSTEMS = ("reference", "fastvae")
TERMS = {"kl": "KL divergence, nats", "rec": "feature loss L_rec", "critic": "critic's loss, -L_GAN"}

# By system and term, float64 [seeds, steps].
Curves = dict[str, dict[str, np.ndarray]]


def train(system: str, seed: int, faces: Tensor, loss_network: nn.Module, steps: int) -> Iterator[dict[str, float]]:
    """Trains one system, and yields the loss terms of every step.

    Args:
        system: one of `SYSTEMS`.
        seed: of weights, batches and noise.
        faces: uint8 [N, 32, 32, 3].
        loss_network: with the taps of `OPTIONS`.
        steps: how many.
    """
    torch.manual_seed(seed)
    objective = VaeWgan(OPTIONS, MODEL, loss_network)
    objective.train()
    if system == "reference":
        step = ReferenceStep(objective)
    else:
        cpu = torch.device("cpu")
        objective.to(cpu)
        step = partial(Step(objective, objective.updates(LR), device=cpu), step=0)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        pixels = faces[torch.randint(len(faces), (BATCH,), generator=generator)]
        noise = torch.randn(BATCH, MODEL.latent, generator=generator)
        yield {name: value.item() for name, value in step(pixels, noise).items()}


def smooth(curves: np.ndarray) -> np.ndarray:
    """Means over `WINDOW` steps, or over all if there are fewer: [seeds, steps] -> [seeds, steps - window].

    Without the first step: its critic is not clipped yet, and thousands of times as steep as any later one.
    """
    window = min(WINDOW, curves.shape[1] - 1)
    return np.lib.stride_tricks.sliding_window_view(curves[:, 1:], window, axis=1).mean(2)


def distances(curves: Curves) -> dict[str, float]:
    """For each term the largest distance between the systems' mean curves, in standard deviations between seeds.

    The standard deviation is the one at that step, of the smoothed curves, pooled over the two systems.
    """
    largest = {}
    for term in TERMS:
        reference, ours = (smooth(curves[system][term]) for system in SYSTEMS)
        spread = np.sqrt((reference.var(0, ddof=1) + ours.var(0, ddof=1)) / 2)
        largest[term] = float((np.abs(ours.mean(0) - reference.mean(0)) / spread).max())
    return largest


def draw(curves: Curves, largest: dict[str, float], path: Path) -> None:
    """Writes a PNG: for each term the systems' mean curves, and a band of one standard deviation between seeds."""
    plt = pyplot()
    figure, panels = plt.subplots(1, len(TERMS), figsize=(12, 4), dpi=100, layout="constrained")
    for panel, (term, title) in zip(panels, TERMS.items(), strict=True):
        for system, colour, line in zip(SYSTEMS, ("tab:blue", "tab:orange"), ("-", "--"), strict=True):
            values = smooth(curves[system][term])
            mean, spread = values.mean(0), values.std(0, ddof=1)
            steps = np.arange(len(mean)) + curves[system][term].shape[1] - len(mean) + 1
            panel.fill_between(steps, mean - spread, mean + spread, color=colour, alpha=0.25, linewidth=0)
            panel.plot(steps, mean, line, color=colour, label=system)
        panel.set(title=f"{title}\nlargest distance {largest[term]:.2f} spreads", xlabel="step")
        panel.grid(alpha=0.3, linewidth=0.5)
    panels[0].legend()
    save_chart(figure, path)


def main(arguments: list[str] | None = None) -> int:
    """Runs all seeds of both, prints the distances, and returns 0 if the mean curves agree within the spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="of each run, at least 2")
    parser.add_argument("--seeds", type=int, default=6, help="runs of each system, at least 2")
    parser.add_argument("--out", type=record.place, help="record to write; the picture gets its name with .png")
    options = parser.parse_args(arguments)
    if options.steps < 2 or options.seeds < 2:
        parser.error(f"expected at least 2 steps and 2 seeds; got {options.steps} and {options.seeds}")
    for path in (options.out, options.out.with_suffix(".png")) if options.out else ():
        record.check_writable(path)

    # Tensors so small gain little from threads, and threads that wait for each other on a busy machine lose a lot.
    torch.set_num_threads(1)
    faces = torch.from_numpy(draw_faces(FACES, size=MODEL.image_size)[0])
    loss_network = load_loss_network("random", taps=OPTIONS.layers).to(memory_format=torch.channels_last)
    rows = {system: [] for system in SYSTEMS}
    with tqdm(total=len(SYSTEMS) * options.seeds * options.steps, unit="step") as bar:
        for seed in range(options.seeds):
            for system in SYSTEMS:
                bar.set_description(f"seed {seed}, {system}")
                run = []
                for terms in train(system, seed, faces, loss_network, options.steps):
                    run.append(terms)
                    bar.update()
                rows[system].append(run)
    curves = {
        system: {term: np.array([[terms[term] for terms in run] for run in runs]) for term in TERMS}
        for system, runs in rows.items()
    }
    largest = distances(curves)
    agree = all(distance <= 1 for distance in largest.values())  # which a NaN is not
    for term, title in TERMS.items():
        print(f"{title:<24} mean curves at most {largest[term]:.2f} spreads between seeds apart")
    verdict = "within" if agree else "NOT within"
    print(
        f"{'PASS' if agree else 'FAIL'}: the training curves agree {verdict} one spread "
        f"({options.seeds} seeds, {options.steps} steps, means over {WINDOW} steps)"
    )
    if options.out:
        write(options.out, curves, largest, agree, arguments)
        draw(curves, largest, options.out.with_suffix(".png"))
    return 0 if agree else 1


def write(path: Path, curves: Curves, largest: dict[str, float], agree: bool, arguments: list[str] | None) -> None:
    """Writes the record."""
    seeds, steps = curves["fastvae"]["rec"].shape
    record = {
        "what": "training curves of the reference step and of fastvae's, same seeds, embedded faces at 32x32, CPU",
        "command": " ".join(["python -m bench.step.curve", *(sys.argv[1:] if arguments is None else arguments)]),
        "machine": {"processor": platform.processor() or platform.machine(), **environment()},
        "model": asdict(MODEL),
        "layers": OPTIONS.layers,
        "batch": BATCH,
        "faces": FACES,
        "seeds": seeds,
        "steps": steps,
        "window": WINDOW,
        "largest_distance_in_spreads": {term: round(value, 4) for term, value in largest.items()},
        "agree": agree,
        "curves": {
            system: {term: [[float(f"{v:.5g}") for v in run] for run in values] for term, values in terms.items()}
            for system, terms in curves.items()
        },
    }
    # One line for each curve, not for each number.
    text = re.sub(r"\[[^\[\]{}]*\]", lambda numbers: " ".join(numbers[0].split()), json.dumps(record, indent=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
