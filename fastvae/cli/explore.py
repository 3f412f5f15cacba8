"""`fastvae explore RUN`: a local web page to play with a trained VAE."""

import os
import sys
from dataclasses import dataclass, field

import tyro

from fastvae.cli.parsing import RunName, Weights, parse
from fastvae.ranges import between, require


def _has_display() -> bool:
    if "SSH_CONNECTION" in os.environ:
        return False
    return sys.platform in ("darwin", "win32") or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))


@dataclass(frozen=True)
class _Command:
    """Serves a page on this machine: drop a picture or draw one, move sliders for its attributes, mix it with a second.

    Ctrl-C stops it. Nothing leaves the machine.
    """

    run: tyro.conf.Positional[RunName]  # a run folder, a checkpoint, a saved folder, a model.safetensors, or user/name
    # data set with attributes for the sliders: "faces", a file of `fastvae prepare`, or a folder of images; if not
    # given, that of the run
    data: str | None = None
    attributes: tuple[str, ...] = ()  # sliders; if not given, six that vary, the paper's first
    weights: Weights = "auto"  # of a run with --ema: the average, or those of the last step; auto: the average
    host: str = "127.0.0.1"  # address to listen on; the usual one is reached from this machine alone
    port: int = 8000  # 0 to 65535; 0: any that is free
    open: bool = field(default_factory=_has_display)  # open a browser; if not given, where there is a display

    def __post_init__(self) -> None:
        require(self, port=between(0, 65535))


def run(argv: list[str]) -> int:
    """Parses the flags and serves until it is stopped.

    Raises:
        FastvaeError: the run or the data cannot be read, or the port cannot be had.
    """
    command = parse(_Command, prog="fastvae explore", args=argv)
    import webbrowser

    from fastvae import load
    from fastvae.cli.targets import places
    from fastvae.explore.explorer import Explorer
    from fastvae.explore.server import Server
    from fastvae.explore.sliders import NoSliders, make_sliders, trained_on
    from fastvae.hub.locate import name_of

    places(command.data)  # refuses what leads nowhere
    with Server(command.host, command.port) as server:  # before the work, which would be lost if the port is taken
        vae = load(command.run, weights=command.weights)
        fast, sliders, why = vae.accelerate(), [], ""
        try:
            known = trained_on(command.run, vae.run)
            sliders = make_sliders(fast, command.data, command.attributes, trained_on=known)
        except NoSliders as error:
            why = (
                f"{error}. For sliders start again with --data and a data set that has attributes: a .fvae file of "
                f"{vae.image_size}x{vae.image_size} images, made by `fastvae prepare` from CelebA with its "
                "list_attr_celeba.txt, or `faces`, the embedded ones."
            )
            print(f"no sliders: {why}", file=sys.stderr)
        fast.warm_up("decode")  # for the first move of a slider
        server.explorer = Explorer(fast, sliders, name_of(command.run), why)
        if not server.local:
            print(
                f"whoever reaches {command.host} can use this page: there is no password. For yourself from elsewhere, "
                f"`ssh -L {server.server_port}:localhost:{server.server_port}` and the usual --host is safer",
                file=sys.stderr,
            )
        print(f"exploring {command.run} at {server.url}   (Ctrl-C stops it)", flush=True)
        if command.open:
            webbrowser.open(server.url)
        server.serve_forever()
    return 0
