"""`fastvae attributes RUN...`: how well linear classifiers read attributes off the latent vectors (Table 1)."""

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from fastvae.cli.parsing import LARGEST_SEED, RunNames, Weights, parse
from fastvae.errors import FastvaeError, UsageError
from fastvae.files.atomic_write import check_writable
from fastvae.ranges import at_least, between, require


@dataclass(frozen=True, kw_only=True)
class _Command:
    """Encodes the data set with every run, concatenates the latent vectors, and fits a linear SVM per attribute.

    The paper has five runs, each with the feature loss of one layer; a multi-view run is equivalent. The classifiers
    are fitted on the training split only, with the C that is most accurate on the validation split, and tested on the
    test split. Writes the table beside the paper's as text, CSV and JSON, and a bar chart; until the last attribute is
    done, those so far are in attributes-incomplete.*.

    Memory: images x features x 4 bytes, 405 MB for CelebA's 202,599 images and 500 features; twice that for the fits;
    and for each simultaneous fit 16 bytes per training image and feature, 1.3 GB. Fewer fits run at once if memory is
    short.
    """

    runs: tyro.conf.Positional[RunNames] = ()  # run folders, checkpoints, saved folders, or user/name
    data: str  # a .fvae file with attributes, a folder of CelebA, or faces
    out: Path = Path("attributes")  # folder to write into
    weights: Weights = "auto"  # of a run with --ema: the average, or those of the last step; auto: the average
    vgg_fc: Path | None = None  # complete VGG-19 (.pth, .safetensors; torchvision's keys): its fc7 joins the features
    image_size: int = 64  # pixels per side, 8 to 1024, for --vgg-fc without runs on a folder or faces
    max_train: int | None = None  # a random subset of this many training images, for a quick look; 2 or more
    test_images: int = 20_000  # limit on the test images, as in the paper, > 0
    c: tuple[float, ...] = (0.0001, 0.001, 0.01, 0.1)  # values of C to choose from, > 0
    jobs: int | None = None  # simultaneous fits, 1 to 1024; by default one per core if memory allows
    seed: int = 0  # of the random subsets, 0 to 2^63 - 1
    device: Literal["auto", "cpu", "cuda"] = "auto"  # for encoding; auto: CUDA if available

    def __post_init__(self) -> None:
        require(
            self,
            image_size=between(8, 1024),
            max_train=at_least(2),
            test_images=at_least(1),
            jobs=between(1, 1024),
            seed=between(0, LARGEST_SEED),
        )
        if not self.c or not all(0 < c < float("inf") for c in self.c):
            raise UsageError(f"values of C must be more than 0; got {' '.join(map(str, self.c)) or 'none'}")
        if not self.runs and self.vgg_fc is None:
            raise UsageError("give one or more runs, or --vgg-fc FILE")


