"""The embedded data set: procedurally drawn faces, with attributes that are exact because they determine the drawing.

A face is drawn in three steps, each a function of (seed, index) and the previous step: `sample_attributes` chooses its
attributes, `choose_traits` its measures and colours, and `drawing.draw` draws the pixels. Because random numbers are
addressed rather than consumed, changing one attribute leaves the rest of the face unchanged.

The bytes are the same on every machine, so that a checksum can identify the data set. IEEE 754 requires correct
rounding of + - * / and sqrt, and minimum, floor and comparisons are exact. It does not specify sin, exp, pow and tanh,
whose last bits differ between libraries and SIMD widths, and NumPy does not fix the order of a sum. So neither this
file nor `canvas` nor `drawing` uses them, and a test checks the source for that: bells are polynomials, rotations are
rational, and random numbers come from integer hashing.
"""

from collections.abc import Callable

import numpy as np

from fastvae.data.faces.canvas import Traits
from fastvae.data.faces.drawing import draw
from fastvae.errors import UsageError

# CelebA's names, in CelebA's order.
ATTRIBUTES: tuple[str, ...] = (
    "Arched_Eyebrows",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Pale_Skin",
    "Rosy_Cheeks",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Young",
)

# Version of the pixels and attributes: increase it whenever any of them changes.
VERSION = 1

# Faces per batch of `choose_traits`, which takes 15 % of the time with batches of 16.
_BATCH = 256
_SMALLEST = 8

_SKIN = ((0.99, 0.87, 0.80), (0.93, 0.76, 0.66), (0.83, 0.63, 0.50), (0.67, 0.46, 0.34), (0.45, 0.29, 0.21))
_BLACK = ((0.07, 0.06, 0.06), (0.13, 0.10, 0.09))
_BROWN = ((0.22, 0.13, 0.08), (0.34, 0.20, 0.12), (0.46, 0.30, 0.18))
_BLOND = ((0.68, 0.50, 0.28), (0.84, 0.68, 0.42), (0.92, 0.82, 0.60))
_GRAY = ((0.50, 0.49, 0.48), (0.68, 0.68, 0.68), (0.86, 0.86, 0.85))
_RED = ((0.46, 0.18, 0.08), (0.66, 0.30, 0.13))
_IRIS = ((0.20, 0.11, 0.06), (0.36, 0.21, 0.10), (0.34, 0.36, 0.18), (0.30, 0.45, 0.50), (0.28, 0.45, 0.66))
_LIPSTICK = ((0.78, 0.10, 0.16), (0.84, 0.26, 0.38), (0.62, 0.10, 0.24), (0.74, 0.20, 0.18))
_CLOTH = (
    (0.10, 0.11, 0.15),
    (0.16, 0.24, 0.42),
    (0.55, 0.14, 0.16),
    (0.88, 0.88, 0.86),
    (0.20, 0.38, 0.30),
    (0.72, 0.56, 0.62),
    (0.42, 0.42, 0.46),
)
_SCENERY = (
    (0.86, 0.86, 0.87),
    (0.55, 0.60, 0.66),
    (0.26, 0.34, 0.46),
    (0.36, 0.46, 0.34),
    (0.66, 0.54, 0.42),
    (0.46, 0.26, 0.24),
    (0.14, 0.14, 0.17),
)


