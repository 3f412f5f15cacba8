"""`fastvae attributes RUN...`: how well linear classifiers read attributes off the latent vectors (Table 1)."""

import importlib.util
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from fastvae.cli.parsing import LARGEST_SEED, RunNames, parse
from fastvae.errors import FastvaeError, UsageError
from fastvae.files.atomic_write import check_writable, write_atomically
from fastvae.files.places import resolved, shown
from fastvae.ranges import at_least, between, require

_FILES = ("attributes.txt", "attributes.csv", "attributes.json", "attributes.png")


@dataclass(frozen=True, kw_only=True)
class _Command:
    """Encodes the data set with every run, puts the latent vectors side by side, and fits a linear SVM per attribute.

    The paper has five runs, each of another loss layer; one multi-view run is the same. The classifiers are fitted on
    the training split alone, with the C that is right most often on the validation split, and tested on the test
    split. Writes the table beside the paper's as text, CSV and JSON, and a bar chart.

    Memory: images x features x 4 bytes, 405 MB for CelebA's 202,599 images and 500 features; twice that again for the
    fits; and for each fit at a time 16 bytes a training image and feature, 1.3 GB. Where that is more than is free,
    fewer run at a time.
    """

    runs: tyro.conf.Positional[RunNames] = ()  # run folders, checkpoints, saved folders, or user/name
    data: str  # a .fvae file with attributes, a folder of CelebA, or faces
    out: Path = Path("attributes")  # folder to write into
    vgg_fc: Path | None = None  # whole VGG-19 (.pth, .safetensors; torchvision's keys): its fc7 joins the features
    image_size: int = 64  # pixels a side, 8 to 1024, for --vgg-fc alone on a folder or faces
    max_train: int | None = None  # training images, a random subset: a quick look, 2 or more
    test_images: int = 20_000  # test images at most, as in the paper, > 0
    c: tuple[float, ...] = (0.0001, 0.001, 0.01, 0.1)  # values of C to choose from, > 0
    jobs: int | None = None  # fits at a time, 1 to 1024; by default one a core if memory allows
    seed: int = 0  # of the subsets, 0 to 2^63 - 1
    device: Literal["auto", "cpu", "cuda"] = "auto"  # that encodes; auto: CUDA where there is one

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
            raise UsageError(f"values of C are more than 0; got {' '.join(map(str, self.c)) or 'none'}")
        if not self.runs and self.vgg_fc is None:
            raise UsageError("give one or more runs, or --vgg-fc FILE")


def run(argv: list[str]) -> int:
    """Parses the flags, encodes, fits, prints and writes; what was found is written however it ends.

    Raises:
        FastvaeError: a run or the data cannot be read, memory is short, or the results cannot be written.
    """
    command = parse(_Command, prog="fastvae attributes", args=argv)
    from fastvae.cli.targets import check_not_read, places

    for name in _FILES:
        check_writable(command.out / name)
        check_not_read(command.out / name, places(command.data))
    if importlib.util.find_spec("sklearn") is None:
        raise FastvaeError("attributes need scikit-learn, which is not installed; pip install 'fastvae[eval]'")

    from fastvae.attributes import Recognition, choose_splits, recognise
    from fastvae.attributes.features import collect, common_size, latent_sources
    from fastvae.attributes.memory import Memory
    from fastvae.attributes.vgg_fc import vgg_fc_source
    from fastvae.data.cores import decoding_threads
    from fastvae.data.dataset import open_images
    from fastvae.hub.locate import name_of
    from fastvae.machine import choose_device, environment
    from fastvae.memory import free_memory
    from fastvae.progress_bar import progress_bar

    device = choose_device(command.device)
    sources = [source for run in command.runs for source in latent_sources(run, device)]
    if command.vgg_fc is not None:
        sources.append(vgg_fc_source(command.vgg_fc, device))
    packed = open_images(command.data, common_size(sources) or _own_size(command.data) or command.image_size)
    if packed.attributes is None:
        raise FastvaeError(f"{packed.path} has no attributes; prepare CelebA with its list_attr_celeba.txt beside it")
    splits = choose_splits(packed, max_train=command.max_train, test_images=command.test_images, seed=command.seed)
    indices = splits.images()
    memory = Memory.of(len(indices), len(splits.train), sum(source.count for source in sources))
    jobs = memory.jobs(min(decoding_threads(command.jobs), len(packed.attribute_names)), free_memory())
    about = {
        "runs": [name_of(run) for run in command.runs],
        "vgg_fc": command.vgg_fc and command.vgg_fc.name,
        "data": packed.path.name,
        "kind": packed.header.get("kind"),
        "features": {"count": sum(source.count for source in sources), "from": [source.name for source in sources]},
        "images": {"train": len(splits.train), "choose": len(splits.choose), "test": len(splits.test)},
        "splits": splits.words,
        "grid": command.c,
        "jobs": jobs,
        "seed": command.seed,
        "machine": environment(),
    }
    print(f"{_title(about)}\n{splits.words}; fitted on training images alone\n{memory.words(jobs)}\n", flush=True)

    start = time.perf_counter()
    features = collect(sources, packed.images, indices)
    about["encoding_s"] = round(time.perf_counter() - start, 1)
    names, has = packed.attribute_names, packed.attributes[indices]
    found = Recognition()
    about["whole"] = False
    start = time.perf_counter()
    try:
        with progress_bar(what="attributes", total=len(names), leave=False) as bar:

            def done(result) -> None:
                found.results.append(result)
                bar.update()

            found = recognise(features, has, names, splits.within(indices), grid=command.c, jobs=jobs, done=done)
        about["whole"] = True
    finally:  # on Ctrl-C, finished results are kept
        about["fitting_s"] = round(time.perf_counter() - start, 1)
        found.results.sort(key=lambda result: names.index(result.name))
        if found.results:
            _finish(command.out, found, about)
    if not found.results:
        raise FastvaeError(
            "no attribute can be judged: " + "; ".join(f"{name}: {why}" for name, why in found.excluded.items())
        )
    return 0


def _own_size(data: str) -> int | None:
    """Pixels a side of a packed file's images; None where `data` is none."""
    from fastvae.data.packed import PackedImages

    place = resolved(data)
    return PackedImages.open(place).images.shape[1] if place.is_file() else None


def _title(about: dict[str, Any]) -> str:
    features, images = about["features"], about["images"]
    return (
        f"linear SVMs on {features['count']} features of {' + '.join(features['from'])}; {about['data']}: "
        f"{images['train']:,} training, {images['choose']:,} choosing and {images['test']:,} test images"
    )


def _finish(out: Path, found: Any, about: dict[str, Any]) -> None:
    """Writes everything, without matplotlib everything but the picture; then prints, since nobody may be reading."""
    from fastvae.attributes import picture, report
    from fastvae.attributes.table1 import table1

    paper = table1() if about["kind"] == "celeba" else {}
    text = report.as_text(found, paper)
    if not about["whole"]:
        text += f"\nStopped after {len(found.results)} attributes: this is not all."
    said = [text]
    try:
        write_atomically(out / "attributes.txt", f"{shown(_title(about))}\n{about['splits']}\n\n{text}\n")
        write_atomically(out / "attributes.csv", report.as_csv(found, paper))
        write_atomically(out / "attributes.json", report.as_json(found, **about))
        made = list(_FILES)
        try:
            picture.draw(found, paper, shown(_title(about)), out / _FILES[-1])
        except FastvaeError as error:
            made.pop()
            print(error, file=sys.stderr)
        said += ["", f"{', '.join(made)} in {out}"]
    finally:
        print("\n".join(said))
