"""Flags of commands: every path means what its writer meant."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastvae.cli.parsing import RunName, parse
from fastvae.errors import UsageError
from fastvae.ranges import between, require


@dataclass(frozen=True)
class Flags:
    run: RunName = "me/faces"
    out: Path = Path("picture.png")
    images: tuple[Path, ...] = ()
    weights: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require(self, seed=between(0, 2**63 - 1))


def parsed(*args: str) -> Flags:
    return parse(Flags, prog="test", args=args)


def test_every_path_is_expanded_and_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir(tmp_path)
    flags = parsed("--out=~/x.png", "--images", "~/a", "b/../c", "--weights", "w.pth")
    assert flags.out == Path("/home/somebody/x.png") and flags.weights == tmp_path / "w.pth"
    assert flags.images == (Path("/home/somebody/a"), tmp_path / "c")
    assert parsed().out == tmp_path / "picture.png" and parsed().weights is None


def test_a_run_stays_as_it_was_given():
    assert parsed("--run", "you/faces").run == "you/faces"


def test_a_name_that_is_not_utf8():
    assert os.fsencode(parsed("--out", os.fsdecode(b"\xfc.png")).out).endswith(b"/\xfc.png")


@pytest.mark.parametrize("flag", ["--out", "--images", "--weights"])
@pytest.mark.parametrize("given", ["", " ", "~nobody-of-this-name/x"])
def test_what_leads_nowhere_is_refused(flag, given):
    with pytest.raises(UsageError):
        parsed(flag, given)


@pytest.mark.parametrize("seed", ["-1", str(2**63), "1" + 400 * "0"])
def test_a_number_out_of_its_range(seed):
    with pytest.raises(UsageError, match="seed must be from 0 to 9223372036854775807; got") as error:
        parsed("--seed", seed)
    assert len(str(error.value)) < 120
