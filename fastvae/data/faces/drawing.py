"""Draws faces from measures and colours: background, body, hair behind, skin, features, hair in front, accessories.

Each part is a function that paints one layer. Skin is shaded by the normals of a height field (nose, sockets,
cheeks, lips), which is what makes a drawing of 64x64 look like a photograph. Numbers in the parts are proportions
of a face in units of `face_canvas`, found by looking.
"""

import numpy as np

from fastvae.data.faces.canvas import (
    Box,
    Scene,
    Traits,
    View,
    bump,
    ellipse,
    hump,
    join,
    new_scene,
    rounded_box,
    side,
    to_bytes,
    wave,
)

# Where the parts can be, whatever the pose. They are evaluated only there, which saves a quarter of the time; a test
# checks that nothing is cut off.
_HIGH: Box = (-32, -32, 32, 12)
_LOW: Box = (-32, 10, 32, 32)
_EARS: Box = (-32, -12, 32, 26)
_CHEEKS: Box = (-28, -12, 28, 32)
_EYES: Box = (-32, -22, 32, 18)
_NOSE: Box = (-22, -16, 22, 28)
_MOUTH: Box = (-26, 2, 26, 32)
# Pixels drawn at a time. A plane of 16 faces is 256 KiB, so that those in use stay in the L2 cache.
_CHUNK_PIXELS = 16 * 64 * 64


