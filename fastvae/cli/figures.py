"""`fastvae figures VERB RUN...`: the figures of the paper, from your runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from fastvae.cli.parsing import LARGEST_SEED, RunName, RunNames, Weights, parse
from fastvae.errors import UsageError, suggest
from fastvae.ranges import at_least, between, require, up_to

_Runs = tyro.conf.Positional[RunNames]
_Run = tyro.conf.Positional[RunName]
_SEEDS = between(0, LARGEST_SEED)
_STRONGEST = 1000
_MAX_CELLS = 1024  # decoded at once
_MAX_SIDE = 64  # the assignment's table has side^4 numbers


@dataclass(frozen=True)
class _Samples:
    """Random samples of several runs side by side, from the same draws of z (Figs. 3, 4, 7, 8, 10)."""

    runs: _Runs  # VAEs or GANs; run folders, checkpoints, saved folders, model.safetensors, or user/name
    labels: tuple[str, ...] = ()  # what to call them; if not given the system, the recipe or the folder
    rows: int = 6  # images from top to bottom of a run's panel, > 0
    columns: int = 6  # images from left to right of a run's panel, > 0
    across: int = 4  # panels side by side, > 0
    seed: int = 0  # of the draws, 0 to 2^63 - 1
    weights: Weights = "auto"  # of a run with --ema: the average, or those of the last step; auto: the average
    out: Path = Path("figure-samples.png")  # picture to write: .png, .jpg, .jpeg or .webp

    def __post_init__(self) -> None:
        require(self, rows=at_least(1), columns=at_least(1), across=at_least(1), seed=_SEEDS)
        if self.rows * self.columns > _MAX_CELLS:
            raise UsageError(f"rows times columns must be {_MAX_CELLS} or less; got {self.rows * self.columns}")

    def figure(self):
        from fastvae.figures import samples
        from fastvae.runs import open as runs

        opened = runs.open_runs(self.runs, self.labels, self.weights)
        return samples.figure(opened, self.rows, self.columns, self.seed, self.across)


@dataclass(frozen=True)
class _Reconstructions:
    """The same held-out images, or given ones, reconstructed by several runs (Figs. 5, 6, 9)."""

    runs: _Runs  # VAEs of one image size, as `samples` takes them
    data: str | None = None  # a file of `fastvae prepare`, anything that it reads, or faces
    images: tuple[Path, ...] = ()  # picture files to take instead of held-out images
    count: int = 8  # held-out images, > 0
    labels: tuple[str, ...] = ()  # what to call the runs; if not given the system, the recipe or the folder
    seed: int = 0  # of the choice of images, 0 to 2^63 - 1
    weights: Weights = "auto"  # of a run with --ema: the average, or those of the last step; auto: the average
    out: Path = Path("figure-reconstructions.png")  # picture to write: .png, .jpg, .jpeg or .webp

    def __post_init__(self) -> None:
        require(self, count=at_least(1), seed=_SEEDS)
        if max(self.count, len(self.images)) > _MAX_CELLS:
            raise UsageError(f"a figure holds {_MAX_CELLS} images a row or fewer")

    def figure(self):
        from fastvae.figures import originals, reconstructions
        from fastvae.runs import open as runs

        vaes = runs.open_vaes(self.runs, self.labels, self.weights)
        chosen = originals.given_or_held_out(vaes[0], self.images, self.data, self.count, self.seed)
        return reconstructions.figure(vaes, *chosen)


@dataclass(frozen=True)
class _Interpolation:
    """Rows from one image to another through latent space: z = (1 - a) z_left + a z_right (Fig. 11)."""

    run: _Run  # a VAE, as `samples` takes it
    data: str | None = None  # a file of `fastvae prepare`, anything that it reads, or faces
    images: tuple[Path, ...] = ()  # picture files to take instead, two for each row: left right left right ...
    pairs: int = 6  # rows of held-out images, > 0
    seed: int = 0  # of the choice of images, 0 to 2^63 - 1
    weights: Weights = "auto"  # of a run with --ema: the average, or those of the last step; auto: the average
    out: Path = Path("figure-interpolation.png")  # picture to write: .png, .jpg, .jpeg or .webp

    def __post_init__(self) -> None:
        require(self, pairs=at_least(1), seed=_SEEDS)
        if len(self.images) % 2:
            raise UsageError(f"--images takes two for each row, left and right; got {len(self.images)}")
        if max(self.pairs, len(self.images) // 2) > _MAX_CELLS:
            raise UsageError(f"a figure holds {_MAX_CELLS} rows or fewer")

    def figure(self):
        from fastvae.figures import interpolation, originals
        from fastvae.runs import open as runs

        vae = runs.open_vae(self.run, self.weights)
        chosen, source = originals.given_or_held_out(vae, self.images, self.data, 2 * self.pairs, self.seed)
        return interpolation.figure(vae, chosen[::2], chosen[1::2], source)


@dataclass(frozen=True)
class _Attributes:
    """Images to which an attribute is added step by step: z + a z_attribute (Fig. 12)."""

    run: _Run  # a VAE, as `samples` takes it
    data: str | None = None  # with attributes: a file of `fastvae prepare`, or faces
    names: tuple[str, ...] = ()  # attributes; if not given six that vary, the paper's first
    images: tuple[Path, ...] = ()  # picture files to take instead of held-out images without the attribute
    strength: float = 1.0  # how often the attribute's vector is added at a = 1, > 0, at most 1000
    limit: int = 2000  # training images with the attribute, and without it, that make its vector, > 0
    seed: int = 0  # of the choices of images, 0 to 2^63 - 1
    weights: Weights = "auto"  # of a run with --ema: the average, or those of the last step; auto: the average
    out: Path = Path("figure-attributes.png")  # picture to write: .png, .jpg, .jpeg or .webp

    def __post_init__(self) -> None:
        require(self, strength=up_to(_STRONGEST), limit=at_least(1), seed=_SEEDS)
        if len(self.images) * max(len(self.names), 6) > _MAX_CELLS:
            raise UsageError(f"a figure holds {_MAX_CELLS} rows or fewer: name fewer images or attributes")

    def figure(self):
        from fastvae.figures import attributes, originals
        from fastvae.inference.attribute_vectors import choose_attributes
        from fastvae.runs import open as runs

        vae = runs.open_vae(self.run, self.weights)
        images = originals.data_of(vae, self.data)
        names = choose_attributes(images, self.names)
        given = originals.read_files(self.images, vae.model.image_size) if self.images else None
        return attributes.figure(vae, images, names, given, strength=self.strength, limit=self.limit, seed=self.seed)


@dataclass(frozen=True)
class _Map:
    """Images laid out on a square so that neighbours are alike in latent space, by t-SNE (Fig. 13)."""

    run: _Run  # a VAE, as `samples` takes it
    data: str | None = None  # a file of `fastvae prepare`, anything that it reads, or faces
    side: int = 25  # images a side, 2 to 64
    seed: int = 0  # of the choice of images and of t-SNE, 0 to 2^63 - 1
    weights: Weights = "auto"  # of a run with --ema: the average, or those of the last step; auto: the average
    out: Path = Path("figure-map.png")  # picture to write: .png, .jpg, .jpeg or .webp

    def __post_init__(self) -> None:
        require(self, seed=_SEEDS)
        if not 2 <= self.side <= _MAX_SIDE:
            raise UsageError(f"side must be 2 to {_MAX_SIDE}; got {self.side}")

    def figure(self):
        from fastvae.figures import map as latent_map
        from fastvae.figures import originals
        from fastvae.runs import open as runs

        latent_map.check_installed()
        vae = runs.open_vae(self.run, self.weights)
        images = originals.data_of(vae, self.data)
        chosen, kind = latent_map.choose(images, self.side**2, self.seed)
        return latent_map.figure(vae, images, chosen, kind, self.side, self.seed)


VERBS = {
    "samples": _Samples,
    "reconstructions": _Reconstructions,
    "interpolation": _Interpolation,
    "attributes": _Attributes,
    "map": _Map,
}


def run(argv: Sequence[str]) -> int:
    """Parses the verb and its flags, draws and writes.

    Raises:
        FastvaeError: a run, the data or an image cannot be used, or the picture cannot be written.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0 if argv else 2
    verb, *flags = argv
    if verb not in VERBS:
        raise UsageError(f"no figure {verb!r}{suggest(verb, VERBS)}")
    command = parse(VERBS[verb], prog=f"fastvae figures {verb}", args=flags)
    from fastvae.cli.targets import check_not_read, places
    from fastvae.files.places import exists
    from fastvae.pictures import check_picture, save_picture

    check_picture(command.out)
    check_not_read(command.out, [*getattr(command, "images", ()), *places(getattr(command, "data", None))])
    sheet = command.figure()
    try:
        save_picture(sheet, command.out)
    except UsageError as error:
        if exists(instead := command.out.with_suffix(".png")):
            raise
        save_picture(sheet, instead)
        raise UsageError(f"{error}. As a PNG it is in {instead}") from error
    print(f"{command.out} written, {sheet.shape[1]}x{sheet.shape[0]} pixels")
    return 0


def _usage() -> str:
    rows = "\n".join(f"  {name:<16} {' '.join(verb.__doc__.split())}" for name, verb in VERBS.items())
    return (
        f"usage: fastvae figures VERB RUN... [flags]\n\n{rows}\n\n`fastvae figures VERB --help` lists a verb's flags."
    )