def draw_faces(
    count: int,
    *,
    seed: int = 0,
    size: int = 64,
    start: int = 0,
    progress: Callable[[int], object] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws faces, framed like the crops of CelebA. Face i depends on (seed, start + i) only.

    Args:
        count: number of faces, 0 or more.
        seed: 0 or more.
        size: side of the images in pixels, 8 or more.
        start: index of the first face, 0 or more. Two calls with adjoining ranges return the same as one call.
        progress: called with the number of faces just finished, a few at a time, like `tqdm.update`.

    Returns:
        Images uint8 [N, size, size, 3], 0..255, RGB; and attributes uint8 [N, len(ATTRIBUTES)], 0 or 1.

    Raises:
        UsageError: an argument is out of range.
    """
    for name, value in (("count", count), ("seed", seed), ("start", start)):
        if value < 0:
            raise UsageError(f"{name} must be 0 or more; got {value}")
    if size < _SMALLEST:
        raise UsageError(f"size must be {_SMALLEST} or more; got {size}")
    images = np.empty((count, size, size, 3), np.uint8)
    attributes = np.empty((count, len(ATTRIBUTES)), np.uint8)
    for first in range(0, count, _BATCH):
        part = slice(first, min(first + _BATCH, count))
        indices = np.arange(start + part.start, start + part.stop, dtype=np.uint64)
        attributes[part] = sample_attributes(indices, seed=seed)
        images[part] = draw(choose_traits(attributes[part], indices, seed=seed), size)
        if progress is not None:
            progress(len(indices))
    return images, attributes


def sample_attributes(indices: np.ndarray, *, seed: int) -> np.ndarray:
    """Samples each face's attributes, about as frequent as in CelebA, without those that would be invisible.

    Args:
        indices: uint64 [N], the faces' numbers.
        seed: 0 or more.

    Returns:
        uint8 [N, len(ATTRIBUTES)], 0 or 1.
    """
    chance = _Draws(indices, seed=seed, domain=0).chance
    tone = _complexion(indices, seed=seed)
    male = chance(0.45)
    young = chance(np.where(male, 0.68, 0.84))
    hat = chance(np.where(male, 0.16, 0.09))
    bald = chance(np.where(male, np.where(young, 0.05, 0.22), 0.0)) & ~hat
    gray = chance(np.where(young, 0.01, 0.45)) & ~bald
    colored = ~bald & ~gray
    black = chance(0.12 + 0.8 * tone) & colored
    brown = chance(0.50 + 0.4 * tone) & colored & ~black
    # The rest is red, for which CelebA has no attribute.
    blond = chance(np.where(male, 0.75, 0.88)) & colored & ~black & ~brown
    # A hat hides the hair above the ears.
    styled = ~bald & ~hat
    wavy = chance(np.where(male, 0.24, 0.42)) & styled
    straight = chance(0.45) & styled & ~wavy
    bangs = chance(np.where(male, 0.10, 0.26)) & styled
    bearded = male & chance(0.36)
    goatee = chance(0.42) & bearded
    mustache = chance(np.where(bearded, 0.70, 0.10)) & male
    makeup = chance(0.48) & ~male
    values = {
        "Arched_Eyebrows": chance(np.where(male, 0.08, 0.42)),
        "Bald": bald,
        "Bangs": bangs,
        "Big_Lips": chance(0.24),
        "Big_Nose": chance(np.where(male, 0.36, 0.12)),
        "Black_Hair": black,
        "Blond_Hair": blond,
        "Brown_Hair": brown,
        "Bushy_Eyebrows": chance(np.where(male, 0.28, 0.05)),
        "Chubby": chance(0.12),
        "Eyeglasses": chance(np.where(young, 0.13, 0.30)),
        "Goatee": goatee,
        "Gray_Hair": gray,
        "Heavy_Makeup": makeup,
        "Male": male,
        "Mouth_Slightly_Open": chance(0.46),
        "Mustache": mustache,
        "Narrow_Eyes": chance(0.12) & ~makeup,
        "No_Beard": ~bearded,
        "Pale_Skin": chance(0.09),
        "Rosy_Cheeks": chance(np.where(male, 0.03, 0.16)),
        "Smiling": chance(np.where(male, 0.42, 0.54)),
        "Straight_Hair": straight,
        "Wavy_Hair": wavy,
        "Wearing_Earrings": chance(np.where(male, 0.02, 0.32)),
        "Wearing_Hat": hat,
        "Wearing_Lipstick": chance(np.where(makeup, 0.92, 0.40)) & ~male,
        "Young": young,
    }
    return np.stack([values[name] for name in ATTRIBUTES], axis=1).astype(np.uint8)


def choose_traits(attributes: np.ndarray, indices: np.ndarray, *, seed: int) -> Traits:
    """Chooses each face's measures and colours.

    Args:
        attributes: uint8 [N, len(ATTRIBUTES)], 0 or 1; from `sample_attributes`, possibly changed since.
        indices: uint64 [N], the faces' numbers.
        seed: 0 or more.

    Returns:
        Traits of N faces. Lengths are in 1/64 of the image's side.
    """
    has = {name: attributes[:, column].astype(np.float32) for column, name in enumerate(ATTRIBUTES)}
    draws = _Draws(indices, seed=seed, domain=1)
    between, bell, color, chance = draws.between, draws.bell, draws.color, draws.chance
    male, young, chubby, smile = has["Male"], has["Young"], has["Chubby"], has["Smiling"]
    makeup, wavy, straight, hat = (has[name] for name in ("Heavy_Makeup", "Wavy_Hair", "Straight_Hair", "Wearing_Hat"))
    t: dict[str, np.ndarray] = {}

    # Pose and light.
    t["shift_x"], t["shift_y"] = bell(-2.4, 2.4), bell(-1.8, 1.8)
    t["zoom"] = bell(1.0, 1.14)
    t["roll"], t["yaw"], t["pitch"] = bell(-0.13, 0.13), bell(-0.40, 0.40), bell(-1.6, 1.6)
    t["light_x"], t["light_y"], t["contrast"] = between(-0.75, 0.75), between(-0.55, -0.1), between(0.5, 1.0)
    t["exposure"], t["warmth"] = bell(0.88, 1.12), bell(-0.05, 0.05)

    # Head.
    t["cranium_w"] = bell(18.6, 20.2) + 0.5 * male
    t["cranium_h"] = bell(20.5, 22.0)
    t["jaw_w"] = bell(13.8, 16.0) + 1.3 * male + 2.4 * chubby
    t["chin_y"] = bell(26.0, 28.0) + 0.6 * male
    t["cheek"] = 0.9 + 0.5 * chubby + 0.8 * smile
    t["ear"] = bell(0.85, 1.15) + 0.1 * male
    t["neck_w"] = bell(8.8, 10.2) + 2.2 * male + 1.0 * chubby
    tone = _complexion(indices, seed=seed)
    t["skin"] = _ramp(_SKIN, np.where(has["Pale_Skin"] > 0, 0.10 * tone, 0.2 + 0.8 * tone))
    t["blush"] = 0.08 + 0.06 * (1 - male) + 0.42 * has["Rosy_Cheeks"]
    t["age"] = (1 - young) * between(0.7, 1.0)

    # Eyes and brows.
    t["eye_x"] = bell(8.4, 9.6)
    t["eye_w"] = bell(4.3, 5.1)
    opening = bell(2.3, 2.9) - 0.25 * male - 0.25 * smile
    t["eye_up"] = np.where(has["Narrow_Eyes"] > 0, 0.5 * opening, opening)
    t["eye_low"] = np.where(has["Narrow_Eyes"] > 0, 0.9, bell(1.4, 1.8) - 0.2 * smile)
    t["eye_tilt"] = bell(-0.05, 0.16)
    t["iris"] = _ramp(_IRIS, between(0.0, 1.0) * (1 - 0.85 * np.clip(2 * tone - 0.3, 0, 1)))
    t["iris_r"] = bell(2.0, 2.35)
    t["gaze_x"], t["gaze_y"] = bell(-1.3, 1.3), bell(-0.40, 0.40)
    t["lash"] = 0.45 + 0.25 * (1 - male) + 0.45 * makeup
    t["shadow"] = makeup * between(0.45, 0.75)
    t["shadow_rgb"] = color(((0.35, 0.22, 0.24), (0.30, 0.26, 0.42), (0.40, 0.26, 0.18)))
    t["brow_y"] = bell(-7.0, -5.8) + 0.3 * male - 0.6 * has["Arched_Eyebrows"]
    t["brow_h"] = bell(0.55, 0.85) + 0.2 * male + 0.5 * has["Bushy_Eyebrows"]
    t["brow_arch"] = bell(0.35, 0.8) + 0.9 * has["Arched_Eyebrows"]
    t["brow_slope"] = bell(-0.10, 0.06)

    # Nose and mouth.
    t["nose_y"] = bell(10.6, 12.0)
    t["nose_w"] = bell(2.7, 3.4) + 0.3 * male + 1.0 * has["Big_Nose"]
    t["nose_h"] = bell(0.9, 1.15) + 0.35 * has["Big_Nose"]
    t["mouth_y"] = bell(17.2, 18.6)
    t["mouth_w"] = bell(5.6, 6.8) + 0.4 * male + 1.6 * smile
    t["lift"] = np.where(smile > 0, between(1.7, 2.9), between(-0.5, 0.3))
    t["smile"] = smile
    t["lip_up"] = bell(0.95, 1.35) - 0.15 * male + 0.75 * has["Big_Lips"]
    t["lip_low"] = bell(1.3, 1.8) - 0.15 * male + 1.1 * has["Big_Lips"]
    t["gap"] = has["Mouth_Slightly_Open"] * (between(1.0, 2.0) + 0.3 * smile)
    t["teeth"] = between(0.35, 0.8) + 0.3 * smile
    natural = (
        t["skin"] * np.array([0.90, 0.66, 0.64], np.float32)[:, None] + np.array([0.02, 0.0, 0.01], np.float32)[:, None]
    )
    stick = 0.92 * has["Wearing_Lipstick"]
    t["lips"] = natural + (_ramp(_LIPSTICK, between(0.0, 1.0)) - natural) * stick

    # Hair.
    shade = between(0.0, 1.0)
    hair = _ramp(_RED, shade)
    for name, stops in (
        ("Black_Hair", _BLACK),
        ("Brown_Hair", _BROWN),
        ("Blond_Hair", _BLOND),
        ("Gray_Hair", _GRAY),
    ):
        hair = np.where(has[name] > 0, _ramp(stops, shade), hair)
    t["hair"] = hair
    t["haired"] = 1 - has["Bald"]
    # Bald men have beards of some brown.
    t["beard_rgb"] = np.where(has["Bald"] > 0, _ramp(_BROWN, shade), hair * np.float32(0.85))
    t["brow_rgb"] = t["beard_rgb"] * 0.62 + t["skin"] * 0.12
    long_u = between(0.0, 1.0)
    long = np.where(male > 0, long_u > 0.93, long_u > 0.16)
    t["long"] = long.astype(np.float32) * t["haired"]
    t["hair_end"] = np.where(long_u > 0.55, between(30.0, 44.0), between(16.0, 30.0))
    t["volume"] = bell(1.4, 4.6) + 1.4 * wavy + 0.6 * t["long"] - 0.8 * straight
    t["curtain"] = bell(20.5, 23.5) + 2.4 * wavy - 0.6 * straight
    t["wave"] = np.where(wavy > 0, between(0.9, 1.6), (1 - straight) * between(0.2, 0.4))
    t["wave_period"] = between(9.0, 15.0)
    t["wave_phase"] = between(0.0, 1.0)
    t["gloss"] = between(0.25, 0.6) + 0.3 * straight
    t["flare"] = between(-0.12, 0.10) + 0.06 * wavy
    t["parted"] = (chance(np.where(long, 0.8, np.where(male > 0, 0.35, 0.65)))).astype(np.float32)
    t["recede"] = male * (1 - young) * between(0.5, 3.0)
    t["hairline"] = bell(-16.2, -13.2) - 1.6 * male * (1 - young) + 1.5 * hat
    t["opening"] = bell(16.2, 18.2) + 1.0 * male
    t["part"] = between(-0.55, 0.55)
    t["sideburn"] = between(-2.0, 5.0)
    t["bangs"] = has["Bangs"] * t["haired"]
    t["bangs_y"] = bell(-8.6, -5.4)
    t["bangs_slope"] = between(-0.16, 0.16)

    # Beard.
    t["mustache"], t["goatee"] = has["Mustache"], has["Goatee"]
    t["beard"] = (1 - has["No_Beard"]) * (1 - has["Goatee"])
    t["beard_alpha"] = between(0.72, 0.96)

    # Accessories.
    t["glasses"] = has["Eyeglasses"]
    t["sun"] = (chance(0.3) & (makeup + has["Narrow_Eyes"] == 0)).astype(np.float32)
    t["frame_rgb"] = color(((0.05, 0.05, 0.06), (0.30, 0.16, 0.08), (0.10, 0.12, 0.25), (0.55, 0.50, 0.45)))
    t["frame_h"] = between(0.42, 0.85)
    t["lens_w"], t["lens_h"], t["lens_round"] = bell(6.2, 7.4), bell(4.3, 5.6), between(0.35, 1.0)
    t["earring"] = has["Wearing_Earrings"]
    t["earring_rgb"] = color(((0.95, 0.83, 0.42), (0.90, 0.91, 0.94), (0.88, 0.30, 0.34)))
    t["earring_r"] = between(1.3, 2.0)
    t["hat"] = hat
    style = between(0.0, 1.0)
    t["cap"], t["brimmed"] = (style < 0.42).astype(np.float32), (style > 0.74).astype(np.float32)
    t["hat_rgb"], t["hat_trim"] = color(_CLOTH), color(_CLOTH)
    t["hat_y"] = bell(-12.5, -10.0)
    t["cloth"] = color(_CLOTH)
    t["shoulder_y"], t["neckline"] = bell(25.0, 29.5), between(0.04, 0.14)

    # Background.
    t["far"], t["near"], t["blob"] = color(_SCENERY), color(_SCENERY), color(_SCENERY)
    t["slope_x"], t["slope_y"] = between(-1.0, 1.0), between(-1.0, 1.0)
    t["blob_x"], t["blob_y"], t["blob_r"] = between(-30, 30), between(-32, 10), between(12, 30)
    t["glow_x"], t["glow_y"], t["glow_r"] = between(-32, 32), between(-32, 32), between(8, 24)
    t["edge"], t["edge_x"] = chance(0.22).astype(np.float32), between(-26, 26)
    # [N] -> [N, 1, 1] and [3, N] -> [3, N, 1, 1], to be broadcast over pixels.
    return Traits(**{name: value.astype(np.float32)[..., None, None] for name, value in t.items()})


def _complexion(indices: np.ndarray, *, seed: int) -> np.ndarray:
    """How dark the skin is, float32 [N] in 0..1. Chosen before the attributes, since hair and eyes depend on it."""
    unit = _Draws(indices, seed=seed, domain=2).between(0.0, 1.0)
    return unit * (0.3 + 0.7 * unit)


class _Draws:
    """Random numbers addressed by (seed, domain, index, number of previous draws): SplitMix64 as a hash.

    A generator object for each face would be as independent, but could not serve many faces in one operation.
    """

    def __init__(self, indices: np.ndarray, *, seed: int, domain: int):
        key = np.random.SeedSequence(seed, spawn_key=(domain,)).generate_state(1, np.uint64)
        self._stream = _mix(_mix(indices + key) ^ key)
        self._asked = 0

    def between(self, low: float, high: float) -> np.ndarray:
        """Uniform float32 [N] in [low, high)."""
        self._asked += 1
        step = np.uint64(self._asked * 0x9E3779B97F4A7C15 % 2**64)
        unit = (_mix(self._stream + step) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
        return np.float32(low) + np.float32(high - low) * unit

    def bell(self, low: float, high: float) -> np.ndarray:
        """Bell-shaped float32 [N] in [low, high): the mean of three uniform ones."""
        third = [self.between(low, high) for _ in range(3)]
        return (third[0] + third[1] + third[2]) * np.float32(1 / 3)

    def chance(self, probability: float | np.ndarray) -> np.ndarray:
        """Bool [N], true with the given probability."""
        return self.between(0.0, 1.0) < probability

    def color(self, palette: tuple[tuple[float, float, float], ...]) -> np.ndarray:
        """A colour float32 [3, N] near one of the palette."""
        stops = np.array(palette, np.float32).T
        chosen = stops[:, np.floor(self.between(0.0, len(palette))).astype(np.int64)]
        tint = np.stack([self.between(-0.05, 0.05) for _ in range(3)])
        return np.clip(chosen + tint + self.between(-0.08, 0.08), 0.02, 0.98)


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer, on uint64, modulo 2^64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _ramp(stops: tuple[tuple[float, float, float], ...], position: np.ndarray) -> np.ndarray:
    """Colours float32 [3, N] on the polyline through `stops`, at `position` [N] in 0..1."""
    points = np.array(stops, np.float32)[:, :, None]
    scaled = position.astype(np.float32) * np.float32(len(stops) - 1)
    rgb = points[0] + np.zeros_like(scaled)
    for segment in range(len(stops) - 1):
        rgb = rgb + np.clip(scaled - segment, 0, 1) * (points[segment + 1] - points[segment])
    return rgb