def run(argv: list[str]) -> int:
    """Parses the flags, encodes, fits, writes each result as it comes, and prints the table.

    Raises:
        FastvaeError: a run or the data cannot be read, memory is short, or the results cannot be written.
    """
    command = parse(_Command, prog="fastvae attributes", args=argv)
    from fastvae.attributes.folder import FILES
    from fastvae.cli.targets import check_not_read, places

    for name in FILES:
        check_writable(command.out / name)
        check_not_read(command.out / name, places(command.data))
    if importlib.util.find_spec("sklearn") is None:
        raise FastvaeError("attributes need scikit-learn, which is not installed; pip install -e '.[eval]'")

    from fastvae.attributes import Recognition, choose_splits, recognise
    from fastvae.attributes.features import collect, common_size, latent_sources
    from fastvae.attributes.folder import title, write_tables
    from fastvae.attributes.memory import Memory
    from fastvae.attributes.table1 import table1
    from fastvae.attributes.vgg_fc import vgg_fc_source
    from fastvae.data.cores import decoding_threads
    from fastvae.data.dataset import open_images
    from fastvae.hub.locate import name_of
    from fastvae.machine import choose_device, environment
    from fastvae.memory import free_memory
    from fastvae.progress_bar import progress_bar

    device = choose_device(command.device)
    names = _distinct(command.runs)
    sources = [
        replace(source, name=source.name.replace(name_of(run), name, 1))
        for run, name in zip(command.runs, names, strict=True)
        for source in latent_sources(run, device, command.weights)
    ]
    if command.vgg_fc is not None:
        sources.append(vgg_fc_source(command.vgg_fc, device))
    packed = open_images(command.data, common_size(sources) or _own_size(command.data) or command.image_size)
    if packed.attributes is None:
        raise FastvaeError(f"{packed.path} has no attributes; prepare CelebA with its list_attr_celeba.txt beside it")
    splits = choose_splits(packed, max_train=command.max_train, test_images=command.test_images, seed=command.seed)
    indices = splits.images()
    memory = Memory.of(len(indices), len(splits.train), sum(source.count for source in sources))
    jobs = memory.jobs(min(decoding_threads(command.jobs), len(packed.attribute_names)), free_memory())
    metadata = {
        "runs": names,
        "models": [{"name": source.name, **source.model} for source in sources if source.model],
        "vgg_fc": command.vgg_fc and command.vgg_fc.name,
        "data": packed.path.name,
        # From Parquet files or a hub its kind is theirs.
        "celeba": packed.header.get("kind") == "celeba" or set(packed.attribute_names) == set(table1()),
        "features": {"count": sum(source.count for source in sources), "from": [source.name for source in sources]},
        "images": {"train": len(splits.train), "choose": len(splits.choose), "test": len(splits.test)},
        "splits": splits.description,
        "grid": command.c,
        "jobs": jobs,
        "seed": command.seed,
        "machine": environment(),
    }
    print(
        f"{title(metadata)}\n{splits.description}; fitted on training images only\n{memory.summary(jobs)}\n",
        flush=True,
    )

    start = time.perf_counter()
    features = collect(sources, packed.images, indices)
    metadata["encoding_s"] = round(time.perf_counter() - start, 1)
    names, has = packed.attribute_names, packed.attributes[indices]
    recognition = Recognition()
    metadata["complete"] = False
    start = time.perf_counter()
    try:
        with progress_bar(what="attributes", total=len(names), leave=False) as bar:

            def done(result) -> None:
                recognition.results.append(result)
                bar.update()
                recognition.results.sort(key=lambda each: names.index(each.name))
                write_tables(command.out, recognition, metadata)

            recognition = recognise(features, has, names, splits.within(indices), grid=command.c, jobs=jobs, done=done)
        metadata["complete"] = True
    finally:  # on Ctrl-C, finished results are shown
        metadata["fitting_s"] = round(time.perf_counter() - start, 1)
        if recognition.results:
            _finish(command.out, recognition, metadata)
    if not recognition.results:
        raise FastvaeError(
            "no attribute can be tested: " + "; ".join(f"{name}: {why}" for name, why in recognition.excluded.items())
        )
    return 0


def _distinct(runs: Sequence[str]) -> list[str]:
    """Names of some runs: as many of the last parts of their paths as tell them apart, as checkpoints need more."""
    from fastvae.files.places import resolved

    parts = [resolved(run).parts for run in runs]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(of_run[-depth:]) or "run" for of_run in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return []


def _own_size(data: str) -> int | None:
    """Pixels per side of a packed file's images; None if `data` is not a packed file."""
    from fastvae.data.dataset import is_packed
    from fastvae.data.packed import PackedImages
    from fastvae.data.sources.hub import place_of
    from fastvae.files.places import is_file

    path = place_of(data)
    return PackedImages.open(path).images.shape[1] if is_file(path) and is_packed(path) else None


def _finish(out: Path, recognition: Any, metadata: dict[str, Any]) -> None:
    """Writes, then prints: standard output may be closed. A table that cannot be written is printed all the same."""
    from fastvae.attributes.folder import text, write_all

    lines = [text(recognition, metadata)]
    try:
        lines += ["", f"{', '.join(write_all(out, recognition, metadata))} in {out}"]
    finally:
        print("\n".join(lines))
