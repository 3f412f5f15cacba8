"""Opens the runs for figures and tables: loads and names their models, and checks that they can be compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastvae.errors import UsageError
from fastvae.hub.locate import Weights
from fastvae.models import VAE
from fastvae.objectives import title_of
from fastvae.runs.sampler import Sampler, load_samplers
from fastvae.train.run_summary import RunSummary


@dataclass(frozen=True)
class Run:
    """One model of a run.

    Attributes:
        path: as given.
        name: human-readable.
        model: a VAE, or the generator of a GAN.
    """

    path: str | Path
    name: str
    model: Sampler

    @property
    def vae(self) -> VAE | None:
        """The model if it is a VAE; None for a GAN, which has no encoder."""
        return self.model if isinstance(self.model, VAE) else None

    @property
    def trained(self) -> str:
        """How long it was trained, as in "600 steps, 3 min"; "" if unknown."""
        if self.model.run is None:
            return ""
        seconds = self.model.run.losses.get("seconds")
        return f"{self.model.run.step:,} steps" + ("" if seconds is None else f", {_duration(seconds)}")

    @property
    def weights(self) -> str | None:
        """ "ema" if it is the moving average of a run's weights, "raw" if it is not but there is one; else None."""
        return None if self.model.run is None else self.model.run.weights

    @property
    def title(self) -> str:
        """Its name and how long it was trained."""
        return ", ".join(filter(None, [self.name, self.trained]))


def open_runs(paths: Sequence[str | Path], labels: Sequence[str] = (), weights: Weights = "auto") -> list[Run]:
    """The models of some runs, in order, on the CPU; a multi-view run has several.

    Args:
        paths: of the runs, as for `fastvae.load`.
        labels: a name for each model. Without labels: the systems (VAE-WGAN), the recipes or the runs' folders, the
            first of these that are all different.
        weights: as for `fastvae.load`.

    Raises:
        UsageError: there are no runs, or the number of labels is not that of the models.
        FastvaeError: as `fastvae.load`.
    """
    if not paths:
        raise UsageError("give one or more runs")
    models = [(path, name, model) for path in paths for name, model in load_samplers(path, weights=weights).items()]
    if labels and len(labels) != len(models):
        raise UsageError(f"expected a label for each of the {len(models)} models; --labels has {len(labels)}")
    names = list(labels) or _names([(name, model.run) for _, name, model in models])
    return [Run(path, name, model) for (path, _, model), name in zip(models, names, strict=True)]


def open_vaes(paths: Sequence[str | Path], labels: Sequence[str] = (), weights: Weights = "auto") -> list[Run]:
    """The same for VAEs of one image size.

    Raises:
        UsageError: as `open_runs`; also if a model is a GAN, or the image sizes differ.
    """
    runs = open_runs(paths, labels, weights)
    for run in runs:
        if run.vae is None:
            raise UsageError(
                f"expected a VAE; {run.path} is the run of a GAN, which has no encoder to reconstruct images: use "
                "`fastvae figures samples`"
            )
    _check_one_size(runs)
    return runs


def open_vae(path: str | Path, weights: Weights = "auto") -> Run:
    """The same for a single VAE.

    Raises:
        UsageError: as `open_vaes`; also if the run has several models.
    """
    runs = open_vaes([path], weights=weights)
    if len(runs) > 1:
        raise UsageError(
            f"this figure shows one model and {path} holds {len(runs)} views: name one, as in {path}/{_view(runs)}"
        )
    return runs[0]


def open_for_table(paths: Sequence[str | Path], device: str, weights: Weights = "auto") -> list[Run]:
    """The models of some runs of one image size, on a device, each with a name of its own: its run's folder.

    Raises:
        UsageError: the image sizes differ.
        FastvaeError: as `fastvae.load`.
    """
    runs: list[Run] = []
    for path in paths:
        taken = {run.name for run in runs}
        for name, model in load_samplers(path, device=device, weights=weights).items():
            # Two runs/*/checkpoints/step-00000600 have the same folder name.
            runs.append(Run(path, f"{path}: {name}" if name in taken else name or str(path), model))
    _check_one_size(runs)
    return runs


def _check_one_size(runs: Sequence[Run]) -> None:
    paths = {run.model.image_size: run.path for run in runs}
    if len(paths) > 1:
        sizes = ", ".join(f"{path} takes {size}x{size}" for size, path in paths.items())
        raise UsageError(f"the runs take images of different sizes: {sizes} pixels; give runs of one image size")


def _view(runs: Sequence[Run]) -> str:
    layers = runs[0].model.run.config["objective"].get("layers") if runs[0].model.run else None
    return layers[0] if layers else "relu1_1"


def _names(models: Sequence[tuple[str, RunSummary | None]]) -> list[str]:
    folders = [name or "run" for name, _ in models]  # "." has none
    if not all(run for _, run in models):
        return folders
    systems = [title_of(run.config["objective"]["name"]) for _, run in models]
    recipes = [run.config["recipe"] for _, run in models]
    return next((names for names in (systems, recipes) if len(set(names)) == len(models)), folders)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"
