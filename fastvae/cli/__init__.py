"""The command line: `fastvae COMMAND ...`. One file a command; errors become one line and an exit code."""

import importlib
import logging
import sys
from collections.abc import Sequence

from fastvae.cli.process import Terminated, lasting_output, signals_unwind
from fastvae.errors import FastvaeError, suggest
from fastvae.version import __version__

COMMANDS = {
    "train": "train a recipe: fastvae train demo",
    "prepare": "decode a folder of images once: fastvae prepare FOLDER OUT.fvae",
    "generate": "draw images from the prior, as one picture or one file each: fastvae generate RUN",
    "reconstruct": "encode and decode images: fastvae reconstruct RUN IMAGE...",
    "encode": "latent vectors of many images: fastvae encode RUN FOLDER --out latents.safetensors",
    "figures": "the paper's figures from your runs: fastvae figures samples RUN...",
    "evaluate": "FID, Inception Score, PSNR, SSIM, feature distance: fastvae evaluate RUN... --data celeba64.fvae",
    "attributes": "the paper's Table 1, attributes from latent vectors: fastvae attributes RUN... --data celeba64.fvae",
    "explore": "a local web page to play with a trained VAE: fastvae explore RUN",
    "export": "files for programs without fastvae: fastvae export RUN --format onnx",
    "latency": "how long a trained VAE takes to answer here: fastvae latency RUN",
    "info": "what this machine will run, and what falls back and why",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0; 1 for a problem on the way; 2 for a wrong command, flag or name; 128 + n after signal n.
    """
    with lasting_output() as output, signals_unwind() as interrupted:
        try:
            code, stopped = _run(list(sys.argv[1:] if argv is None else argv)), None
        except SystemExit as exit:  # of the parser of flags
            code, stopped = 0, exit
        except Exception:
            if not interrupted.is_set:
                raise
            code, stopped = 130, None
        output.flush()
        # A reader that has gone has seen what it wanted: `fastvae info | head`.
        if output.error is not None and not isinstance(output.error, BrokenPipeError):
            print(f"fastvae: standard output cannot be written ({output.error})", file=sys.stderr)
            return code or 1
        if stopped is not None:
            raise stopped
        return code


def _run(argv: list[str]) -> int:
    """One command, its errors as a line on standard error and an exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(__version__)
        return 0
    command, *flags = argv
    if command not in COMMANDS:
        print(f"fastvae: unknown command {command!r}{suggest(command, COMMANDS)}", file=sys.stderr)
        return 2
    log, handler = logging.getLogger("fastvae"), logging.StreamHandler()
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.INFO)
    try:
        return importlib.import_module(f"fastvae.cli.{command}").run(flags)
    except FastvaeError as error:
        print(f"fastvae {command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Terminated as terminated:
        return 128 + terminated.number
    finally:  # whoever called this from Python has a logger of their own choice
        log.setLevel(level)
        log.removeHandler(handler)


def _usage() -> str:
    rows = "\n".join(f"  {name:<12} {summary}" for name, summary in COMMANDS.items())
    return f"usage: fastvae COMMAND [...]\n\n{rows}\n\n`fastvae COMMAND --help` lists a command's flags."
