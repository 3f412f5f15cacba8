"""`fastvae train RECIPE [flags]` and `fastvae train --resume RUN [flags]`."""

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic

import tyro

from fastvae.config import Config, Options, from_json, suggest, to_json
from fastvae.errors import UsageError
from fastvae.recipes import RECIPES

# What may change when a run goes on: how long it lasts, where it runs, what it writes, and the learning rate, which may
# have been the reason why it stopped. The rest would make another run of it.
_RESUMABLE = {
    "device",
    "precision",
    "compile",
    "cuda_graph",
    "resident",
    "lr",
    "epochs",
    "steps",
    "minutes",
    "log_every",
    "balance_every",
    "evaluate_every",
    "pictures_every",
    "checkpoint_every",
    "keep_checkpoints",
    "held_out",
}


@dataclass(frozen=True)
class _Command(Generic[Options]):
    config: Config[Options]
    out: Path | None = None  # folder of the run; runs/RECIPE-TIME if not given
    resume: Path | None = None  # go on with the run in this folder, from its newest checkpoint
    dry_run: bool = False  # print what would be trained, and stop


def run(argv: list[str]) -> int:
    """Parses the flags and trains.

    Raises:
        FastvaeError: see `Trainer`.
    """
    resume = _resumed_folder(argv)
    named = bool(argv) and not argv[0].startswith("-")
    default = _default(argv[0] if named else None, resume, wants_help="-h" in argv or "--help" in argv)
    command = _parse(default, argv[1:] if named else argv)
    config = command.config
    from fastvae.train.build import resolve

    if resume:
        if command.out:
            raise UsageError("--out does not go with --resume: a run goes on in its own folder")
        folder = resume
        _check_resumable(default, config)
    else:
        name = f"{config.recipe}-{time.strftime('%Y%m%d-%H%M%S')}"
        folder = command.out.expanduser() if command.out else Path("runs") / name
    config, reasons = resolve(config)
    if command.dry_run:
        return _describe(config, folder, reasons)
    return _train(config, folder, resume=bool(resume))


def _train(config: Config, folder: Path, *, resume: bool) -> int:
    from fastvae.train.trainer import Trainer

    trainer = Trainer(config, folder, resume=resume)
    print(f"{'continuing' if resume else 'training'} {config.recipe} in {folder}", file=sys.stderr)
    signal_number = trainer.fit()
    if signal_number is not None:
        print(f"stopped and saved after {trainer.done} steps; go on with: fastvae train --resume {folder}")
        return 128 + signal_number
    print(f"done after {trainer.done} steps: pictures in {folder / 'pictures'}; try: fastvae generate {folder}")
    return 0


def _resumed_folder(argv: list[str]) -> Path | None:
    # Before the real parsing, because the resumed run's config gives that parsing its defaults.
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", type=Path, nargs="?")
    folder = parser.parse_known_args(argv)[0].resume
    return folder.expanduser() if folder else None


def _default(name: str | None, resume: Path | None, *, wants_help: bool) -> Config:
    if resume:
        from fastvae.train.checkpoint import latest
        from fastvae.train.run_folder import RunFolder

        latest(resume)  # says it if there is nothing to resume
        config = from_json(RunFolder(resume).read_config())
        if name not in (None, config.recipe):
            raise UsageError(f"{resume} is a run of {config.recipe}, not of {name}: leave the recipe out")
        return config
    if name is None:
        if wants_help:
            return RECIPES["demo"]()
        raise UsageError(f"which recipe? There are: {', '.join(RECIPES)}")
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}{suggest(name, RECIPES)}")
    return RECIPES[name]()


def _parse(default: Config, argv: list[str]) -> _Command:
    about = RECIPES[default.recipe].about if default.recipe in RECIPES else ""
    return tyro.cli(
        tyro.conf.OmitArgPrefixes[_Command[type(default.objective)]],
        prog=f"fastvae train {default.recipe}",
        description=f"{about}\n\nRecipes: {', '.join(RECIPES)}.",
        default=_Command(default),
        args=argv,
    )


def _check_resumable(before: Config, after: Config) -> None:
    if replace(after, train=replace(after.train, **{f: getattr(before.train, f) for f in _RESUMABLE})) != before:
        raise UsageError(
            "a resumed run keeps its data, model, objective and optimiser settings; "
            f"what may change is: {', '.join('--' + f.replace('_', '-') for f in sorted(_RESUMABLE))}"
        )


def _describe(config: Config, folder: Path, reasons: dict[str, str]) -> int:
    from fastvae.train.build import open_data

    train = config.train
    images, order = open_data(config)
    print(json.dumps(to_json(config), indent=1))
    for name, reason in reasons.items():
        print(f"{name} {getattr(config.train, name)}: {reason}")
    print(f"loader {images.reason}")
    print(f"{images.name}: {order.count} training images, {len(images.held_out(train.held_out))} held out")
    steps = f"{order.steps_of(train)} steps of {train.batch_size} images, {order.steps_per_epoch} an epoch"
    print(f"{steps}, into {folder}")
    print("dry run: nothing was trained, and the run's folder was not made")
    return 0