def draw(traits: Traits, size: int) -> np.ndarray:
    """Draws N faces.

    Args:
        traits: of N faces; see `faces.choose_traits`.
        size: side of the images in pixels.

    Returns:
        uint8 [N, size, size, 3], 0..255, RGB.
    """
    count = traits.skin.shape[1]
    images = np.empty((count, size, size, 3), np.uint8)
    chunk = max(_CHUNK_PIXELS // (size * size), 1)
    for first in range(0, count, chunk):
        faces = slice(first, min(first + chunk, count))
        images[faces] = _draw_chunk(View(traits, (..., faces, slice(None), slice(None))), size)
    return images


def _draw_chunk(traits: View, size: int) -> np.ndarray:
    """`draw`, of all at once, from back to front."""
    scene = new_scene(traits, size)
    _add_outlines(scene)
    _draw_background(scene)
    _draw_clothes(scene.cut(_LOW))
    scene.where("long", _draw_back_hair)
    _draw_neck(scene.cut(_LOW))
    _draw_ears(scene.cut(_EARS))
    _model_nose(scene.cut(_NOSE))
    _model_eyes(scene.cut(_EYES))
    _model_mouth(scene.cut(_CHEEKS))
    _draw_skin(scene)
    _draw_eyes(scene.cut(_EYES))
    _draw_brows(scene.cut(_EYES))
    _draw_nostrils(scene.cut(_NOSE))
    scene.where("beard", _draw_beard, _CHEEKS)
    scene.where("goatee", _draw_goatee, _MOUTH)
    scene.where("mustache", _draw_mustache, _MOUTH)
    _draw_mouth(scene.cut(_MOUTH))
    scene.where("haired", _draw_front_hair)
    scene.where("bangs", _draw_bangs, _HIGH)
    scene.where("earring", _draw_earrings, _EARS)
    scene.where("hat", _draw_hat, _HIGH)
    scene.where("glasses", _draw_glasses, _EYES)
    return _develop(scene)


def _add_outlines(s: Scene) -> None:
    """Adds what several parts need: the outlines of head and hair, how hair sways, and the head's bare form."""
    t, p = s.traits, s.planes
    cranium = ellipse(p.hx + 1.5 * t.yaw, p.hy + 3.5, t.cranium_w, t.cranium_h)
    jaw = ellipse(p.hx - 3.0 * t.yaw, p.hy - 8.0, t.jaw_w, t.chin_y - 8.0)
    p.head = join(cranium, jaw, 7.0)
    drift = 0.024 * p.hx + 0.3 * wave(p.hx * 0.045 + t.wave_phase)
    p.sway = t.wave * wave(p.hy / t.wave_period + drift)
    top = t.volume * (1 - 0.6 * t.hat)
    flank = top * (0.4 + 0.5 * t.long)
    cap = ellipse(p.hx + 1.5 * t.yaw + 1.2 * t.part, p.hy + 3.5, t.cranium_w + flank, t.cranium_h + top)
    # Long hair falls as a rounded box from the temples down.
    width = t.curtain + t.flare * p.hy + 0.8 * p.sway
    fall = np.maximum(rounded_box(p.hx + 0.5 * t.yaw, p.hy, width, t.hair_end, 6.0), -4 - p.hy)
    p.hair = join(cap + 0.7 * p.sway * (1 - t.hat), fall + (1 - t.long) * 99, 5.0)
    p.height = -(0.026 * p.hx * p.hx + 0.010 * p.hy * p.hy)


def _draw_background(s: Scene) -> None:
    t, p = s.traits, s.planes
    blend = np.clip(0.5 + (p.x * t.slope_x + p.y * t.slope_y) * (1 / 64), 0, 1)
    s.rgb[...] = t.far + (t.near - t.far) * blend
    s.paint(t.near * 0.7, 0.8 * t.edge * s.cover((t.edge_x - p.x) * side(t.edge_x), 2.5))
    s.paint(t.blob, 0.7 * bump(p.x - t.blob_x, p.y - t.blob_y, t.blob_r, t.blob_r))
    s.paint(t.near * 0.5 + 0.5, 0.6 * bump(p.x - t.glow_x, p.y - t.glow_y, t.glow_r, t.glow_r))


def _draw_clothes(s: Scene) -> None:
    t, p = s.traits, s.planes
    light = 0.86 + p.hx * t.light_x * (1 / 90) - 0.012 * np.maximum(p.hy - 26, 0)
    s.paint(t.cloth * light, s.cover(t.shoulder_y + p.hx * p.hx * (1 / 90) - p.hy, 0.6))


def _draw_back_hair(s: Scene) -> None:
    t, p = s.traits, s.planes
    s.paint(t.hair * (0.50 + 0.10 * wave(p.hx * 0.17 + 0.4 * p.sway)), s.cover(p.hair, 0.5))


def _draw_neck(s: Scene) -> None:
    t, p = s.traits, s.planes
    x = p.hx - 1.2 * t.yaw
    flare = np.maximum(p.hy - 24, 0)
    width = t.neck_w + flare * flare * t.neckline
    across = x / t.neck_w
    light = 0.74 - 0.16 * np.minimum(across * across, 1) + 0.10 * t.light_x * across
    shadow = s.cover(ellipse(p.hx - 3.0 * t.yaw, p.hy - 10.0, t.jaw_w * 0.95, t.chin_y - 8.0), 4.0)
    s.paint(_lit_skin(s, light * (1 - 0.38 * shadow)), s.cover(np.abs(x) - width) * s.cover(14 - p.hy))


def _draw_ears(s: Scene) -> None:
    t = s.traits
    x, y = _from_ears(s)
    light = 0.80 - 0.35 * bump(x + 0.4, y, 2.0 * t.ear, 3.6 * t.ear) + 0.12 * t.light_x * side(s.planes.hx)
    s.paint(_lit_skin(s, light), s.cover(ellipse(x + 0.16 * y, y, 3.0 * t.ear, 5.4 * t.ear)))


def _from_ears(s: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates from the middle of the ears, outwards and down. Yaw brings one forward and hides the other."""
    t, p = s.traits, s.planes
    return np.abs(p.hx) - t.cranium_w - 0.6 + 3.2 * t.yaw * side(p.hx), p.hy - 4.5


def _lit_skin(s: Scene, light: np.ndarray) -> np.ndarray:
    """Skin under light of some strength: red falls less than blue, because light scatters in skin."""
    return s.traits.skin * np.stack([0.22 + 0.78 * light, 0.06 + 0.94 * light, light])


def _model_nose(s: Scene) -> None:
    t, p = s.traits, s.planes
    x, y = p.fx - 2.6 * t.yaw, p.fy - t.nose_y
    tip = 2.2 * bump(x, y + 0.8, t.nose_w + 1.2, 4.4)
    ridge = 1.6 * bump(p.fx - 1.3 * t.yaw, p.fy - 5.0, t.nose_w + 1.1, 10.0)
    wings = 1.1 * bump(np.abs(x) - t.nose_w, y - 0.9, 2.2, 2.2)
    p.height += t.nose_h * (tip + ridge + wings)


def _model_eyes(s: Scene) -> None:
    t, p = s.traits, s.planes
    sockets = -2.3 * bump(p.afx - t.eye_x + 0.8, p.fy + 0.2, 8.0, 6.0)
    brows = 0.9 * bump(p.afx - 8.0, p.fy + 8.0, 10.0, 4.5)
    p.height += sockets + brows


def _model_mouth(s: Scene) -> None:
    t, p = s.traits, s.planes
    y = p.fy - t.mouth_y
    cheeks = 1.5 * t.cheek * bump(p.afx - 11.0, p.fy - 9.0 + t.smile, 10.0, 8.0)
    lips = 0.9 * bump(p.fx, y, 9.0, 5.5) - 0.9 * bump(p.fx, y - 4.6, 6.0, 2.6)
    p.height += cheeks + lips + 1.5 * bump(p.fx, y - 8.0, 7.0, 4.6)


def _draw_skin(s: Scene) -> None:
    """Paints the head, and adds the light that falls on it as a plane, for what grows there."""
    t, p = s.traits, s.planes
    slope_x, slope_y = _slopes(p.height, s.pixel)
    steep = np.sqrt((1 + slope_x * slope_x + slope_y * slope_y) * (1 + t.light_x * t.light_x + t.light_y * t.light_y))
    facing = np.maximum((1 - slope_x * t.light_x - slope_y * t.light_y) / steep, 0)
    p.light = 1 + t.contrast * (facing * 0.9 - 0.78)
    _shade_folds(s)
    shine = facing
    for _ in range(4):
        shine = shine * shine
    color = _lit_skin(s, p.light)
    color += 0.10 * t.contrast * shine
    blush = t.blush * bump(p.afx - 12.0, p.fy - 9.0, 7.0, 5.5)
    color[1:] *= 1 - 0.4 * blush
    s.paint(color, s.cover(p.head))


def _slopes(height: np.ndarray, pixel: float) -> tuple[np.ndarray, np.ndarray]:
    """Central differences along x and y; the outermost pixels take their neighbours'."""
    slope_x, slope_y = np.empty_like(height), np.empty_like(height)
    slope_x[:, :, 1:-1] = (height[:, :, 2:] - height[:, :, :-2]) * (0.5 / pixel)
    slope_x[:, :, 0], slope_x[:, :, -1] = slope_x[:, :, 1], slope_x[:, :, -2]
    slope_y[:, 1:-1] = (height[:, 2:] - height[:, :-2]) * (0.5 / pixel)
    slope_y[:, 0], slope_y[:, -1] = slope_y[:, 1], slope_y[:, -2]
    return slope_x, slope_y


def _shade_folds(s: Scene) -> None:
    """Darkens what lies in a fold whatever the light: beside the nose, under it, under the eyes, on old foreheads."""
    t, p = s.traits, s.planes
    y = p.fy - t.nose_y
    cheek = hump(y - 3.0, 6.0) * np.maximum(1 - 0.6 * np.abs(p.afx - 6.2 - 0.30 * y), 0)
    p.light -= (0.05 + 0.17 * t.age + 0.09 * t.smile) * cheek
    p.light -= 0.05 * bump(p.afx - t.eye_x + 1.0, p.fy - 0.4, 7.5, 5.0)
    p.light -= (0.04 + 0.17 * t.age) * bump(p.afx - t.eye_x + 0.6, p.fy - 3.6, 5.0, 1.5)
    p.light -= 0.15 * t.age * hump(np.abs(p.fy + 11.6) - 1.4, 0.9) * np.clip(1.4 - p.afx * 0.12, 0, 1)
    p.light -= 0.12 * bump(p.fx - 2.6 * t.yaw, y - 2.6, t.nose_w + 2.2, 2.0)


def _draw_eyes(s: Scene) -> None:
    t, p = s.traits, s.planes
    x = p.afx - t.eye_x
    y = p.fy + t.eye_tilt * x
    u = x / t.eye_w
    upper, lower = t.eye_up * (u * u - 1), t.eye_low * (1 - u * u)
    # At the far side of a turned head the edge of the head hides a part.
    head = s.cover(p.head)
    s.paint(t.shadow_rgb, t.shadow * head * bump(x, y + 2.8, t.eye_w + 1.6, 3.4))
    crease = np.abs(y - 1.25 * upper + 1.3 - 0.3 * np.abs(u)) - 0.25
    s.paint(t.skin * 0.52, 0.5 * head * s.cover(crease, 0.5) * (np.abs(u) < 1.05))
    opening = head * s.cover(np.maximum(upper - y, y - lower))
    # The ball is round, and the lid's shadow lies on it.
    ball = 0.93 - 0.05 * u * u - 0.10 * np.maximum(1 - (y - upper) * 0.7, 0)
    s.paint(np.stack([ball, ball * 0.975, ball * 0.96]), opening)
    gaze_x, gaze_y = x - t.gaze_x * side(p.fx), y + 0.25 - t.gaze_y
    r = np.sqrt(gaze_x * gaze_x + gaze_y * gaze_y)
    iris = opening * s.cover(r - t.iris_r)
    s.paint(t.iris * (0.8 + np.clip(gaze_y * 0.2, -0.3, 0.5)), iris)
    s.paint(t.iris * 0.35, 0.8 * iris * np.clip((r - t.iris_r + 0.8) * 1.1, 0, 1))
    s.paint((0.03, 0.025, 0.03), opening * s.cover(r - 0.95))
    s.paint((0.08, 0.05, 0.05), 0.35 * opening * s.cover(y - upper - 0.5, 0.8))
    lash = np.abs(y - upper) - 0.28 - 0.25 * t.lash * (1 + u)
    ends = head * np.clip((1.22 - np.abs(u)) * 5, 0, 1)
    s.paint((0.07, 0.045, 0.04), np.minimum(t.lash + 0.25, 1) * ends * s.cover(lash, 0.2))
    s.paint(t.skin * 0.45, 0.45 * ends * s.cover(np.abs(y - lower) - 0.15, 0.3))
    spark = bump(gaze_x + 0.75 * side(p.fx), gaze_y + 0.8, 0.95, 0.95)
    s.paint((1.0, 1.0, 1.0), opening * np.minimum(spark * 1.6, 1))


def _draw_brows(s: Scene) -> None:
    t, p = s.traits, s.planes
    x = p.afx - t.eye_x
    u = (x - 0.4) * (1 / 6.6)
    curve = t.brow_arch * (1.5 * (u - 0.25) * (u - 0.25) - 0.4) + t.brow_slope * x
    thick = t.brow_h * (1.15 - 0.75 * np.maximum(u, -0.4))
    inside = np.maximum(np.abs(p.fy - t.brow_y - curve) - thick, (np.abs(u) - 1) * 5)
    s.paint(t.brow_rgb, 0.86 * s.cover(inside, 0.7) * s.cover(p.head))


def _draw_nostrils(s: Scene) -> None:
    t, p = s.traits, s.planes
    x, y = np.abs(p.fx - 2.3 * t.yaw), p.fy - t.nose_y - 1.7
    s.paint(t.skin * 0.26, 0.8 * np.minimum(1.5 * bump(x - 0.58 * t.nose_w, y, 1.5, 1.1), 1))
    wing = np.abs(x - t.nose_w - 0.9 + 0.25 * y * y) - 0.1
    s.paint(t.skin * 0.5, 0.35 * s.cover(wing, 0.9) * hump(y + 0.6, 2.4))


def _from_mouth(s: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Across the mouth, -1..1 at its corners; down from the curve where the lips meet; and 1 - across^2."""
    t, p = s.traits, s.planes
    across = (p.fx - 0.8 * t.yaw) / t.mouth_w
    arc = 1 - across * across
    return across, p.fy - t.mouth_y - t.lift * (arc - 0.55), arc


def _draw_beard(s: Scene) -> None:
    t, p = s.traits, s.planes
    u, v, _ = _from_mouth(s)
    cheek = np.maximum(p.afx - 7.5, 0)
    edge = t.mouth_y - 1.5 - 0.17 * cheek * cheek
    around_lips = bump(u * t.mouth_w, v + 1.0, t.mouth_w + 2.6, 4.4)
    shape = s.cover(edge - p.fy, 2.6) * s.cover(p.head - 1.0, 1.0) * np.clip(1 - 2.2 * around_lips, 0, 1)
    # Upwards it thins out into the hair, or into nothing on a bald head.
    _paint_whiskers(s, shape * np.clip((p.fy + 4) * 0.2, 0, 1))


def _draw_goatee(s: Scene) -> None:
    t, p = s.traits, s.planes
    _, v, _ = _from_mouth(s)
    chin = ellipse(p.fx - 0.8 * t.yaw, p.fy - t.mouth_y - 7.2, 6.4, 4.6)
    _paint_whiskers(s, s.cover(chin, 2.2) * s.cover(p.head - 1.0, 1.0) * np.clip((v - 1.5) * 0.5, 0, 1))


def _draw_mustache(s: Scene) -> None:
    t = s.traits
    u, v, _ = _from_mouth(s)
    u = u * 0.86
    middle = 1.5 * u * u - t.lip_up - t.gap * 0.6 - 1.3
    inside = np.abs(v - middle) - 1.55 * np.clip(1.15 - u * u, 0, 1) + 0.5 * hump(u, 0.2)
    _paint_whiskers(s, s.cover(inside, 1.0) * (np.abs(u) < 1.1))


def _paint_whiskers(s: Scene, shape: np.ndarray) -> None:
    t, p = s.traits, s.planes
    strands = 0.09 * wave(p.fx * 0.24 + 0.3 * wave(p.fy * 0.11)) + 0.05 * wave(p.fy * 0.19 + 0.02 * p.fx)
    s.paint(t.beard_rgb * ((1 + strands) * np.clip(p.light, 0.45, 1.2)), t.beard_alpha * shape)


def _draw_mouth(s: Scene) -> None:
    t = s.traits
    u, v, arc = _from_mouth(s)
    arc = np.maximum(arc, 0)
    open_up, open_low = 0.62 * t.gap * arc, 0.75 * t.gap * arc
    top = -t.lip_up * arc * (1 - 0.35 * hump(u, 0.28)) - open_up
    bottom = t.lip_low * arc * (0.75 + 0.25 * arc) + open_low
    lips = s.cover(np.maximum(top - v, v - bottom), 0.35) * (np.abs(u) < 1)
    s.paint(t.lips * (0.9 + 0.1 * side(v)) * np.clip(s.planes.light, 0.5, 1.25), 0.92 * lips)
    s.paint(t.lips * 0.4 + 0.6, 0.30 * bump(u * t.mouth_w, v - bottom * 0.62, t.mouth_w * 0.55, 0.9))
    hole = s.cover(np.maximum(-open_up - v, v - open_low), 0.1) * (open_up > 0.06)
    s.paint((0.20, 0.05, 0.06), hole)
    bite = (open_up + open_low) * t.teeth - open_up
    s.paint((0.93, 0.91, 0.87), 0.95 * hole * s.cover(v - bite, 0.2) * np.clip((0.92 - np.abs(u)) * 5, 0, 1))
    line = s.cover(np.abs(v) - 0.2, 0.3) * np.clip((1.03 - np.abs(u)) * 8, 0, 1)
    s.paint(t.lips * 0.30, 0.8 * (1 - hole) * line)
    s.paint(t.skin * 0.42, (0.3 + 0.3 * t.smile) * bump((np.abs(u) - 1.02) * t.mouth_w, v + 0.2, 1.5, 1.2))
    s.paint(t.skin * 0.5, 0.30 * bump(u * t.mouth_w, v - bottom - 1.1, t.mouth_w * 0.6, 1.0))


def _draw_front_hair(s: Scene) -> None:
    t, p = s.traits, s.planes
    arch = _arch(s)
    # Short hair ends in front of the ear, and higher behind it.
    ends = p.hy - t.sideburn + 1.6 * np.maximum(np.abs(p.hx) - t.cranium_w + 2.0, 0) - 99 * t.long
    ragged = 0.5 * (1 - t.parted) * wave(p.fx * 0.23 + t.wave_phase)
    outer, inner = np.maximum(p.hair, ends), ragged - arch
    s.paint(t.skin * 0.25, 0.32 * s.cover(np.maximum(outer, inner) - 1.2, 2.8) * s.cover(p.head))
    s.paint(_hair_color(s, arch, t.parted), s.cover(outer, 0.5) * s.cover(inner, 1.9 - 1.4 * t.parted))


def _arch(s: Scene) -> np.ndarray:
    """Signed distance from what the hair leaves free of the face: an ellipse above, straight sides below.

    Parted hair leaves a pointed arch that leans to the parting, hair combed back a wide one with bald temples.
    """
    t, p = s.traits, s.planes
    height = 11.0 + 4.5 * t.parted
    down = p.fy - t.hairline - height
    rise = np.minimum(down, 0)
    lean = (4.0 + 6.0 * t.parted) * t.part * (1 - t.hat)
    arch = ellipse(p.fx - lean * rise * rise * 0.006 + 0.3 * p.sway, rise, t.opening, height)
    arch -= t.recede * bump(p.afx - 9.5, p.fy - t.hairline - 1.0, 7.0, 8.0)
    return arch - 0.07 * np.maximum(down, 0)


def _hair_color(s: Scene, arch: np.ndarray | float, parted: np.ndarray | float) -> np.ndarray:
    """Hair under light: dark at its rim and in its parting, with a band of gloss around the crown.

    Strands run along the arch from a parting (parted 1), or fan out backwards from the forehead (0).
    """
    t, p = s.traits, s.planes
    fan = 7.3 * (p.hx + 1.3 * p.sway) / (np.maximum(p.hy, -40) + 48)
    along = fan + (0.13 * (arch + 0.6 * p.sway) - fan) * parted
    strands = 0.55 * wave(along + t.wave_phase) + 0.45 * wave(along * 2.2 + 0.1 * p.sway)
    light = 0.95 + 0.15 * strands + p.hx * t.light_x * (1 / 70) - 0.004 * p.hy
    light -= 0.26 * np.clip(1 + p.hair * 0.35, 0, 1) + 0.16 * np.clip(1 - arch * 0.4, 0, 1)
    root = np.abs(p.hx + 1.5 * t.yaw - 10 * t.part) - 0.15
    light -= 0.22 * parted * s.cover(root, 1.2) * np.clip(-(p.hy + 13) * 0.3, 0, 1)
    gloss = t.gloss * hump(p.hy + 18 - 0.020 * p.hx * p.hx, 6.5) * (0.7 + 0.5 * strands)
    # Gloss brightens dark hair by adding light; light hair has little room for that.
    return t.hair * (light + 0.4 * gloss) + (1 - t.hair) * (0.14 * gloss)


def _draw_bangs(s: Scene) -> None:
    t, p = s.traits, s.planes
    tips = 0.9 * wave(p.fx * 0.16 + t.wave_phase) + 0.5 * wave(p.fx * 0.37)
    below = p.fy - t.bangs_y - t.bangs_slope * p.fx + 0.006 * p.fx * p.fx - tips
    outline = np.maximum(np.maximum(below, _arch(s) - 2.0), p.hair)
    s.paint(t.skin * 0.25, 0.35 * s.cover(outline - 1.2, 2.4) * s.cover(p.head))
    s.paint(_hair_color(s, 9.0, 0.0) * (1 - 0.05 * np.clip(below + 5, 0, 5)), s.cover(outline, 0.5))


def _draw_earrings(s: Scene) -> None:
    t = s.traits
    x, y = _from_ears(s)
    x, y = x + 0.8, y - 5.7 - t.earring_r
    edge = np.sqrt(x * x + y * y) - t.earring_r
    s.paint(t.earring_rgb * 0.35, 0.5 * s.cover(edge - 0.5, 0.6))
    s.paint(t.earring_rgb * (1.0 - np.clip(y * 0.18, -0.14, 0.35)), s.cover(edge))
    s.paint((1.0, 1.0, 1.0), 0.9 * bump(x + 0.5, y + 0.6, 1.0, 1.0))


def _draw_hat(s: Scene) -> None:
    """A beanie with a cuff, a cap with a visor, or a hat with a brim all around."""
    t, p = s.traits, s.planes
    beanie = 1 - t.cap - t.brimmed
    x = p.hx + 1.5 * t.yaw
    above = t.hat_y + 0.005 * p.fx * p.fx - p.fy
    across = x * (1 / 22)
    light = 0.86 - 0.34 * across * across + 0.30 * t.light_x * across + 0.010 * above
    ribs = beanie * wave(p.fx * 0.26)
    shaded = np.maximum(-above - 6.0 + 3.4 * beanie, above)
    s.paint(t.skin * 0.18, 0.42 * s.cover(shaded, 3.5) * s.cover(p.head + 0.5))
    dome = ellipse(x, p.fy - t.hat_y - 2, t.cranium_w + 1.9, 29.5 + t.hat_y + 2.0 * t.brimmed)
    dome = np.maximum(dome, -above)
    seam = t.cap * np.maximum(1 - p.afx, 0)
    s.paint(t.hat_rgb * (light + 0.07 * ribs - 0.16 * seam), s.cover(dome))
    s.paint(t.hat_rgb * 0.4, 0.45 * beanie * s.cover(dome) * np.maximum(1 - np.abs(above - 5.4), 0))
    # The beanie's cuff, or the other hat's ribbon.
    band = s.cover(np.maximum(dome, above - 5.2)) * (1 - t.cap)
    trim = t.hat_rgb * beanie + t.hat_trim * t.brimmed
    s.paint(trim * (light + 0.10 * beanie + 0.12 * ribs), band)
    visor_x = (p.fx - 2.0 * t.yaw) * (1 / 18.5)
    arc = 1 - visor_x * visor_x
    visor = np.maximum(-above - 4.4 * arc - 0.3, above - 1.6 * arc - 0.2)
    s.paint(t.hat_trim * (0.72 + 0.12 * np.clip(above, -2, 2) + 0.2 * t.light_x * visor_x), t.cap * s.cover(visor))
    brim_y = p.fy - t.hat_y - 0.5
    brim = ellipse(p.hx - 1.0 * t.yaw, brim_y, 29.5, 3.7)
    s.paint(t.hat_rgb * (0.88 - 0.10 * brim_y + 0.24 * t.light_x * across), t.brimmed * s.cover(brim))


def _draw_glasses(s: Scene) -> None:
    t, p = s.traits, s.planes
    # The bridge needs its place, however wide the lenses are.
    width = np.minimum(t.lens_w, t.eye_x - 1.3)
    x, y = p.afx - t.eye_x - 0.2, p.fy - 0.9
    lens = rounded_box(x, y, width, t.lens_h, t.lens_round * np.minimum(width, t.lens_h))
    inside = s.cover(lens)
    rim = np.abs(lens) - t.frame_h
    s.paint(t.skin * 0.3, 0.22 * s.cover(rim - 0.6, 1.0) * s.cover(p.head) * (y > 0))
    tint = 0.06 + 0.03 * y / t.lens_h
    s.paint(np.stack([tint, tint, tint * 1.3]), 0.90 * t.sun * inside)
    # The sky in the glass: two slanted stripes.
    slant = p.fx * 0.7 + p.fy - 2 * side(p.fx)
    glare = s.cover(np.abs(slant + 3.5) - 1.6, 1.0) + 0.6 * s.cover(np.abs(slant) - 0.5, 0.8)
    s.paint((0.92, 0.96, 1.0), inside * (0.06 * (1 - t.sun) + (0.10 + 0.08 * t.sun) * glare))
    bridge = np.maximum(np.abs(p.fy + 0.6 + 0.036 * p.afx * p.afx) - t.frame_h, p.afx - t.eye_x + width)
    arm = np.maximum(np.maximum(np.abs(y + 1.6) - t.frame_h, width - x), p.head)
    frame = s.cover(np.minimum(np.minimum(rim, bridge), arm))
    s.paint(t.frame_rgb * (1 - np.clip(y * 0.05, -0.12, 0.12)), frame)


def _develop(s: Scene) -> np.ndarray:
    """Exposure, darker corners and warmth, then 8 bits."""
    t, p = s.traits, s.planes
    gain = t.exposure * (1 - 0.00008 * (p.x * p.x + p.y * p.y))
    return to_bytes(s.rgb * np.stack([gain * (1 + t.warmth), gain, gain * (1 - t.warmth)]))
