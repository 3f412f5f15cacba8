"""`fastvae train RECIPE [flags]` and `fastvae train --resume RUN [flags]`, alone or as torchrun starts several."""

import argparse
import json
import shlex
import sys
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import torch
import tyro

from fastvae.cli.parsing import RunName, parse
from fastvae.config import Config, Options
from fastvae.distributed.group import Group
from fastvae.distributed.place import Place, place
from fastvae.distributed.ranks import Ranks
from fastvae.distributed.together import together
from fastvae.errors import FastvaeError, UsageError, suggest
from fastvae.files.places import resolved
from fastvae.recipes import RECIPES
from fastvae.train.config_json import from_json, to_json

if TYPE_CHECKING:
    from fastvae.train.initial_weights import Source
    from fastvae.train.trainer import Trainer

# Options that may change when a run is resumed: schedule, hardware, logging, and the learning rate, which may have been
# why the run diverged. Changing any other option would make it a different run.
_RESUMABLE = {
    "device",
    "precision",
    "compile",
    "cuda_graph",
    "resident",
    "lr",
    "ema",
    "epochs",
    "steps",
    "minutes",
    "log_every",
    "balance_every",
    "evaluate_every",
    "pictures_every",
    "checkpoint_minutes",
    "checkpoint_every",
    "keep_checkpoints",
    "held_out",
}


@dataclass(frozen=True)
class _Flags(Config[Options], Generic[Options]):
    """A complete run."""

    recipe: tyro.conf.Suppress[str]  # the positional argument, not a flag
    initial_weights: tyro.conf.Suppress[None] = field(init=False, default=None)  # --init is the flag


@dataclass(frozen=True)
class _Command(Generic[Options]):
    config: _Flags[Options]
    out: Path | None = None  # folder of the run; default: runs/RECIPE-TIME
    # continue the run in this folder from its newest checkpoint, or from this checkpoint of a run
    resume: Path | None = None
    # start a new run from the weights of a run, a checkpoint, a saved folder, a model.safetensors, or user/name: from
    # every tensor of the same name and shape; the moving average, if there is one
    init: RunName | None = None
    allow_other_data: bool = False  # with --resume: continue even if --data holds other images than before
    dry_run: bool = False  # prepare the data, if they are not yet, print the resolved config and the steps, and exit


@dataclass(frozen=True)
class _Plan:
    """What to train. With torchrun rank 0 reads the flags, and the others get this."""

    config: Config
    folder: Path
    resume: bool
    checkpoint: Path | None = None
    allow_other_data: bool = False
    init: "Source | None" = None


def run(argv: list[str]) -> int:
    """Parses the flags and trains.

    Raises:
        FastvaeError: see `Trainer`.
    """
    own = place()
    if own.size > 1:
        return together(own, lambda ranks: _run_together(argv, own, ranks))
    plan = _plan(argv, own)
    return _train(plan, Ranks(own)) if isinstance(plan, _Plan) else plan


def _run_together(argv: list[str], own: Place, ranks: Group) -> int:
    plan, code = None, None
    if ranks.first:
        try:
            plan = _plan(argv, own)
        except SystemExit as exit:  # of the parser of flags
            code = exit.code if isinstance(exit.code, int) else 2
        if plan is not None and not isinstance(plan, _Plan):
            plan, code = None, plan
    said = {"code": code, **({"config": to_json(plan.config), "folder": str(plan.folder)} if plan else {})}
    said = json.loads(ranks.from_first(json.dumps(said)))
    if said["code"] is not None:
        return said["code"]
    plan = plan or _Plan(from_json(said["config"]), Path(said["folder"]), resume=False)
    ranks.use(torch.device(plan.config.train.device))
    return _train(plan, ranks)


