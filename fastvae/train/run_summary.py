"""What is known about the training run of a model; saved with the weights."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastvae.errors import FastvaeError
from fastvae.files.places import is_file
from fastvae.files.reading import Malformed, conform, read_json, read_json_lines

# What `--data` calls the embedded data set; `fastvae.data`, which has the name, takes long to import.
_EMBEDDED = "faces"
_UNKNOWN = "unknown"
# Limits for a list in a config, such as the layers of a loss, and for a string.
_MAX_LIST, _MAX_TEXT = 64, 1000


@dataclass(frozen=True)
class RunSummary:
    """One run up to one checkpoint. Whatever in its files has an unexpected form is omitted.

    Attributes:
        step: steps done.
        config: the run's config.json, with file names in place of paths. "recipe" and "data" are strings; "objective"
            is an object with a string "name"; missing strings are "unknown". "model" and "train" are objects, and so
            is "initial_weights" of a run with `--init`. Their
            values are numbers, strings, booleans, nulls and lists of these.
        version: of the fastvae that trained it, None if unknown.
        losses: the last line logged up to the step: "kl", "rec", "critic", ..., "epoch", "lr", "seconds", and of
            several processes "ranks", their number; finite.
        held_out: the last evaluation up to the step, without its prefix: "psnr_db", "sharpness", "rec"; finite.
        picture: PNG with reconstructions of held-out images, None if there is none.
        weights: "ema" if the model has the moving average of the run's weights, "raw" if it has those of the last step
            beside which there is an average; None if there is none. Evaluation and picture are the average's: with
            "raw" there are none.
    """

    step: int
    config: dict[str, Any]
    version: str | None
    losses: dict[str, float]
    held_out: dict[str, float]
    picture: Path | None = None
    weights: Literal["ema", "raw"] | None = None

    def as_json(self) -> dict[str, Any]:
        """Version, losses, evaluation and kind of weights, as JSON values."""
        weights = {} if self.weights is None else {"weights": self.weights}
        return {"version": self.version, "losses": self.losses, "held_out": self.held_out, **weights}


def of_checkpoint(
    metadata: dict[str, Any],
    file: Path,
    view: str | None = None,
    weights: Literal["ema", "raw"] | None = None,
) -> RunSummary | None:
    """The summary of the run that wrote a model.safetensors.

    Args:
        metadata: of the file (`checkpoint_files.read_metadata`).
        file: its path. In a run's checkpoint the numbers are read from the run's files; in a folder made by
            `VAE.save_pretrained` they are in the metadata.
        view: of a multi-view run; it is summarised as if it were a separate run.
        weights: which of its weights the model has.

    Returns:
        The summary; None for a model without a run.
    """
    if not isinstance(metadata["config"].get("train"), dict):
        return None
    config, step = _config(metadata["config"]), metadata["step"]
    views = config["objective"].get("layers")
    if view:
        config["objective"] |= {"name": "vae_wgan", "layers": [view]}
    if (saved := metadata.get("run")) is not None:
        saved = saved if isinstance(saved, dict) else {}
        losses, held_out = _numbers(saved.get("losses")), _numbers(saved.get("held_out"))
        picture = file.with_name("reconstructions.png")
        picture = picture if is_file(picture) else None
        return RunSummary(step, config, _text(saved.get("version")), losses, held_out, picture, weights)
    if file.parent.parent.name != "checkpoints":  # a copy outside its run
        return RunSummary(step, config, None, {}, {}, weights=weights)
    run = file.parent.parent.parent
    prefix = f"held_out_{view}_" if view else "held_out_"
    try:
        losses, held_out = _last(read_json_lines(run / "stats.jsonl"), step, prefix)
    except FastvaeError:
        losses, held_out = {}, {}
    if view:
        others = tuple(f"{layer}_" for layer in views or () if layer != view)
        losses = {k.removeprefix(f"{view}_"): v for k, v in losses.items() if not k.startswith(others)}
    picture = _newest(run / "pictures", step, f"reconstructions-{view}" if view else "reconstructions")
    if weights == "raw":
        held_out, picture = {}, None
    return RunSummary(step, config, _version(run / "environment.json"), losses, held_out, picture, weights)


def _config(config: dict[str, Any]) -> dict[str, Any]:
    """The well-formed parts of a config, with file names in place of paths.

    Saved models are shared, and paths on the machine that trained them are private.
    """
    objective = _values(config.get("objective"))
    if "vgg" in objective:
        objective["vgg"] = _name(objective["vgg"])
    objective["name"] = _text(objective.get("name")) or _UNKNOWN
    given = _text(config.get("data"))
    data = _name(given) or _UNKNOWN
    if data == _EMBEDDED != given:
        data += "/"  # somebody's own folder of this name, not the embedded data set
    initial = _values(config.get("initial_weights"))
    if "source" in initial:
        initial["source"] = _name(initial["source"])
    return {
        "recipe": _text(config.get("recipe")) or _UNKNOWN,
        "data": data,
        "objective": objective,
        "model": _values(config.get("model")),
        "train": _values(config.get("train")),
        **({"initial_weights": initial} if initial else {}),
    }


def _values(given: Any) -> dict[str, Any]:
    """The fields of an object that are plain values or lists of plain values."""
    plain = bool | int | float | str | None
    values = {}
    for name, value in given.items() if isinstance(given, dict) else ():
        try:
            kept = conform(value, list[plain] if isinstance(value, list) else plain, name)
        except Malformed:
            continue
        texts = [text for text in (name, *(kept if isinstance(kept, list) else [kept])) if isinstance(text, str)]
        if len(texts) <= _MAX_LIST and max(map(len, texts)) <= _MAX_TEXT:
            values[name] = kept
    return values


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and len(value) <= _MAX_TEXT else None


def _name(value: Any) -> Any:
    return value.replace("\\", "/").rstrip("/").rpartition("/")[2] if isinstance(value, str) else value


def _numbers(given: Any) -> dict[str, float]:
    """The fields of an object that are finite numbers."""
    values = _values(given)
    return {
        k: v for k, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)
    }


def _last(lines: Iterable[dict[str, Any]], step: int, prefix: str) -> tuple[dict[str, float], dict[str, float]]:
    """The last losses, and the last evaluation without its prefix, up to a step."""
    losses: dict[str, Any] = {}
    held_out: dict[str, Any] = {}
    for line in lines:
        at = line.get("step")
        if type(at) is not int or at > step:
            continue
        if f"{prefix}psnr_db" in line:
            held_out = line
        if len(line) > 1 and not any(key.startswith("held_out_") for key in line):
            losses = line
    return (
        {k: v for k, v in _numbers(losses).items() if k != "step"},
        {k.removeprefix(prefix): v for k, v in _numbers(held_out).items() if k != "step"},
    )


def _version(path: Path) -> str | None:
    try:
        values = read_json(path)
    except FastvaeError:
        return None
    return _text(values.get("fastvae")) if isinstance(values, dict) else None


def _newest(folder: Path, step: int, name: str) -> Path | None:
    """The picture NAME-NNNNNNNN.png of the latest step that is not after `step`."""
    form = re.compile(rf"{re.escape(name)}-([0-9]{{8,18}})\.png")
    try:
        pictures = {path: match for path in folder.iterdir() if (match := form.fullmatch(path.name))}
    except OSError:
        return None
    steps = {path: int(match[1]) for path, match in pictures.items() if int(match[1]) <= step and path.is_file()}
    return max(steps, key=steps.get, default=None)
