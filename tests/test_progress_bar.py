"""A bar on a terminal, lines in a log file."""

import io
import sys

from fastvae.no_progress_bar import NoProgressBar
from fastvae.progress_bar import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_file_gets_a_few_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    for _ in progress_bar(range(5000), what="prepare", total=5000, unit=" images"):
        pass
    lines = sys.stderr.getvalue().splitlines()
    assert "\r" not in sys.stderr.getvalue()
    assert 1 <= len(lines) <= 3 and lines[-1].startswith("prepare: 5000 of 5000 images")


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    list(progress_bar(range(10), what="prepare", total=10))
    assert "\r" in sys.stderr.getvalue()


def test_nothing_without_standard_error_or_when_not_wanted(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert list(progress_bar(range(3), what="prepare", total=3)) == [0, 1, 2]
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    list(progress_bar(range(3), what="prepare", total=3, show=False))
    assert not sys.stderr.getvalue()


def test_without_tqdm_there_is_no_bar(capsys):
    with NoProgressBar(range(3), desc="steps", file=sys.stderr, disable=None) as bar:
        bar.set_description("more")
        assert list(bar) == [0, 1, 2]
    NoProgressBar(total=3, unit=" images").update(2)
    NoProgressBar.write("a result")
    assert capsys.readouterr() == ("a result\n", "")
