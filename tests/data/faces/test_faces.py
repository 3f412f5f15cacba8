"""The embedded faces: same bytes everywhere, attributes that are what is drawn, and arguments that are checked."""

import ast
import hashlib
import inspect

import numpy as np
import pytest

from fastvae.data.faces import canvas as face_canvas
from fastvae.data.faces import drawing as face_drawing
from fastvae.data.faces import faces
from fastvae.data.faces.faces import ATTRIBUTES, choose_traits, draw_faces, sample_attributes
from fastvae.errors import UsageError

HAIR_COLORS = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")
# All a correct IEEE 754 implementation must agree on, and functions that only move, pick or create values.
REPRODUCIBLE = {
    *("abs", "ceil", "clip", "copysign", "floor", "maximum", "minimum", "sqrt", "where"),
    *("arange", "array", "empty", "empty_like", "flatnonzero", "moveaxis", "stack", "zeros_like"),
    *("float32", "int64", "uint8", "uint64", "ndarray", "random"),
}
# Rows (first, last) of a 64x64 picture where an attribute may change pixels, and how many it must change visibly.
# Colours of hair show in brows too, a hat presses all hair flat, and sex and age show all over the face.
CHANGES = {
    "Arched_Eyebrows": (16, 38, 30),
    "Bald": (0, 64, 400),
    "Bangs": (4, 36, 200),
    "Big_Lips": (42, 64, 15),
    "Big_Nose": (23, 54, 20),
    "Black_Hair": (0, 64, 400),
    "Blond_Hair": (0, 64, 400),
    "Brown_Hair": (0, 64, 400),
    "Bushy_Eyebrows": (16, 38, 30),
    "Chubby": (16, 64, 60),
    "Eyeglasses": (20, 47, 200),
    "Goatee": (48, 64, 40),
    "Gray_Hair": (0, 64, 400),
    "Heavy_Makeup": (20, 41, 25),
    "Male": (0, 64, 300),
    "Mouth_Slightly_Open": (42, 64, 25),
    "Mustache": (39, 60, 25),
    "Narrow_Eyes": (20, 41, 40),
    "No_Beard": (21, 64, 200),
    "Pale_Skin": (6, 64, 800),
    "Rosy_Cheeks": (31, 53, 30),
    "Smiling": (20, 64, 60),
    "Straight_Hair": (0, 64, 150),
    "Wavy_Hair": (0, 64, 200),
    "Wearing_Earrings": (35, 56, 15),
    "Wearing_Hat": (0, 64, 500),
    "Wearing_Lipstick": (43, 62, 10),
    "Young": (0, 64, 25),
}


def column(attributes: np.ndarray, name: str) -> np.ndarray:
    return attributes[:, ATTRIBUTES.index(name)]


def render(attributes: np.ndarray, *, size: int = 64) -> np.ndarray:
    indices = np.arange(len(attributes), dtype=np.uint64)
    return face_drawing.draw(choose_traits(attributes, indices, seed=0), size)


@pytest.fixture(scope="module")
def plain() -> tuple[np.ndarray, np.ndarray]:
    """Attributes and pictures of 48 faces on which nothing hides anything."""
    attributes = sample_attributes(np.arange(48, dtype=np.uint64), seed=0)
    bare = (*HAIR_COLORS, "Bald", "Bangs", "Eyeglasses", "Goatee", "Mustache", "Straight_Hair", "Wavy_Hair")
    for name in (*bare, "Wearing_Hat", "Wearing_Earrings"):
        column(attributes, name)[:] = 0
    column(attributes, "No_Beard")[:] = 1
    return attributes, render(attributes)


def test_bytes_are_pinned():
    # Whoever changes these gives the next number to VERSION, which checkpoints remember.
    assert faces.VERSION == 1
    images, attributes = draw_faces(24, seed=7)
    assert (
        hashlib.sha256(images.tobytes()).hexdigest()
        == "448650a8a34a06191a9a2d0858f0f6ae9ef5840650bc4f33b41bceffe6fb574d"
    )
    assert (
        hashlib.sha256(attributes.tobytes()).hexdigest()
        == "dac1de006db8d2588881ca9c0b70fb26703b75c79da71b4f9eff1b33818a933f"
    )


@pytest.mark.parametrize("module", [face_canvas, face_drawing, faces], ids=lambda module: module.__name__)
def test_only_reproducible_operations(module):
    tree = ast.parse(inspect.getsource(module))
    called = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "np"
    }
    assert called <= REPRODUCIBLE
    methods = {
        node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert not methods & {"sum", "mean", "dot", "prod", "std", "var", "cumsum", "normal"}
    powers = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow)]
    assert all(isinstance(node.left, ast.Constant) for node in powers)
    assert not any(isinstance(node, ast.MatMult) for node in ast.walk(tree))


