"""The VAEs of a run: one, or the views of a multi-view run."""

from pathlib import Path

from fastvae.inference.load import load_file, read_model, views_of
from fastvae.models import VAE
from fastvae.places import resolved
from fastvae.train import checkpoint_files


def load_views(path: str | Path, *, device: str = "cpu") -> dict[str, VAE]:
    """The VAEs of a run by name: the run's own name, or RUN/VIEW for each view of a multi-view run.

    Raises:
        FastvaeError: as `fastvae.load`.
    """
    path = resolved(path)
    return read_model(path, lambda file, view: _vaes_of(path, file, view, device))


def _vaes_of(path: Path, file: Path, view: str | None, device: str) -> dict[str, VAE]:
    views = views_of(checkpoint_files.read_metadata(file)) if view is None else ()
    if not views:
        name = f"{path.parent.name}/{view}" if view else path.name
        return {name: load_file(file, device=device, view=view)}
    return {f"{path.name}/{view}": load_file(file, device=device, view=view) for view in views}