def _plan(argv: list[str], own: Place) -> _Plan | int:
    """What the flags ask for; an exit code if that is done already."""
    from fastvae.train.checkpoint_files import named_run

    given = _resumed(argv)
    trains = not {"-h", "--help", "--dry-run"}.intersection(argv)
    if own.max_restarts and given is None and trains:
        argv, given = _restarted(argv, own)
    folder, checkpoint = named_run(given) if given else (None, None)
    if own.restarts:
        checkpoint = None  # there are newer ones
    named = bool(argv) and not argv[0].startswith("-")
    default = _default(argv[0] if named else None, folder, wants_help="-h" in argv or "--help" in argv)
    command = _parse(default, argv[1:] if named else argv)
    config = replace(Config(**_fields(command.config)), initial_weights=default.initial_weights)
    from fastvae.train.build import resolve
    from fastvae.train.run_folder import RunFolder

    if folder:
        if command.out:
            raise UsageError("--out cannot be combined with --resume: a resumed run stays in its folder")
        if command.init is not None:
            raise UsageError("--init cannot be combined with --resume: a resumed run goes on with its own weights")
        _check_resumable(default, config)
        config = _without_overridden_steps(default, config, argv)
    else:
        if command.allow_other_data:
            raise UsageError("--allow-other-data needs --resume")
        folder = command.out or resolved(f"runs/{config.recipe}-{time.strftime('%Y%m%d-%H%M%S')}")
        RunFolder(folder).check_unused()  # before data and weights are fetched
    init = None if command.init is None else _initial_weights(command.init, config)
    config, reasons = resolve(config)
    if init is not None:
        config = replace(config, initial_weights=init.record)
    if command.dry_run:
        return _print_plan(config, folder, reasons, own)
    return _Plan(config, folder, given is not None, checkpoint, command.allow_other_data, init)


