"""Downloads from a server of our own: checked, cut down, cached; and messages where that cannot be."""

import hashlib
import http.server
import io
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastvae.errors import FastvaeError
from fastvae.lossnet import download, load_loss_network
from fastvae.lossnet.download import Source, fetch
from fastvae.lossnet.network import BLOCKS


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTVAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def small_file(make_weights) -> bytes:
    buffer = io.BytesIO()
    torch.save(make_weights("caffe", up_to=5) | {"classifier.0.bias": torch.zeros(4096)}, buffer)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _two_blocks(monkeypatch):
    """The conversion keeps conv1_1 to conv2_1 only, so that the files of these tests are small."""
    monkeypatch.setattr(download, "conv_layers", lambda: dict.fromkeys((0, 2, 5)))


@pytest.fixture
def serve(small_file):
    """Serves /vgg19.pth whole and /short.pth cut; counts requests."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            if self.path not in ("/vgg19.pth", "/short.pth"):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(small_file)))
            self.end_headers()
            self.wfile.write(small_file if self.path == "/vgg19.pth" else small_file[:1000])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()


def test_downloads_once_and_keeps_the_needed_layers(cache, serve, small_file, monkeypatch, make_weights):
    root, requests = serve
    source = Source(f"{root}/vgg19.pth", hashlib.sha256(small_file).hexdigest(), "caffe")
    monkeypatch.setitem(download.SOURCES, "caffe", source)
    for _ in range(2):
        network = load_loss_network("caffe", taps=("relu2_1",), progress=False)
    assert requests == ["/vgg19.pth"]
    assert [path.name for path in cache.iterdir()] == ["vgg19.safetensors"]
    weights = make_weights("caffe")
    assert torch.equal(network.state_dict()["features.5.weight"], weights["features.5.weight"])
    assert torch.equal(network.state_dict()["features.0.weight"], weights["features.0.weight"].flip(1))


def test_a_published_beginning_of_the_checksum_is_enough(cache, serve, small_file):
    source = Source(f"{serve[0]}/vgg19.pth", hashlib.sha256(small_file).hexdigest()[:8], "caffe")
    assert fetch("caffe", source, progress=False).is_file()


def test_another_checksum_is_refused_and_nothing_is_kept(cache, serve):
    with pytest.raises(FastvaeError, match=r"SHA-256 should be .*0badf00d"):
        fetch("caffe", Source(f"{serve[0]}/vgg19.pth", "0badf00d", "caffe"), progress=False)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "reason"), [("nowhere.pth", "404"), ("short.pth", "1,000 of ")], ids=["404", "truncated"]
)
def test_errors_of_the_server_name_the_three_ways_out(path, reason, cache, serve):
    source = Source(f"{serve[0]}/{path}", "d01eb7cb", "caffe")
    with pytest.raises(FastvaeError) as caught:
        fetch("caffe", source, progress=False)
    message = str(caught.value)
    for part in (
        reason,
        "--vgg PATH",
        ".safetensors",
        source.url,
        "d01eb7cb",
        str(cache / path),
        "--vgg random",
    ):
        assert part in message
    assert list(cache.iterdir()) == []


def test_no_network_names_the_three_ways_out(cache):
    # Port 1 of this machine: refused at once.
    with pytest.raises(FastvaeError, match=r"(?s)refused.*1\. .*2\. .*3\. .*--vgg random"):
        fetch("caffe", Source("http://127.0.0.1:1/vgg19.pth", "d01eb7cb", "caffe"), progress=False)


def test_a_file_put_into_the_cache_by_hand_is_used(cache, small_file):
    cache.mkdir()
    (cache / "vgg19.pth").write_bytes(small_file)
    url = "http://127.0.0.1:1/vgg19.pth"
    with pytest.raises(FastvaeError, match=r"cache.vgg19\.pth is not the expected file"):
        fetch("caffe", Source(url, "0badf00d", "caffe"), progress=False)
    source = Source(url, hashlib.sha256(small_file).hexdigest(), "caffe")
    assert fetch("caffe", source, progress=False).name == "vgg19.safetensors"
    assert (cache / "vgg19.pth").exists(), "what someone else put there is not ours to delete"


def damage(path):
    """One bit of the last tensor."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    [damage, lambda path: path.write_bytes(path.read_bytes()[:-1]), lambda path: path.write_bytes(b"")],
    ids=["changed", "cut", "empty"],
)
def test_a_damaged_file_in_the_cache_is_fetched_again(spoil, cache, serve, small_file, caplog):
    source = Source(f"{serve[0]}/vgg19.pth", hashlib.sha256(small_file).hexdigest(), "caffe")
    kept = fetch("caffe", source, progress=False)
    whole = {key: value.clone() for key, value in load_file(kept).items()}  # not a map of the file
    spoil(kept)
    assert fetch("caffe", source, progress=False) == kept
    assert all(torch.equal(value, whole[key]) for key, value in load_file(kept).items())
    assert "is damaged" in caplog.text and len(serve[1]) == 2


def test_a_file_of_an_earlier_version_is_used(cache, serve, small_file):
    source = Source(f"{serve[0]}/vgg19.pth", hashlib.sha256(small_file).hexdigest(), "caffe")
    kept = fetch("caffe", source, progress=False)
    save_file(load_file(kept), kept, metadata={"convention": "caffe"})
    assert fetch("caffe", source, progress=False) == kept and len(serve[1]) == 1


def test_a_cache_that_can_only_be_read_is_used(cache, serve, small_file, monkeypatch):
    source = Source(f"{serve[0]}/vgg19.pth", hashlib.sha256(small_file).hexdigest(), "caffe")
    kept = fetch("caffe", source, progress=False)
    monkeypatch.setattr(
        "fastvae.files.cache._obstacle", lambda folder: "cannot be written"
    )  # root may write everywhere
    assert fetch("caffe", source, progress=False) == kept


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTVAE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FastvaeError, match="FASTVAE_CACHE"):
        fetch("caffe", Source("http://127.0.0.1:1/vgg19.pth", "d01eb7cb", "caffe"), progress=False)


def test_known_sources_are_consistent():
    for source in download.SOURCES.values():
        prefix = source.url.rpartition("-")[2].removesuffix(".pth")
        assert source.url.startswith("https://") and source.sha256.startswith(prefix)
    assert sum(map(len, BLOCKS)) == 13
