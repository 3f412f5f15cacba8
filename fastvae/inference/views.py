"""The VAEs of a run: one, or the views of a multi-view run."""

from pathlib import Path

from fastvae.inference.load import load_file, model_file, views_of
from fastvae.models import VAE
from fastvae.train import checkpoint


def load_views(path: str | Path, *, device: str = "cpu") -> dict[str, VAE]:
    """The VAEs of a run by name: the run's own name, or RUN/VIEW for each view of a multi-view run.

    Raises:
        FastvaeError: as `fastvae.load`.
    """
    file, view = model_file(path)
    name = Path(path).name
    views = views_of(checkpoint.read_metadata(file)) if view is None else ()
    if not views:
        return {f"{Path(path).parent.name}/{view}" if view else name: load_file(file, device=device, view=view)}
    return {f"{name}/{view}": load_file(file, device=device, view=view) for view in views}
