"""What the figures show, against the same computed in plain numpy or by the module's own verbs."""

import numpy as np
import pytest
import torch

from fastvae.data.packed import PackedImages
from fastvae.errors import FastvaeError, UsageError
from fastvae.figures import attributes, interpolation, map, originals, reconstructions, samples
from fastvae.inference.attribute_vectors import choose_attributes
from fastvae.pictures import to_images, to_pixels
from fastvae.runs.open import open_runs


def decoded(vae, z: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return to_pixels(vae.decode(torch.from_numpy(z).float()))


def means(vae, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return vae.encode(to_images(torch.from_numpy(pixels)))[0].numpy()


def near(a: np.ndarray, b: np.ndarray) -> bool:
    """The same but for the rounding of single pixels, which batches of another size may turn."""
    return np.abs(a.astype(int) - b).max() <= 1 and (a != b).mean() < 0.01


def test_samples_of_all_runs_come_from_the_same_draws(models):
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(3)).numpy()
    drawn = [samples.sample(run.model, 6, 3) for run in open_runs(models)]
    for run, pixels in zip(open_runs(models), drawn, strict=True):
        assert near(pixels, decoded(run.model, z))
    assert not near(drawn[0], drawn[1]) and not near(drawn[0], samples.sample(open_runs(models)[0].model, 6, 4))


def test_interpolation_goes_from_one_reconstruction_to_the_other(vae, faces):
    left, right = faces.images[[40, 41, 42]], faces.images[[43, 44, 45]]
    rows = interpolation.interpolate(vae, left, right)
    assert rows.shape == (3, 11, 32, 32, 3)
    assert near(rows[:, 0], reconstructions.reconstruct(vae, left))
    assert near(rows[:, 10], reconstructions.reconstruct(vae, right))
    assert not near(rows[:, 0], rows[:, 10])
    assert near(rows[:, 3], decoded(vae, 0.7 * means(vae, left) + 0.3 * means(vae, right)))


def test_manipulation_starts_at_the_reconstruction_and_adds_the_direction(vae, faces):
    pixels, directions = faces.images[[40, 41]], np.array([[1, 0, 0, 0], [0, 2, -1, 0]], np.float32)
    rows = attributes.manipulate(vae, pixels, directions)
    assert near(rows[:, 0], reconstructions.reconstruct(vae, pixels))
    assert near(rows[:, 10], decoded(vae, means(vae, pixels) + directions))
    assert not near(rows[:, 0], rows[:, 10])
    assert near(attributes.manipulate(vae, pixels, directions, 2.0)[:, 5], rows[:, 10])


def test_psnr_by_hand():
    originals, fakes = np.full((2, 1, 1, 3), 100, np.uint8), np.full((2, 1, 1, 3), 100, np.uint8)
    fakes[0], fakes[1, 0, 0, 0] = 110, 70  # mean squared errors 100 and 300
    expected = (10 * np.log10(255**2 / 100) + 10 * np.log10(255**2 / 300)) / 2
    assert reconstructions.mean_psnr_db(originals, fakes) == pytest.approx(expected, rel=1e-5)
    assert reconstructions.mean_psnr_db(originals, originals) > 150


def test_names_are_the_papers_first_then_those_that_vary(faces):
    assert choose_attributes(faces, []) == ["Smiling", "Bright"]  # Always and Rare do not vary
    assert choose_attributes(faces, ["Rare", "Bright", "Rare"]) == ["Rare", "Bright"]


def test_originals_lack_the_attribute_are_held_out_and_differ(faces):
    chosen = attributes.images_without(faces, ["Smiling", "Bright", "Rare"], seed=1)
    assert len(set(chosen)) == 3 and (chosen >= 40).all()
    columns = [faces.attribute_names.index(name) for name in ("Smiling", "Bright", "Rare")]
    assert (faces.attributes[chosen, columns] == 0).all()
    assert (chosen == attributes.images_without(faces, ["Smiling", "Bright", "Rare"], seed=1)).all()
    with pytest.raises(FastvaeError, match="every held-out image has the attribute Always"):
        attributes.images_without(faces, ["Always"], seed=0)


def test_a_choice_is_seeded_and_without_repetition():
    first = originals.sample(np.arange(100, 120), 10, 0, "images")
    assert len(set(first)) == 10 and first.min() >= 100
    assert (first == originals.sample(np.arange(100, 120), 10, 0, "images")).all()
    assert (first != originals.sample(np.arange(100, 120), 10, 1, "images")).any()


def test_a_small_map_by_hand():
    points = np.array([[5, -1], [-5, 1], [5, 1], [-5, -1]], float)  # lower right, upper left, upper right, lower left
    assert map.assign(points, 2).tolist() == [1, 2, 3, 0]
    assert map.cells(2).tolist() == [[0, 1], [1, 1], [0, 0], [1, 0]]


def test_the_assignment_is_a_permutation_and_beats_random_ones():
    random = np.random.default_rng(0)
    points = random.normal(size=(49, 2))
    order = map.assign(points, 7)
    assert sorted(order) == list(range(49))

    def cost(order):
        return np.square(map.cells(7) - map.scaled(points)[order]).sum()

    assert cost(order) < min(cost(random.permutation(49)) for _ in range(50)) / 2
    swaps = [order.copy() for _ in range(200)]
    for swapped in swaps:
        i, j = random.choice(49, 2, replace=False)
        swapped[[i, j]] = swapped[[j, i]]
    assert cost(order) <= min(cost(swapped) for swapped in swaps) + 1e-9


def test_the_embedding_is_repeatable_and_keeps_clusters():
    random = np.random.default_rng(0)
    means = random.normal(size=(36, 5)).astype(np.float32)
    means[18:] += 30
    points = map.embed(means, 0)
    assert np.array_equal(points, map.embed(means, 0))
    centres = points[:18].mean(0), points[18:].mean(0)
    apart = np.linalg.norm(centres[0] - centres[1])
    assert apart > 2 * max(np.linalg.norm(part - part.mean(0), axis=1).mean() for part in (points[:18], points[18:]))
    laid = map.neighbour_ratio(means[map.assign(points, 6)], 6)
    assert laid < 0.75 < map.neighbour_ratio(means[random.permutation(36)], 6)


def test_neighbours_by_hand():
    # On a line 0, 1, 3, 7 as a 2x2 grid: neighbours 1, 4 across, 3, 6 down; pairs 1, 3, 7, 2, 6, 4.
    assert map.neighbour_ratio(np.array([[0.0], [1.0], [3.0], [7.0]]), 2) == pytest.approx((14 / 4) / (23 / 6))


def test_an_encoder_that_says_nothing_has_no_map():
    with pytest.raises(FastvaeError, match="gives every image the same mean"):
        map.embed(np.ones((9, 3), np.float32), 0)


def test_the_map_takes_held_out_images_while_they_suffice(faces: PackedImages):
    chosen, kind = map.choose(faces, 16, 0)
    assert (chosen >= 40).all() and kind == "held-out images"
    chosen, kind = map.choose(faces, 49, 0)
    assert len(set(chosen)) == 49 and (chosen < 40).any() and kind == "images of the data set"
    with pytest.raises(FastvaeError, match="needs 64 images for a map of 64 and there are 60"):
        map.choose(faces, 64, 0)


def test_unknown_attributes_are_suggested(faces, packed):
    with pytest.raises(UsageError, match="no attribute 'Smilling', did you mean 'Smiling'"):
        choose_attributes(faces, ["Smilling"])
    with pytest.raises(FastvaeError, match="has no attributes"):
        choose_attributes(packed, [])
