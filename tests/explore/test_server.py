"""The server's answers over real HTTP, and what it refuses."""

import base64
import http.client
import io
import json
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image

from fastvae.cli import main
from fastvae.errors import FastvaeError, UsageError
from fastvae.explore.requests import MAX_BYTES
from fastvae.explore.server import Server
from fastvae.explore.sliders import NoSliders, make_sliders
from fastvae.pictures import to_pixels
from fastvae.runs.draws import numbered_images, numbered_latents
from tests.conftest import blobs


def ask(server, path, body=None, kind="application/json", **headers):
    """(status, content type, body) of an answer."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    request = urllib.request.Request(server.url + path, data, {"Content-Type": kind, **headers})
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read()


def refusal(server, path, body, **options):
    status, _, said = ask(server, path, body, **options)
    return status, json.loads(said)["error"]


def png(pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pixels_of(body: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))


def decoded(vae, z):
    with torch.no_grad():
        return to_pixels(vae.decode(torch.tensor(z, dtype=torch.float32)[None]))[0]


def test_the_page_and_its_files(server):
    for path, kind, words in (
        ("", "text/html", b"fastvae explore"),
        ("explore.js", "text/javascript", b"decode"),
        ("style.css", "text/css", b"color"),
    ):
        status, found, body = ask(server, path)
        assert status == 200 and found.startswith(kind) and words in body
        assert b"http://" not in body and b"https://" not in body  # nothing from elsewhere
    for path in ("nothing", "../server.py", "%2e%2e/server.py", "page/index.html"):
        assert ask(server, path)[0] == 404


def test_metadata_names_the_sliders(server):
    metadata = json.loads(ask(server, "metadata")[2])
    assert metadata["image_size"] == 32 and metadata["latent"] == 4
    assert [slider["name"] for slider in metadata["sliders"]] == ["Male", "Smiling", "Blurry"]


def test_an_upload_becomes_its_mean(server, vae):
    image = blobs(1, 32)[0]
    status, _, body = ask(server, "encode", png(image), "application/octet-stream")
    found = json.loads(body)
    with torch.no_grad():
        mean = vae.encode(torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1)[0][0]
    assert status == 200 and np.allclose(found["z"], mean, atol=1e-4)
    shown = base64.b64decode(found["original"].removeprefix("data:image/png;base64,"))
    assert np.array_equal(pixels_of(shown), image)


def test_a_draw_is_that_of_generate(server, vae):
    z = json.loads(ask(server, "random", {"seed": 7})[2])["z"]
    assert z == numbered_latents(7, [0], 4)[0].tolist()
    status, _, drawn = ask(server, "decode", {"z": z})
    ((_, image),) = numbered_images(vae, 7, [0])
    assert status == 200 and np.abs(pixels_of(drawn).astype(int) - image).max() <= 1


def test_a_picture_is_the_mixture_and_the_attributes(server, vae, sliders):
    z, second = [0.5, -1.0, 2.0, 0.1], [1.0, 1.0, -1.0, 0.0]
    directions = {slider.name: slider.direction for slider in sliders}
    wanted = 0.75 * np.array(z) + 0.25 * np.array(second) + 1.5 * directions["Smiling"] - 2 * directions["Male"]
    body = {"z": z, "second": second, "mix": 0.25, "strengths": {"Smiling": 1.5, "Male": -2}}
    status, kind, found = ask(server, "decode", body)
    assert (status, kind) == (200, "image/png")
    assert np.abs(pixels_of(found).astype(int) - decoded(vae, wanted)).max() <= 1
    assert np.abs(pixels_of(ask(server, "decode", {"z": z})[2]).astype(int) - decoded(vae, z)).max() <= 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"z": [1, 2]}, "z has 2 numbers and this model expects 4"),
        ({"z": "abcd"}, "z must be a list of 4 numbers"),
        ({"z": [0, 0, 0, 1e39]}, "finite"),
        ({"z": [0] * 4, "mix": 2}, "mix must be a number from 0 to 1"),
        ({"z": [0] * 4, "strengths": {"Smiling": 3}}, "Smiling must be a number from -2 to 2"),
        ({"z": [0] * 4, "strengths": {"Young": 1}}, "no slider 'Young'"),
        (b"[1]", "JSON object"),
        (b"[" * 100_000, "JSON object"),
    ],
)
def test_requests_that_make_no_sense_are_refused_in_words(server, body, words):
    status, said = refusal(server, "decode", body)
    assert status == 400 and words in said


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"no picture", "could not be read as a picture"),
        (b"", "could not be read"),
        (png(blobs(1, 32)[0])[:100], "could not be read"),
    ],
)
def test_broken_uploads_are_refused_in_words(server, body, words):
    status, said = refusal(server, "encode", body, kind="application/octet-stream")
    assert status == 400 and words in said


def test_a_picture_of_too_many_pixels_is_not_decoded(server):
    huge = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(huge, "PNG")
    status, said = refusal(server, "encode", huge.getvalue(), kind="application/octet-stream")
    assert status == 400 and "far too many pixels; the limit is 50 million" in said


def test_too_large_and_of_another_type(server):
    status, said = refusal(server, "encode", bytes(MAX_BYTES + 1), kind="application/octet-stream")
    assert status == 413 and "the limit is 20 MB" in said
    assert refusal(server, "decode", {"z": [0] * 4}, kind="text/plain")[0] == 415  # what a form could send
    assert refusal(server, "nowhere", {})[0] == 404


def test_a_name_that_was_made_to_mean_this_machine_is_refused(server):
    status, said = refusal(server, "decode", {"z": [0] * 4}, Host="evil.example")
    assert status == 403 and "only for this machine" in said
    for name in ("localhost", "127.0.0.1", "[::1]"):
        assert ask(server, "metadata", Host=f"{name}:{server.server_port}")[0] == 200


def test_a_request_without_a_length(server):
    connection = http.client.HTTPConnection(*server.server_address, timeout=300)
    connection.putrequest("POST", "/decode")
    connection.endheaders()
    assert connection.getresponse().status == 411


def test_it_listens_on_this_machine_alone_and_says_when_a_port_is_taken(server):
    assert server.server_address[0] == "127.0.0.1" and server.local
    with pytest.raises(FastvaeError, match=r"port \d+ of 127.0.0.1 is not available .*--port 0"):
        Server("127.0.0.1", server.server_port)
    with pytest.raises(UsageError, match="is not an address of this machine"):
        Server("no such host", 0)
    with pytest.raises(UsageError, match=r"--host 192\.0\.2\.1 is not an address of this machine"):
        Server("192.0.2.1", 0)  # of nobody's machine: RFC 5737


def test_sliders_that_cannot_be(vae, packed, faces):
    fast = vae.accelerate()
    with pytest.raises(FastvaeError, match="has no attributes"):
        make_sliders(fast, str(packed.path), (), trained_on=None)
    with pytest.raises(NoSliders, match="do not exist"):
        make_sliders(fast, None, (), trained_on="/nowhere/celeba64.fvae")
    with pytest.raises(UsageError, match="--attributes needs a data set"):
        make_sliders(fast, None, ("Smiling",), trained_on=None)
    with pytest.raises(UsageError, match="no attribute 'Smilling', did you mean 'Smiling'"):
        make_sliders(fast, str(faces.path), ("Smilling",), trained_on=None)
    assert [s.name for s in make_sliders(fast, None, (), trained_on=str(faces.path))] == ["Male", "Smiling", "Blurry"]


def test_the_command_serves_until_it_is_stopped(run, faces, monkeypatch, capsys):
    def stop(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", stop)
    assert main(["explore", str(run), "--data", str(faces.path), "--port", "0", "--no-open"]) == 130
    assert "exploring" in (said := capsys.readouterr()).out and "http://127.0.0.1:" in said.out
    assert main(["explore", str(run), "--port", "0", "--no-open", "--host", "0.0.0.0"]) == 130
    said = capsys.readouterr().err
    assert "there is no password" in said and "no sliders" in said
