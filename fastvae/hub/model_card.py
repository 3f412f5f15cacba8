"""The model card, written from the training run: how the weights were made, how to use them, and their limits."""

import math
from typing import Any

from fastvae.files.places import shown
from fastvae.models import VAE
from fastvae.objectives import OBJECTIVES, title_of
from fastvae.train.run_summary import RunSummary

_TAGS = ("fastvae", "vae", "variational-autoencoder", "image-generation", "image-reconstruction")
_DATA = {"faces": "faces that fastvae draws itself (its embedded data set)"}
_LOSSES = {
    "kl": "KL divergence, nats",
    "rec": "reconstruction loss",
    "critic": "critic loss",
}
_WEIGHTS = {
    "ema": "exponential moving average over the steps, decay {decay}",
    "raw": "of the last step, not the run's moving average (decay {decay})",
}
_HELD_OUT = {
    "psnr_db": "PSNR, dB",
    "rec": "reconstruction loss",
    "sharpness": "sharpness (RMS of neighbouring pixels' differences)",
}


def model_card(vae: VAE, run: RunSummary | None, *, picture: str | None, license: str | None) -> str:
    """Markdown with the Hub's YAML header.

    Args:
        vae: the model.
        run: summary of its training run, or None.
        picture: name of the image of reconstructions beside the card, or None.
        license: of the weights, as the Hub spells it; None to omit it.
    """
    size = vae.image_size
    header = ["library_name: fastvae", "pipeline_tag: image-to-image", "tags:", *(f"- {tag}" for tag in _TAGS)]
    if license:
        header.insert(0, f"license: {license}")
    parameters = sum(p.numel() for p in vae.parameters()) / 1e6
    sections = [
        "---\n" + "\n".join(header) + "\n---",
        f"# VAE for {size}x{size} images",
        f"A variational autoencoder of Hou et al., *Improving Variational Autoencoder with Deep Feature Consistent and "
        f"Generative Adversarial Training* (2019): {size}x{size} RGB images, {vae.latent} latent dimensions, width "
        f"{vae.width}, {vae.stages} stages, {parameters:.2f} M parameters.",
    ]
    if picture:
        sections.append(
            f"![Held-out images and their reconstructions]({picture})\n\nHeld-out images, with their reconstructions "
            "in the row below."
        )
    sections.append(_usage(vae))
    sections += _training(run) if run else ["## Training\n\nNo training record for these weights."]
    return "\n\n".join(sections) + "\n"


def _usage(vae: VAE) -> str:
    size = vae.image_size
    return f"""## Use

```python
import fastvae

vae = fastvae.load("PATH OR user/name")  # an nn.Module, in eval mode
mean, log_variance = vae.encode(images)  # images [B, 3, {size}, {size}] in [-1, 1] -> [B, {vae.latent}] each
pictures = vae.decode(mean)  # [B, 3, {size}, {size}] in [-1, 1]; vae.reconstruct(images) does both
faces = vae.sample(16)  # decoded samples of the prior N(0, I)

fast = vae.accelerate()  # the same, faster; also takes uint8 arrays and PIL images
```"""


def _training(run: RunSummary) -> list[str]:
    config, train, objective = run.config, run.config["train"], run.config["objective"]
    batch_size, lr, decay = (_number(train.get(name)) for name in ("batch_size", "lr", "lr_decay"))
    epoch, seconds = _number(run.losses.get("epoch")), _number(run.losses.get("seconds"))
    rows = {
        "system": _system(objective["name"]),
        "recipe": _text(config["recipe"]),
        "data": _DATA.get(config["data"], f"`{_text(config['data'])}`"),
        "schedule": f"{run.step:,} steps",
        "precision": _text(train.get("precision", "unknown")),
        "fastvae": _text(run.version or "unknown version"),
    }
    if batch_size is not None:
        epochs = "" if epoch is None else f", {epoch:.2f} epochs"
        if (ranks := _number(run.losses.get("ranks"))) is None:
            rows["schedule"] += f" of {batch_size:g} images ({run.step * batch_size:,.0f} images{epochs})"
        else:  # there may have been another number of processes before
            each = f"{batch_size:g} in each of {ranks:g} processes"
            rows["schedule"] += f" of {ranks * batch_size:g} images, {each}{epochs}"
    if lr is not None:
        rows["learning rate"] = f"{lr:g}" + ("" if decay in (None, 1) else f", times {decay:g} after every epoch")
    if train.get("flip") is True:
        rows["augmentation"] = "horizontal flips"
    if run.weights is not None:
        rows["weights"] = _WEIGHTS[run.weights].format(decay=_text(train.get("ema", "unknown")))
    if (start := config.get("initial_weights")) is not None:
        rows["initial weights"] = f"`{_text(start.get('source'))}`, SHA-256 `{_text(start.get('sha256'))}`"
    if seconds is not None:
        rows["time"] = f"{seconds / 60:.1f} minutes"
    options = {_text(k): _shown(v) for k, v in objective.items() if k != "name" and v is not None}
    sections = ["## Training\n\n" + _table(rows)]
    if options:
        sections.append("Options of the objective: " + ", ".join(f"`{k}={v}`" for k, v in options.items()) + ".")
    numbers = {f"{name}, training": _number(run.losses.get(key)) for key, name in _LOSSES.items()}
    numbers |= {f"{name}, held out": _number(run.held_out.get(key)) for key, name in _HELD_OUT.items()}
    numbers = {name: f"{value:.4g}" for name, value in numbers.items() if value is not None}
    if numbers:
        sections.append(f"At step {run.step:,}:\n\n" + _table(numbers))
    if limits := _limits(run):
        sections.append("## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits))
    return sections


def _system(name: str) -> str:
    return f"{title_of(name)}: {OBJECTIVES[name][1].description}" if name in OBJECTIVES else _text(name)


def _limits(run: RunSummary) -> list[str]:
    limits = []
    if run.config["objective"].get("vgg") == "random":
        limits.append(
            "The feature loss used a stand-in for VGG-19 with random weights: reconstructions are blurrier than with "
            "the trained network, and the reconstruction loss cannot be compared with the paper's."
        )
    epochs = _number(run.losses.get("epoch"))
    if epochs is not None and epochs < 5:
        limits.append(f"It was trained for {epochs:.2f} epochs; the paper trains for 5.")
    if (kl := _number(run.losses.get("kl"))) is not None and kl < 20:
        limits.append(
            f"The KL divergence is {kl:.1f} nats: the latent encodes little of each image, so "
            "reconstructions look alike."
        )
    limits.append("Samples reflect the people and images in the training data, with its imbalances.")
    return limits


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf else None


def _text(value: Any) -> str:
    """Text from a file, escaped for a table."""
    return " ".join(shown(" ".join(str(value).split())).replace("|", "\\|").replace("`", "'").split())


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["|  |  |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])


def _shown(value: Any) -> str:
    return _text("+".join(map(str, value)) if isinstance(value, (list, tuple)) else value)
