"""What is known of the training run that a model comes from; it travels with the weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunSummary:
    """One run up to one checkpoint.

    Attributes:
        step: steps done.
        config: as the run's config.json has it, without paths: recipe, data, objective, model, train.
        version: of the fastvae that trained it, None if that is not known.
        losses: the last logged line up to the step: "kl", "rec", "critic", ..., "epoch", "lr", "seconds".
        held_out: the last evaluation up to the step, without its prefix: "psnr_db", "sharpness", "rec".
        picture: reconstructions of held-out images as PNG, None if there are none.
    """

    step: int
    config: dict[str, Any]
    version: str | None
    losses: dict[str, float]
    held_out: dict[str, float]
    picture: Path | None = None

    def as_json(self) -> dict[str, Any]:
        """All but the picture."""
        return {"version": self.version, "losses": self.losses, "held_out": self.held_out}


def of_checkpoint(metadata: dict[str, Any], file: Path, view: str | None = None) -> RunSummary | None:
    """The summary of the run that wrote a model.safetensors.

    Args:
        metadata: what `checkpoint.read_metadata` gives for it.
        file: where it lies: in a run's checkpoint, whose run is asked for its numbers, or in a folder made by
            `VAE.save_pretrained`, which brought them along.
        view: of a multi-view run, which is told as the run of its own that it could have been.

    Returns:
        The summary; None for a model that comes from no run.
    """
    if "train" not in metadata["config"]:
        return None
    config, step = _without_places(metadata["config"]), metadata.get("step", 0)
    if view:
        config["objective"] |= {"name": "vae_wgan", "layers": [view]}
    if (saved := metadata.get("run")) is not None:
        return RunSummary(step, config, **saved, picture=_existing(file.with_name("reconstructions.png")))
    run = file.parent.parent.parent
    lines = [line for line in _lines(run / "stats.jsonl") if line.get("step", step + 1) <= step]
    prefix = f"held_out_{view}_" if view else "held_out_"
    held_out = [line for line in lines if f"{prefix}psnr_db" in line]
    losses = [line for line in lines if len(line) > 1 and not any(key.startswith("held_out_") for key in line)]
    version = _json(run / "environment.json").get("fastvae")
    last = {k: v for k, v in losses[-1].items() if k != "step"} if losses else {}
    if view:
        others = tuple(f"{layer}_" for layer in metadata["config"]["objective"]["layers"] if layer != view)
        last = {k.removeprefix(f"{view}_"): v for k, v in last.items() if not k.startswith(others)}
    return RunSummary(
        step,
        config,
        version,
        last,
        {k.removeprefix(prefix): v for k, v in held_out[-1].items() if k != "step"} if held_out else {},
        _newest(run / "pictures", step, f"reconstructions-{view}-" if view else "reconstructions-"),
    )


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """The config with names in place of paths: where files lay on somebody's machine should not travel."""

    def name(value: Any) -> Any:
        return value.replace("\\", "/").rstrip("/").rpartition("/")[2] if isinstance(value, str) else value

    objective = {k: name(v) if k == "vgg" else v for k, v in config["objective"].items()}
    return config | {"data": name(config["data"]), "objective": objective}


def _newest(folder: Path, step: int, prefix: str) -> Path | None:
    pictures = [p for p in sorted(folder.glob(f"{prefix}*.png")) if p.stem.removeprefix(prefix).isdigit()]
    pictures = [p for p in pictures if int(p.stem.removeprefix(prefix)) <= step]
    return pictures[-1] if pictures else None


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text()
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # half-written, when the run was killed
            continue
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
