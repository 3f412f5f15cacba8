"""`fastvae figures` from end to end: every verb, and what it says when it cannot."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import fastvae
from fastvae import pictures as pictures_module
from fastvae.cli import main
from fastvae.figures import map as latent_map
from fastvae.figures import sheet
from fastvae.runs import open as runs
from fastvae.runs.open import open_runs


@pytest.fixture(scope="module")
def gan(packed, tmp_path_factory):
    """The folder of a GAN's run."""
    folder = tmp_path_factory.mktemp("gan") / "gan"
    flags = ["--image-size", "32", "--width", "2", "--latent", "4", "--ema", "0", "--batch-size", "8", "--steps", "1"]
    flags += ["--precision", "fp32", "--device", "cpu"]
    assert main(["train", "cifar10-dcgan", "--data", str(packed.path), "--out", str(folder), *flags]) == 0
    return folder


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((40, 32, 3), 60 * i + 40, np.uint8)).save(path)
    return paths


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn: panels, title, caption of the last sheet."""
    calls = []
    for name in ("samples", "reconstructions", "interpolation", "attributes", "map"):
        module = __import__(f"fastvae.figures.{name}", fromlist=[name])

        def kept(panels, title, caption, **layout):
            calls[:] = [panels, title, caption]
            return sheet.draw(panels, title, caption, **layout)

        monkeypatch.setattr(module, "draw", kept)
    return calls


def figure(*arguments, out) -> tuple[int, int]:
    """Draws and gives width and height."""
    assert main(["figures", *map(str, arguments), "--out", str(out)]) == 0
    with Image.open(out) as picture:
        return picture.size


def test_samples_of_vaes_and_gans(run, models, gan, tmp_path, drawn, capsys):
    size = figure("samples", run, gan, *models, "--rows", 2, "--columns", 3, "--across", 2, out=tmp_path / "s.png")
    panels, _, caption = drawn
    assert f"s.png written, {size[0]}x{size[1]} pixels" in capsys.readouterr().out
    assert [panel.pixels.shape for panel in panels] == [(2, 3, 32, 32, 3)] * 4
    assert "seed 0. The same z at the same position in every panel." in caption
    # Some come from no run, so that there is no system or recipe to tell all of them apart by.
    assert [panel.heading.text for panel in panels] == ["run", "gan", "model-0", "model-1"]
    assert panels[0].heading.note.startswith("3 steps, ") and panels[2].heading.note == ""
    figure("samples", run, gan, "--seed", 1, out=tmp_path / "s.png")
    assert [panel.heading.text for panel in drawn[0]] == ["Plain-VAE", "DCGAN"]


def test_reconstructions_of_held_out_images(run, models, faces, tmp_path, drawn):
    flags = ["--data", faces.path, "--count", 5, "--labels", "the run", "another"]
    figure("reconstructions", run, models[0], *flags, out=tmp_path / "deep" / "r.png")
    (panel,), *_ = drawn
    assert panel.pixels.shape == (3, 5, 32, 32, 3)
    assert [label.text for label in panel.rows] == ["Original", "the run", "another"]
    assert "PSNR" in panel.rows[1].note and "3 steps" in panel.rows[1].note
    held_out = faces.images[faces.held_out()]
    assert all((held_out == original).all((1, 2, 3)).any() for original in panel.pixels[0])


def test_given_pictures(models, pictures, tmp_path, drawn):
    figure("reconstructions", models[0], "--images", *pictures, out=tmp_path / "r.png")
    assert [image.mean() for image in drawn[0][0].pixels[0]] == [40, 100, 160]
    figure("interpolation", models[0], "--images", *pictures[:2], out=tmp_path / "i.png")
    left, rows, right = drawn[0]
    assert (left.pixels.mean(), right.pixels.mean()) == (40, 100) and rows.pixels.shape[:2] == (1, 11)


def test_interpolation_between_held_out_images(models, faces, tmp_path, drawn):
    figure("interpolation", models[0], "--data", faces.path, "--pairs", 2, out=tmp_path / "i.png")
    left, rows, right = (panel.pixels for panel in drawn[0])
    assert left.shape == right.shape == (2, 1, 32, 32, 3) and rows.shape == (2, 11, 32, 32, 3)
    assert drawn[0][1].columns[::5] == ["a = 0", "a = 0.5", "a = 1"]
    assert not (left == right).all((1, 2, 3, 4)).any()


def test_attributes(models, faces, pictures, tmp_path, drawn):
    figure("attributes", models[0], "--data", faces.path, "--limit", 15, out=tmp_path / "a.png")
    before, rows = drawn[0]
    assert [label.text for label in before.rows] == ["Smiling", "Bright"] and rows.pixels.shape[:2] == (2, 11)
    assert before.rows[0].note == "from 15 images with it and 15 without"
    flags = ["--names", "Bright", "--images", *pictures, "--strength", 2]
    figure("attributes", models[0], "--data", faces.path, *flags, out=tmp_path / "a.png")
    before, rows = drawn[0]
    assert [label.text for label in before.rows] == ["Bright"] * 3 and "z + a 2 z_attribute" in drawn[2]
    assert before.pixels[:, 0].mean((1, 2, 3)).tolist() == [40, 100, 160]


def test_map_shows_originals_once_each(models, faces, tmp_path, drawn):
    figure("map", models[0], "--data", faces.path, "--side", 4, out=tmp_path / "m.png")
    shown = drawn[0][0].pixels.reshape(16, -1)
    assert len(np.unique(shown, axis=0)) == 16 and "16 held-out images" in drawn[2]
    held_out = faces.images[faces.held_out()].reshape(20, -1)
    assert all((held_out == image).all(1).any() for image in shown)


def test_the_same_command_draws_the_same_picture(models, faces, tmp_path):
    for verb in (["samples", models[0]], ["map", models[0], "--data", faces.path, "--side", 3]):
        for out in ("a.png", "b.png"):
            figure(*verb, out=tmp_path / out)
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("verb", ["reconstructions", "interpolation", "attributes", "map"])
def test_a_gan_has_no_encoder(gan, faces, tmp_path, capsys, verb):
    assert main(["figures", verb, str(gan), "--data", str(faces.path), "--out", str(tmp_path / "x.png")]) == 2
    said = capsys.readouterr().err
    assert "is the run of a GAN, which has no encoder" in said and len(said.splitlines()) == 1


def test_runs_of_two_sizes(models, faces, tmp_path, capsys, drawn):
    large = tmp_path / "large"
    fastvae.VAE(48, width=2, latent=6).save_pretrained(large)
    out = tmp_path / "x.png"
    assert main(["figures", "reconstructions", str(models[0]), str(large), "--data", "faces", "--out", str(out)]) == 2
    assert "takes 48x48 pixels; give runs of one image size" in capsys.readouterr().err
    assert main(["figures", "map", str(large), "--data", str(faces.path), "--out", str(out)]) == 2
    assert "needs images of 48x48 pixels" in capsys.readouterr().err
    figure("samples", models[0], large, out=out)
    assert drawn[0][1].heading.note == "48x48 pixels" and "among models of one latent size" in drawn[2]


def test_a_multi_view_run_is_several_models(models, monkeypatch, tmp_path, capsys):
    views = {f"five/{name}": run.model for name, run in zip(("a", "b"), open_runs(models), strict=True)}
    monkeypatch.setattr(runs, "load_samplers", lambda path, **options: views)
    assert [run.name for run in open_runs([tmp_path])] == ["five/a", "five/b"]
    assert main(["figures", "map", str(tmp_path), "--data", "faces", "--out", str(tmp_path / "m.png")]) == 2
    assert "holds 2 views: name one, as in" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, words, code",
    [
        (["sample", "RUN"], "no figure 'sample', did you mean 'samples'", 2),
        (["samples"], "give one or more runs", 2),
        (["samples", "RUN", "--labels", "a", "b"], "expected a label for each of the 1 models; --labels has 2", 2),
        (["samples", "RUN", "--rows", "0"], "rows must be 1 or more; got 0", 2),
        (["samples", "RUN", "--rows", "99", "--columns", "99"], "must be 1024 or less; got 9801", 2),
        (["samples", "RUN", "--out", "x.gif"], "--out must end in .png, .jpg, .jpeg, .webp", 2),
        (["samples", "RUN", "--out", "/dev/null/x.png"], "/dev/null is not a folder that can be written into", 2),
        (["samples", "nowhere"], "nowhere", 1),
        (["reconstructions", "RUN"], "give --data", 2),
        (
            ["reconstructions", "RUN", "--data", "FACES", "--count", "21"],
            "needs 21 held-out images and there are 20",
            1,
        ),
        (["reconstructions", "RUN", "--images", "README.md"], "README.md cannot be read as an image", 1),
        (["interpolation", "RUN", "--images", "one.png"], "takes two for each row, left and right; got 1", 2),
        (
            ["attributes", "RUN", "--data", "FACES", "--names", "Smile"],
            "no attribute 'Smile', did you mean 'Smiling'",
            2,
        ),
        (["attributes", "RUN", "--data", "FACES", "--names", "Rare"], "none has the attribute Rare", 1),
        (["attributes", "RUN", "--data", "PACKED"], "has no attributes", 1),
        (["map", "RUN", "--data", "FACES", "--side", "8"], "a map of 64 and there are 60", 1),
        (["map", "RUN", "--data", "FACES", "--side", "1"], "side must be 2 to 64; got 1", 2),
        (["map", "RUN", "--data", "nowhere.fvae"], "nowhere.fvae", 1),
    ],
)
def test_what_cannot_be_drawn(models, faces, packed, flags, words, code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("words")
    names = {"RUN": str(models[0]), "FACES": str(faces.path), "PACKED": str(packed.path)}
    assert main(["figures", *(names.get(flag, flag) for flag in flags)]) == code
    said = capsys.readouterr().err
    assert words in said and len(said.splitlines()) == 1
    assert not list(tmp_path.glob("*.png"))


def test_a_picture_too_large_for_its_format_is_kept_as_png(models, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(pictures_module._FORMATS, ".webp", pictures_module._Format("WEBP", 50))
    flags = ["figures", "samples", str(models[0]), "--out", str(tmp_path / "a.webp")]
    assert main(flags) == 2
    said = capsys.readouterr().err
    assert "WEBP is limited to 50 a side" in said and f"As a PNG it is in {tmp_path / 'a.png'}" in said
    assert Image.open(tmp_path / "a.png").width > 50
    (tmp_path / "a.png").write_text("another's")
    assert main(flags) == 2 and "As a PNG" not in capsys.readouterr().err
    assert (tmp_path / "a.png").read_text() == "another's"


def test_without_scikit_learn(models, faces, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    monkeypatch.setattr(latent_map, "encode_images", None)  # nothing is encoded first
    out = tmp_path / "m.png"
    assert main(["figures", "map", str(models[0]), "--data", str(faces.path), "--side", "2", "--out", str(out)]) == 1
    assert "pip install -e '.[eval]'" in capsys.readouterr().err


def test_help_lists_the_verbs(capsys):
    assert main(["figures", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(verb in said for verb in ("samples", "reconstructions", "interpolation", "attributes", "map"))
    assert main(["figures"]) == 2


def test_help_does_not_wait_for_torch():
    ask = "import sys, fastvae.cli.figures; print([n for n in ('torch', 'sklearn', 'scipy') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stdout == "[]\n"