def _restarted(argv: list[str], own: Place) -> tuple[list[str], Path | None]:
    """The flags but --out and --init, and the run that torchrun has started before and starts again, if it began."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--out")
    parser.add_argument("--init")  # which the run has used
    given, others = parser.parse_known_args(argv)
    if given.out is None:
        raise UsageError(
            "torchrun --max-restarts needs --out DIR, or --resume RUN, so that a run that is started again finds its "
            "folder"
        )
    folder = resolved(given.out)
    return (others, folder) if own.restarts and (folder / "config.json").is_file() else (argv, None)


def _train(plan: _Plan, ranks: Ranks) -> int:
    from fastvae.train.trainer import Trainer

    folder = plan.folder
    trainer = Trainer(
        plan.config,
        folder,
        resume=plan.resume,
        checkpoint=plan.checkpoint,
        allow_other_data=plan.allow_other_data,
        init=plan.init,
        ranks=ranks,
    )
    if ranks.first:
        how = f"continuing after {trainer.done} steps of" if trainer.done else "training"
        print(f"{how} {plan.config.recipe} in {folder}", file=sys.stderr)
    signal_number = trainer.fit()
    if not ranks.first:
        return 0 if signal_number is None else 128 + signal_number
    return _finish(trainer, folder, signal_number)


def _finish(trainer: "Trainer", folder: Path, signal_number: int | None) -> int:
    from fastvae.train.checkpoint_files import resume_command

    done, total = trainer.done, trainer.total
    code = 0
    if signal_number is not None:
        print(f"stopped and saved after {done} steps; go on with: {resume_command(folder)}")
        code = 128 + signal_number
    elif done < total:
        minutes = trainer.train.minutes
        longer = trainer.seconds / 60 + minutes
        print(
            f"stopped and saved after {done} of {total} steps, as its {minutes:g} minutes are over; go on with: "
            f"{resume_command(folder)} --minutes {longer:.3g}"
        )
    else:
        view = next(iter(trainer.objective.systems()))  # "" but for a multi-view run's
        print(f"done after {done} steps; try: fastvae generate {shlex.quote(str(folder / view))}")
    if trainer.picture is not None:
        print(f"picture to open: {trainer.picture}")
    return code


def _initial_weights(given: str, config: Config) -> "Source":
    from fastvae.hub.locate import read_model, views_of, which_view
    from fastvae.objectives.multi_view import MultiViewOptions
    from fastvae.train.checkpoint_files import read_metadata
    from fastvae.train.initial_weights import read_source

    def read(file: Path, view: str | None) -> "Source":
        views = views_of(read_metadata(file))
        # Without a view, only a run of several can start from a run of several.
        known = not views or isinstance(config.objective, MultiViewOptions) if view is None else view in views
        if not known:
            raise FastvaeError(which_view(file, view, views))
        path = resolved(given)
        return read_source(file, view, str(path) if path.exists() or view is not None else given)

    return read_model(given, read)


def _resumed(argv: list[str]) -> Path | None:
    # Parsed first, because the resumed run's config holds the defaults of all other flags.
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", nargs="?", const="")
    given = parser.parse_known_args(argv)[0].resume
    return None if given is None else resolved(given)


def _default(name: str | None, resume: Path | None, *, wants_help: bool) -> Config:
    if resume:
        from fastvae.train.checkpoint_files import check_run
        from fastvae.train.run_folder import RunFolder

        check_run(resume)
        values = RunFolder(resume).read_config()
        try:
            config = from_json(values)
        except FastvaeError as error:
            raise FastvaeError(f"{resume / 'config.json'}: {error}") from error
        if name not in (None, config.recipe):
            raise UsageError(f"{resume} is a run of {config.recipe}, not of {name}: omit the recipe")
        return config
    if name is None:
        if wants_help:
            return RECIPES["demo"]()
        raise UsageError(f"expected a recipe: one of {', '.join(RECIPES)}")
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}{suggest(name, RECIPES)}")
    return RECIPES[name]()


def _parse(default: Config, argv: list[str]) -> _Command:
    description = RECIPES[default.recipe].description if default.recipe in RECIPES else ""
    return parse(
        tyro.conf.OmitArgPrefixes[_Command[type(default.objective)]],
        prog=f"fastvae train {default.recipe}",
        description=f"{description}\n\nRecipes: {', '.join(RECIPES)}.",
        default=_Command(_Flags(**{n: v for n, v in _fields(default).items() if n != "initial_weights"})),
        args=argv,
    )


def _fields(config: Config) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in fields(config)}


def _check_resumable(before: Config, after: Config) -> None:
    kept = replace(after.train, **{f: getattr(before.train, f) for f in _RESUMABLE})
    objective = after.objective
    if hasattr(objective, "vgg"):  # whether its weights are the same is checked when they are loaded
        objective = replace(objective, vgg=before.objective.vgg)
    if replace(after, train=kept, data=before.data, objective=objective) != before:
        others = ", ".join("--" + field.replace("_", "-") for field in sorted(_RESUMABLE))
        raise UsageError(
            "a resumed run keeps its model, objective and optimiser settings; only these flags may change: --data and "
            f"--vgg (the same files elsewhere), {others}"
        )


def _without_overridden_steps(before: Config, after: Config, argv: list[str]) -> Config:
    """Drops an earlier --steps if --epochs is given now, which otherwise would have no effect."""

    def given(flag: str) -> bool:
        return any(argument == flag or argument.startswith(f"{flag}=") for argument in argv)

    if given("--epochs") and not given("--steps"):
        return replace(after, train=replace(after.train, steps=None))
    return after


def _print_plan(config: Config, folder: Path, reasons: dict[str, str], own: Place) -> int:
    from fastvae.train.build import open_data
    from fastvae.train.log import about_batch_and_rate

    config, images, order = open_data(config, Ranks(own))
    train = config.train
    print(json.dumps(to_json(config), indent=1))
    for name, reason in reasons.items():
        print(f"{name} {getattr(config.train, name)}: {reason}")
    print(f"loader {images.reason}")
    print(f"{images.name}: {order.count} training images, {len(images.held_out(train.held_out))} held out")
    steps = f"{order.steps_of(train)} steps of {order.global_batch} images, {order.steps_per_epoch} an epoch"
    if order.ranks > 1:
        print(about_batch_and_rate(train, order))
    print(f"{steps}, into {folder}")
    print("dry run: nothing was trained")
    return 0
