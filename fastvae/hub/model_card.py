"""The model card: what somebody needs to know before using the weights, written from the training run."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastvae.inference.run_summary import RunSummary
    from fastvae.models import VAE

_TAGS = ("fastvae", "vae", "variational-autoencoder", "image-generation", "image-reconstruction")
_SYSTEMS = {
    "vae_wgan": "VAE-WGAN: KL divergence, feature loss of VGG-19 and a Wasserstein critic",
    "dfc_vae": "deep-feature-consistent VAE: KL divergence and feature loss of VGG-19",
    "vae_gan": "VAE/GAN: KL divergence and a similarity in the features of the discriminator that judges it",
    "plain_vae": "plain VAE: KL divergence and squared error of pixels",
}
_DATA = {"faces": "faces that fastvae draws itself (its embedded data set)"}
_LOSSES = {
    "kl": "KL divergence, nats",
    "rec": "reconstruction loss",
    "critic": "critic's term",
}
_HELD_OUT = {
    "psnr_db": "PSNR, dB",
    "rec": "reconstruction loss",
    "sharpness": "sharpness (RMS of neighbouring pixels' differences)",
}


def model_card(vae: "VAE", *, picture: str | None, license: str | None) -> str:
    """Markdown with the Hub's YAML header.

    Args:
        vae: the model; its `run` may be None.
        picture: file name, beside the card, of reconstructions.
        license: of the weights, as the Hub spells it; None says nothing.
    """
    size = vae.image_size
    header = ["library_name: fastvae", "pipeline_tag: image-to-image", "tags:", *(f"- {tag}" for tag in _TAGS)]
    if license:
        header.insert(0, f"license: {license}")
    parameters = sum(p.numel() for p in vae.parameters()) / 1e6
    parts = [
        "---\n" + "\n".join(header) + "\n---",
        f"# VAE for {size}x{size} images",
        f"A variational autoencoder of Hou et al., *Improving Variational Autoencoder with Deep Feature Consistent and "
        f"Generative Adversarial Training* (2019): {size}x{size} RGB images, {vae.latent} latent dimensions, width "
        f"{vae.width}, {parameters:.2f} M parameters.",
    ]
    if picture:
        parts.append(
            f"![Held-out images and their reconstructions]({picture})\n\nHeld-out images, each row above the row of "
            "its reconstructions."
        )
    parts.append(_usage(vae))
    parts += _training(vae.run) if vae.run else ["## Training\n\nNothing is recorded of how these weights came about."]
    return "\n\n".join(parts) + "\n"


def _usage(vae: "VAE") -> str:
    size = vae.image_size
    return f"""## Use

```python
import fastvae

vae = fastvae.load("PATH OR user/name")  # an nn.Module, in eval mode
mean, log_variance = vae.encode(images)  # images [B, 3, {size}, {size}] in [-1, 1] -> [B, {vae.latent}] each
pictures = vae.decode(mean)  # [B, 3, {size}, {size}] in [-1, 1]; vae.reconstruct(images) does both
faces = vae.sample(16)  # decoded draws of the prior N(0, I)

fast = vae.accelerate()  # the same, faster; takes uint8 arrays and PIL images, too
```"""


def _training(run: "RunSummary") -> list[str]:
    config, train, objective = run.config, run.config["train"], run.config["objective"]
    per_epoch = "" if train["lr_decay"] == 1 else f", times {train['lr_decay']:g} after every epoch"
    seen = run.step * train["batch_size"]
    epochs = f", {run.losses['epoch']:.2f} epochs" if "epoch" in run.losses else ""
    rows = {
        "system": _SYSTEMS.get(objective["name"], objective["name"]),
        "recipe": config["recipe"],
        "data": _DATA.get(config["data"], f"`{config['data']}`"),
        "schedule": f"{run.step:,} steps of {train['batch_size']} images ({seen:,} images{epochs})",
        "learning rate": f"{train['lr']:g}{per_epoch}",
        "precision": train["precision"],
        "fastvae": run.version or "unknown version",
    }
    if "seconds" in run.losses:
        rows["time"] = f"{run.losses['seconds'] / 60:.1f} minutes"
    options = ", ".join(f"`{k}={_shown(v)}`" for k, v in objective.items() if k != "name" and v is not None)
    parts = ["## Training\n\n" + _table(rows), f"Options of the objective: {options}."]
    numbers = {f"{words}, training": run.losses.get(key) for key, words in _LOSSES.items()}
    numbers |= {f"{words}, held out": run.held_out.get(key) for key, words in _HELD_OUT.items()}
    numbers = {name: f"{value:.4g}" for name, value in numbers.items() if value is not None}
    if numbers:
        parts.append(f"At step {run.step:,}:\n\n" + _table(numbers))
    if limits := _limits(run):
        parts.append("## Limits\n\n" + "\n".join(f"- {words}" for words in limits))
    return parts


def _limits(run: "RunSummary") -> list[str]:
    found = []
    if run.config["objective"].get("vgg") == "random":
        found.append(
            "The feature loss used a stand-in for VGG-19 with random weights: reconstructions are blurrier than with "
            "the trained network, and the reconstruction loss cannot be compared with the paper's."
        )
    epochs = run.losses.get("epoch")
    if epochs is not None and epochs < 5:
        found.append(f"It saw its data {epochs:.2f} times; the paper trains for 5 epochs.")
    if (kl := run.losses.get("kl")) is not None and kl < 20:
        found.append(
            f"The KL divergence is {kl:.1f} nats: the latent holds little of each image, so reconstructions share much "
            "of what they show."
        )
    found.append("Samples show the kinds of people and pictures that the data holds, with its imbalances.")
    return found


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["|  |  |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])


def _shown(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
