"""The flags of a command, with every path that a person gave expanded and resolved."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from fastvae.files.places import resolved
from fastvae.renamed import renamed_flags

Command = TypeVar("Command")

# What `fastvae.load` takes. Not a Path: "user/name" may be a repository on the Hub, which only `load` can tell.
RunName = Annotated[str, tyro.conf.arg(metavar="RUN")]
RunNames = Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN [RUN ...]")]
# As in `fastvae.load`, without PyTorch, for which --help should not wait.
Weights = Literal["auto", "ema", "raw"]

# PyTorch takes seeds up to 2^64 - 1, NumPy any, JSON readers and databases these.
LARGEST_SEED = 2**63 - 1

_registry = ConstructorRegistry()


def parse(
    command: type[Command] | Callable[..., Command], *, prog: str, args: Sequence[str], **options: Any
) -> Command:
    """`tyro.cli`, whose every `Path` is `places.resolved`: given ones and defaults.

    Args:
        command: the dataclass of the command's flags.
        prog: what help calls it, "fastvae generate".
        args: the flags.
        options: further ones of `tyro.cli`.

    Raises:
        UsageError: a path leads nowhere, or the command refuses a value.
        SystemExit: help was asked for, or the flags cannot be parsed.
    """
    with _registry:
        parsed = tyro.cli(command, prog=prog, args=renamed_flags(args), **options)
    if not dataclasses.is_dataclass(parsed):
        return parsed
    values = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(parsed)}
    paths = {name: resolved(value) for name, value in values.items() if isinstance(value, Path)}
    return dataclasses.replace(parsed, **paths)


# Not only afterwards: Path("") is Path("."), so that what is empty must be seen before.
@_registry.primitive_rule
def _path(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    if kind.type is not Path:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda given: resolved(given[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )
