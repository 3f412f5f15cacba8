"""`fastvae evaluate RUN... --data DATA`: metrics of samples and reconstructions."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from fastvae.cli.parsing import LARGEST_SEED, RunNames, Weights, parse
from fastvae.errors import FastvaeError, UsageError
from fastvae.files.places import resolved, unfinished
from fastvae.ranges import between, require

# One for each part of the Inception Score; and as many as take 4 GB of Inception's output.
_MIN_COUNT, _MAX_COUNT = 10, 1_000_000


@dataclass(frozen=True)
class _Command:
    """Inception Score and FID of samples from the prior; PSNR, SSIM and feature distance of reconstructions.

    Prints one table over the runs, with a row for real images unless --no-floor, and writes it as JSON. Protocol paper:
    2,000 generated images against as many held-out ones. Protocol usual: 50,000 against the complete training split,
    which needs a GPU. GANs have no encoder: only Inception Score and FID apply. Inception statistics of real images are
    cached.
    """

    runs: tyro.conf.Positional[RunNames]  # run folders, or anything else that `fastvae generate` takes
    data: str  # a file of `fastvae prepare`, anything that it reads, or faces: real images that are in part held out
    protocol: Literal["paper", "usual"] = "paper"  # which images are compared with which
    count: int | None = (
        None  # images to generate, 10 to 1000000; default 2000 (paper; fewer if the data have fewer) or 50000 (usual)
    )
    # TorchScript file of the Inception network; default: NVIDIA's inception-2015-12-05.pt, downloaded once (96 MB) and
    # checked. A features-only file gives FID and no Inception Score. Such a file is a program, which is executed: give
    # only one that you trust. none: skip both metrics
    inception: str | None = None
    # loss network of the feature distance: caffe or torchvision (downloaded once, 575 MB), random, a file, or none
    vgg: str = "caffe"
    # its layers; weighted as in eq. 6
    layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    reconstruction_fid: bool = False  # also FID of the reconstructions against their originals
    # the row of real images, which takes as long as one run's samples where it is not cached; with protocol usual
    # --reconstruction-fid needs its images anyway
    floor: bool = True
    seed: int = 0  # of the draws from the prior and of the choice of real images, 0 to 2^63 - 1
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA if available
    weights: Weights = "auto"  # of a run with --ema: the average, or those of the last step; auto: the average
    out: Path = Path("evaluation.json")  # JSON to write

    def __post_init__(self) -> None:
        if not self.runs:
            raise UsageError("give one or more runs to evaluate")
        require(self, count=between(_MIN_COUNT, _MAX_COUNT), seed=between(0, LARGEST_SEED))


def run(argv: list[str]) -> int:
    """Parses the flags and measures; finished results are always written.

    Raises:
        FastvaeError: a run, the data or a network cannot be read, or the results cannot be written.
    """
    command = parse(_Command, prog="fastvae evaluate", args=argv)
    from fastvae.cli.targets import check_json, check_not_read, places
    from fastvae.evaluate import protocol, reconstruction, report
    from fastvae.evaluate.measure import Row, measure
    from fastvae.machine import choose_device, environment
    from fastvae.runs.open import open_for_table

    check_json(command.out)
    check_not_read(command.out, places(command.data))
    check_json(unfinished(command.out))
    device = choose_device(command.device)
    runs = open_for_table(command.runs, device.type, command.weights)
    packed = _images(command.data, runs[0].name, runs[0].model.image_size)
    generates = command.inception != "none"
    plan = protocol.plan(
        packed, command.protocol, command.count, command.seed, floor=command.floor, generates=generates
    )
    if any(run.vae for run in runs):
        reconstruction.structural_similarity()  # raises now if scikit-image is not installed
    elif command.inception == "none":
        raise UsageError("nothing to measure: these runs have no encoder, and --inception none skips everything else")
    inception = _inception(command.inception, device)
    loss_network = _loss_network(command, device) if any(run.vae for run in runs) else None
    if loss_network is not None:
        loss_network.check_takes(runs[0].model.image_size)
    metadata = {
        "data": packed.path.name,
        "protocol": plan.summary,
        "seed": command.seed,
        "weights": {run.name: run.weights for run in runs},
        "inception": None if inception is None else {"file": inception.name, "sha256": inception.digest},
        "loss_network": None if loss_network is None else loss_network.source,
        "layers": None if loss_network is None else loss_network.taps,
        "machine": environment(),
    }
    print(f"{packed.path.name}, protocol {command.protocol}: {plan.summary}\n")
    rows: list[Row] = []
    complete = False
    try:
        for row in measure(
            runs,
            packed,
            plan,
            inception,
            loss_network,
            seed=command.seed,
            reconstruction_fid=command.reconstruction_fid,
        ):
            rows.append(row)
            notes = report.remarks(rows, plan, inception)
            with suppress(FastvaeError):  # said at the end, if it still cannot be written
                report.write(unfinished(command.out), rows, **metadata, complete=False, remarks=notes)
        complete = True
    finally:  # on Ctrl-C, finished results are kept
        if rows:
            notes = report.remarks(rows, plan, inception)
            lines = [report.table(rows), "", *notes]
            out = command.out if complete else unfinished(command.out)
            try:  # written before anything is printed: standard output may be closed
                report.write(out, rows, **metadata, complete=complete, remarks=notes)
                lines += ["", f"{out} written" + ("" if complete else ": incomplete, as it was stopped")]
                if complete:
                    unfinished(out).unlink(missing_ok=True)
            finally:
                print("\n".join(lines))
    return 0


def _images(data: str, run: str, size: int):
    from fastvae.data.dataset import WrongSize, open_images

    try:
        return open_images(data, size)
    except WrongSize as error:
        raise UsageError(
            f"{run} makes images of {size}x{size} pixels and {data} holds others: prepare them in that size, "
            f"fastvae prepare FOLDER OUT.fvae --image-size {size}"
        ) from error


def _loss_network(command: _Command, device):
    from fastvae.lossnet import load_loss_network

    if command.vgg == "none":
        return None
    try:
        return load_loss_network(command.vgg, taps=command.layers).to(device)
    except UsageError:
        raise
    except FastvaeError as error:
        raise FastvaeError(f"{error}\nOr skip the feature distance: --vgg none") from error


def _inception(file: str | None, device):
    from fastvae.evaluate.download import fetch
    from fastvae.evaluate.inception import Inception

    if file == "none":
        return None
    return Inception(fetch() if file is None else resolved(file), device)
