"""The download: checked, whole, or not there; from a server of the test's own."""

import functools
import http.server
import threading

import pytest

from fastvae.errors import FastvaeError
from fastvae.evaluate import download
from fastvae.files.cache import cache_folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(classifier, monkeypatch):
    handler = functools.partial(Quiet, directory=classifier.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(download, "URL", f"http://127.0.0.1:{running.server_port}/{classifier.name}")
        yield running
        running.shutdown()
        thread.join()


def test_once_and_whole(server, classifier, monkeypatch):
    path = download.fetch()
    assert path.parent == cache_folder() and path.read_bytes() == classifier.read_bytes()
    monkeypatch.setattr(download, "atomic_file", None)  # not downloaded again
    assert download.fetch() == path and len(list(path.parent.iterdir())) == 1


def test_another_file_is_not_kept(server, monkeypatch):
    monkeypatch.setattr(download, "SHA256", "0" * 64)
    with pytest.raises(FastvaeError, match=r"should be one that is 0000.*is not used"):
        download.fetch()
    assert list(cache_folder().iterdir()) == []


@pytest.mark.parametrize("damaged", [b"changed", b""])
def test_a_damaged_file_in_the_cache_is_not_run_but_fetched_again(server, classifier, damaged, caplog):
    path = download.fetch()
    path.write_bytes(damaged)
    assert download.fetch() == path and path.read_bytes() == classifier.read_bytes()
    assert "it is not run" in caplog.text


def test_without_a_network_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(download, "URL", "http://127.0.0.1:9/inception.pt")
    with pytest.raises(FastvaeError) as error:
        download.fetch()
    assert "--inception FILE" in str(error.value) and "--inception none" in str(error.value)
    assert str(cache_folder() / "inception.pt") in str(error.value) and list(cache_folder().iterdir()) == []