def test_a_face_depends_on_seed_and_index_only(monkeypatch):
    images, attributes = draw_faces(40, seed=3)
    monkeypatch.setattr(faces, "_BATCH", 7)
    monkeypatch.setattr(face_drawing, "_CHUNK_PIXELS", 5 * 64 * 64)
    first, second = draw_faces(17, seed=3), draw_faces(23, seed=3, start=17)
    np.testing.assert_array_equal(np.concatenate([first[0], second[0]]), images)
    np.testing.assert_array_equal(np.concatenate([first[1], second[1]]), attributes)


def test_seeds_and_faces_differ():
    images = np.concatenate([draw_faces(64, seed=0)[0], draw_faces(64, seed=1)[0]])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


def test_windows_cut_nothing_off(monkeypatch):
    images, _ = draw_faces(128, seed=11)
    cut = face_canvas.Scene.cut
    monkeypatch.setattr(face_canvas.Scene, "cut", lambda scene, box: cut(scene, face_canvas.ALL))
    np.testing.assert_array_equal(draw_faces(128, seed=11)[0], images)


@pytest.mark.parametrize("size", [8, 28, 64, 128])
def test_form_at_every_size(size):
    images, attributes = draw_faces(3, size=size)
    assert images.shape == (3, size, size, 3)
    assert attributes.shape == (3, len(ATTRIBUTES))
    assert images.dtype == attributes.dtype == np.uint8
    assert set(np.unique(attributes)) <= {0, 1}
    assert images.min() < 60
    assert images.max() > 180


def test_sizes_show_the_same_faces():
    large, attributes = draw_faces(16, size=128)
    small, same_attributes = draw_faces(16, size=64)
    np.testing.assert_array_equal(attributes, same_attributes)
    halved = large.astype(np.float64).reshape(16, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(halved - small).mean() < 4


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attribute_is_what_is_drawn(plain, name):
    attributes, images = plain
    flipped = attributes.copy()
    column(flipped, name)[:] ^= 1
    change = np.abs(render(flipped).astype(int) - images).max(-1)
    top, bottom, pixels = CHANGES[name]
    assert change[:, :top].max(initial=0) == 0
    assert change[:, bottom:].max(initial=0) == 0
    assert (change > 6).sum((1, 2)).min() >= pixels


def test_sunglasses_never_hide_an_attribute():
    attributes = sample_attributes(np.arange(3000, dtype=np.uint64), seed=0)
    dark = choose_traits(attributes, np.arange(3000, dtype=np.uint64), seed=0).sun[:, 0, 0] > 0
    assert dark.any()
    assert not column(attributes, "Narrow_Eyes")[dark].any()
    assert not column(attributes, "Heavy_Makeup")[dark].any()


def test_attributes_agree_with_each_other():
    attributes = sample_attributes(np.arange(20_000, dtype=np.uint64), seed=5)
    has = {name: column(attributes, name).astype(bool) for name in ATTRIBUTES}
    styles = ("Straight_Hair", "Wavy_Hair", "Bangs")
    assert sum(has[name].astype(int) for name in HAIR_COLORS).max() == 1
    assert not (has["Straight_Hair"] & has["Wavy_Hair"]).any()
    assert not any((has["Bald"] & has[name]).any() for name in (*HAIR_COLORS, *styles, "Wearing_Hat"))
    assert not any((has["Wearing_Hat"] & has[name]).any() for name in styles)
    assert not (has["Goatee"] & has["No_Beard"]).any()
    assert not ((has["Mustache"] | ~has["No_Beard"] | has["Bald"]) & ~has["Male"]).any()


def test_attributes_are_about_as_frequent_as_in_life():
    attributes = sample_attributes(np.arange(20_000, dtype=np.uint64), seed=5)
    frequency = dict(zip(ATTRIBUTES, attributes.mean(0), strict=True))
    assert min(frequency.values()) > 0.03
    for name, low, high in (
        ("Male", 0.43, 0.47),
        ("Smiling", 0.44, 0.52),
        ("Eyeglasses", 0.14, 0.20),
        ("Wearing_Hat", 0.10, 0.14),
        ("Mustache", 0.10, 0.16),
        ("Young", 0.72, 0.80),
    ):
        assert low <= frequency[name] <= high, name


def test_progress_counts_every_face():
    done = []
    draw_faces(300, size=16, progress=done.append)
    assert sum(done) == 300
    assert len(done) > 1


def test_no_faces():
    images, attributes = draw_faces(0)
    assert images.shape == (0, 64, 64, 3)
    assert attributes.shape == (0, len(ATTRIBUTES))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": -1}, "count must be 0 or more; got -1"),
        ({"count": 1, "seed": -2}, "seed must be 0 or more; got -2"),
        ({"count": 1, "start": -3}, "start must be 0 or more; got -3"),
        ({"count": 1, "size": 0}, "size must be 8 or more; got 0"),
        ({"count": 1, "size": 7}, "size must be 8 or more; got 7"),
    ],
    ids=["count", "seed", "start", "size-0", "size-7"],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(UsageError, match=message):
        draw_faces(**arguments)
