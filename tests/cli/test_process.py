"""Signals that unwind a command, and output that may go away."""

import contextlib
import io
import os
import signal
import sys

import pytest

from fastvae.cli import generate, main
from fastvae.cli.process import LastingStream, Terminated, lasting_output, signals_unwind

pytestmark = pytest.mark.usefixtures("signals_of_a_terminal")


class Broken(io.StringIO):
    def __init__(self, error: Exception):
        super().__init__()
        self._error = error

    def write(self, text: str) -> int:
        raise self._error


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_the_first_signal_unwinds_and_later_ones_wait(name):
    number, tidied = getattr(signal, name), []
    before = signal.getsignal(number)
    with pytest.raises(Terminated) as stopped, signals_unwind():
        try:
            os.kill(os.getpid(), number)
            raise AssertionError("not reached")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            tidied.append(True)
    assert stopped.value.number == number and tidied == [True]
    assert signal.getsignal(number) is before


def test_an_interrupt_that_an_import_swallows_still_ends_the_command(monkeypatch, tmp_path, capsys):
    def run(flags):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        raise AttributeError("half a module")

    monkeypatch.setattr(generate, "run", run)
    assert main(["generate", "x"]) == 130
    monkeypatch.setattr(generate, "run", lambda flags: {}["a fault of ours"])
    with pytest.raises(KeyError):
        main(["generate", "x"])


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_unwind():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("error", [BrokenPipeError(32, "x"), OSError(28, "full"), ValueError("closed file")])
def test_a_stream_that_fails_is_dropped_and_says_why(error):
    stream = LastingStream(Broken(error))
    assert stream.write("text") == 4 and stream.error is error
    assert stream.write("more") == 4
    stream.flush()
    assert not stream.isatty()


def test_no_stream_at_all():
    stream = LastingStream(None)
    print("text", file=stream)
    assert not stream.isatty()
    with pytest.raises(io.UnsupportedOperation):
        stream.fileno()


def test_names_that_are_not_utf8_come_out_as_they_are(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "utf-8"))
    with lasting_output():
        print("lauf-\udcfc")
    assert written.getvalue() == b"lauf-\xfc\n"


def test_what_an_encoding_does_not_have_is_escaped(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    with lasting_output() as output:
        print("Übung")
        assert output.error is None
    assert written.getvalue() == b"\\xdcbung\n"
