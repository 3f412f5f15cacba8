"""Draws faces from measures and colours, on NumPy planes [N, H, W] of many faces at once.

Coordinates: one unit is 1/64 of the image's side, x to the right, y down, so that measures do not depend on the
resolution. Head coordinates (hx, hy) have the picture's middle as origin and undo shift, zoom and roll. Face
coordinates (fx, fy) lie on the curved front of the head, undo yaw and pitch too, and start between the eyes.

Edges are antialiased by turning signed distances into coverage. The skin is shaded by the normals of a height
field (nose, sockets, cheeks, lips), which is what makes it look like a photograph at 64x64.

Only operations that IEEE 754 rounds correctly are used; `faces` says why.
"""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

# Radius of the cylinder on which the face's features lie, in units, for the yaw.
_HEAD_RADIUS = 24.0
_EYE_LINE = 0.5

Box = tuple[int, int, int, int]
# Left, top, right, bottom in units from the middle: where the parts can be, whatever the pose. Only there they
# are evaluated, which halves the time; a test checks that nothing is cut off.
_EYES: Box = (-28, -18, 28, 14)
_BROWS: Box = (-28, -24, 28, 8)
_NOSE: Box = (-20, -4, 20, 24)
_MOUTH: Box = (-24, 4, 24, 32)


class Traits(SimpleNamespace):
    """Measures float32 [N, 1, 1] in units, and colours float32 [3, N, 1, 1] in 0..1, of N faces, by name."""

    def pick(self, faces: np.ndarray) -> "Traits":
        """The traits of the faces with these numbers."""
        return Traits(**{name: value[..., faces, :, :] for name, value in vars(self).items()})


def draw(traits: Traits, size: int) -> np.ndarray:
    """Draws N faces.

    Args:
        traits: of N faces; see `faces.choose_traits`.
        size: side of the images in pixels.

    Returns:
        uint8 [N, size, size, 3], 0..255, RGB.
    """
    scene = _Scene(traits, size)
    _draw_background(scene)
    _draw_clothes(scene)
    _draw_back_hair(scene)
    _draw_neck(scene)
    _draw_ears(scene)
    _draw_skin(scene)
    _draw_eyes(scene.cut(_EYES))
    _draw_brows(scene.cut(_BROWS))
    _draw_nostrils(scene.cut(_NOSE))
    scene.where("beard", _draw_beard)
    scene.where("goatee", _draw_goatee, _MOUTH)
    scene.where("mustache", _draw_mustache, _MOUTH)
    _draw_mouth(scene.cut(_MOUTH))
    scene.where("haired", _draw_front_hair)
    scene.where("bangs", _draw_bangs)
    scene.where("earring", _draw_earrings)
    scene.where("hat", _draw_hat)
    scene.where("glasses", _draw_glasses)
    return _develop(scene)


class _Scene:
    """N faces being drawn, or a window of some of them: the picture, the planes they share, and the traits.

    Attributes:
        rgb: float32 [3, N, H, W], 0..1.
        planes: named float32 [N, H, W]: coordinates, and what later parts need of earlier ones.
        traits: of the N faces.
        pixel: a pixel's side in units.
        size: side of the whole picture in pixels.
    """

    def __init__(self, traits: Traits, size: int):
        self.traits, self.size, self.pixel = traits, size, np.float32(64 / size)
        center = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * self.pixel - np.float32(32)
        t = traits
        x, y = center[None, None, :] - t.shift_x, center[None, :, None] - t.shift_y
        # The angle's half tangent gives sine and cosine by division alone.
        sin, cos = _turn(t.roll)
        hx, hy = (x * cos + y * sin) / t.zoom, (y * cos - x * sin) / t.zoom
        sin, cos = _turn(t.yaw)
        on_head = np.clip(hx / _HEAD_RADIUS, -1, 1)
        fx = _HEAD_RADIUS * (on_head * cos - sin * np.sqrt(1 - on_head * on_head)) + hx - _HEAD_RADIUS * on_head
        fy = hy - _EYE_LINE - t.pitch * np.maximum(1 - hy * hy * (1 / 900), 0)
        self.rgb = np.empty((3, *hx.shape), np.float32)
        self.planes = {"hx": hx, "hy": hy, "fx": fx, "fy": fy, "px": x + t.shift_x, "py": y + t.shift_y + 0 * x}
        self.planes["px"] = self.planes["px"] + 0 * y
        self.planes["side"] = np.where(fx < 0, np.float32(-1), np.float32(1))
        self.planes["afx"] = np.abs(fx)

    def __getattr__(self, name: str) -> np.ndarray:
        try:
            return self.__dict__["planes"][name]
        except KeyError:
            raise AttributeError(name) from None

    def cut(self, box: Box) -> "_Scene":
        """The window `box` of all faces; painting it paints this scene."""
        left, top, right, bottom = (round((edge + 32) * self.size / 64) for edge in box)
        part = object.__new__(_Scene)
        part.traits, part.size, part.pixel = self.traits, self.size, self.pixel
        part.rgb = self.rgb[:, :, top:bottom, left:right]
        part.planes = {name: plane[:, top:bottom, left:right] for name, plane in self.planes.items()}
        return part

    def where(self, trait: str, paint: Callable[["_Scene"], None], box: Box = (-32, -32, 32, 32)) -> None:
        """Calls `paint` with those faces only whose `trait` is above zero."""
        faces = np.flatnonzero(getattr(self.traits, trait))
        if len(faces) == 0:
            return
        whole = self.cut(box)
        part = object.__new__(_Scene)
        part.size, part.pixel = self.size, self.pixel
        part.traits = self.traits.pick(faces)
        part.rgb = whole.rgb[:, faces]
        part.planes = {name: plane[faces] for name, plane in whole.planes.items()}
        paint(part)
        whole.rgb[:, faces] = part.rgb

    def paint(self, color: np.ndarray | tuple[float, float, float], alpha: np.ndarray) -> None:
        """Lays a colour (three numbers or [3, N, 1 or H, 1 or W]) over the picture, with opacity `alpha` 0..1."""
        if isinstance(color, tuple):
            color = np.array(color, np.float32)[:, None, None, None]
        self.rgb += (color - self.rgb) * alpha

    def cover(self, distance: np.ndarray, softness: float = 0.0) -> np.ndarray:
        """Coverage 0..1 of pixels by a shape, from signed distances (negative inside)."""
        return np.clip(0.5 - distance * (1 / (self.pixel + np.float32(softness))), 0, 1)


def _turn(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sine and cosine of the angle with the half tangent `angle` / 2, so about `angle` radians if it is small."""
    half = angle * np.float32(0.5)
    return 2 * half / (1 + half * half), (1 - half * half) / (1 + half * half)


def _bump(x: np.ndarray, y: np.ndarray, radius_x, radius_y) -> np.ndarray:
    """A bell of height 1 with elliptic support: (1 - r^2)^2 inside."""
    u, v = x * (1 / radius_x), y * (1 / radius_y)
    inside = np.maximum(1 - u * u - v * v, 0)
    return inside * inside


def _ellipse(x: np.ndarray, y: np.ndarray, radius_x, radius_y) -> np.ndarray:
    """About the signed distance from an ellipse: exact on it and in direction, good near it."""
    u, v = x * (1 / radius_x), y * (1 / radius_y)
    radius = np.sqrt(u * u + v * v) + np.float32(1e-6)
    u, v = u * (1 / radius_x), v * (1 / radius_y)
    return radius * (radius - 1) / (np.sqrt(u * u + v * v) + np.float32(1e-6))


def _join(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    """Union of two shapes with a rounded seam."""
    near = np.maximum(blend - np.abs(a - b), 0)
    return np.minimum(a, b) - near * near * np.float32(0.25 / blend)


def _wave(phase: np.ndarray) -> np.ndarray:
    """A smooth wave of period 1 between -1 and 1, made of parabolas."""
    t = (phase - np.floor(phase)) * 2 - 1
    return 4 * t * (1 - np.abs(t))


def _head(s: _Scene) -> np.ndarray:
    """Signed distance from the outline of the head without hair and ears."""
    t = s.traits
    cranium = _ellipse(s.hx + 1.5 * t.yaw, s.hy + 3.5, t.cranium_w, t.cranium_h)
    jaw = _ellipse(s.hx - 3.0 * t.yaw, s.hy - 8.0, t.jaw_w, t.chin_y - 8.0)
    return _join(cranium, jaw, 7.0)


def _draw_background(s: _Scene) -> None:
    t = s.traits
    blend = np.clip(0.5 + (s.px * t.slope_x + s.py * t.slope_y) * (1 / 64), 0, 1)
    s.rgb[...] = t.far + (t.near - t.far) * blend
    s.paint(t.near * 0.7, 0.8 * t.edge * s.cover((s.px - t.edge_x) * np.where(t.edge_x < 0, 1, -1), 2.5))
    s.paint(t.blob, 0.7 * _bump(s.px - t.blob_x, s.py - t.blob_y, t.blob_r, t.blob_r))
    s.paint(t.near * 0.5 + 0.5, 0.6 * _bump(s.px - t.blob2_x, s.py - t.blob2_y, t.blob2_r, t.blob2_r))


def _draw_clothes(s: _Scene) -> None:
    t = s.traits
    slope = s.hx * s.hx * (1 / 90)
    light = 0.86 + s.hx * t.light_x * (1 / 90) - 0.012 * np.maximum(s.hy - 26, 0)
    s.paint(t.cloth * light, s.cover(t.shoulder_y + slope - s.hy, 0.6))


def _draw_back_hair(s: _Scene) -> None:
    t = s.traits
    s.planes["sway"] = t.wave * _wave(s.hy / t.wave_period + t.wave_phase)
    top = t.volume * (1 - 0.6 * t.hat)
    side = top * (0.4 + 0.5 * t.long)
    mass = _ellipse(s.hx + 1.5 * t.yaw, s.hy + 3.5, t.cranium_w + side, t.cranium_h + top)
    mass += 0.7 * s.sway * (1 - t.hat)
    # Falling hair is a rounded box from the temples down, the wider the lower.
    width = t.curtain + 0.05 * s.hy + 0.8 * s.sway
    x, y = np.abs(s.hx + 0.5 * t.yaw) - width + 6, s.hy - t.hair_end + 6
    u, v = np.maximum(x, 0), np.maximum(y, 0)
    fall = np.maximum(np.sqrt(u * u + v * v) + np.minimum(np.maximum(x, y), 0) - 6, -4 - s.hy)
    fall += (1 - t.long) * 99
    s.planes["mass"] = _join(mass, fall, 5.0)
    s.paint(t.hair * (0.52 + 0.10 * _strands(s)), s.cover(s.mass, 0.5) * t.long)


def _draw_neck(s: _Scene) -> None:
    t = s.traits
    x = s.hx - 1.2 * t.yaw
    flare = np.maximum(s.hy - 24, 0)
    width = t.neck_w + flare * flare * 0.10 * (0.4 + t.neckline)
    side = x / t.neck_w
    light = 0.74 - 0.16 * np.minimum(side * side, 1) + 0.10 * t.light_x * side
    # The head's own shadow, a little below its outline.
    shadow = s.cover(_ellipse(s.hx - 3.0 * t.yaw, s.hy - 10.0, t.jaw_w * 0.95, t.chin_y - 8.0), 4.0)
    light = light * (1 - 0.38 * shadow)
    visible = s.cover(np.abs(x) - width) * s.cover(14 - s.hy)
    s.paint(_tinted(t.skin, light), visible)


def _tinted(skin: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Skin under light of some strength: red falls less than blue, because light scatters in skin."""
    return skin * np.stack([0.22 + 0.78 * light, 0.06 + 0.94 * light, light * 1.0])


def _draw_ears(s: _Scene) -> None:
    t = s.traits
    x = np.abs(s.hx) - t.cranium_w - 0.6 + 3.2 * t.yaw * np.where(s.hx < 0, -1, 1)
    y = s.hy - 4.5
    light = 0.80 - 0.35 * _bump(x + 0.4, y, 2.0 * t.ear, 3.6 * t.ear) + 0.12 * t.light_x * np.where(s.hx < 0, -1, 1)
    s.paint(_tinted(t.skin, light), s.cover(_ellipse(x + 0.16 * y, y, 3.0 * t.ear, 5.4 * t.ear)))


def _draw_skin(s: _Scene) -> None:
    t = s.traits
    head = _head(s)
    s.planes["head"] = head
    x, y, ax = s.fx, s.fy, s.afx
    height = -(0.026 * s.hx * s.hx + 0.010 * s.hy * s.hy)
    nose_x = x - 2.6 * t.yaw
    height += 2.6 * t.nose_h * _bump(nose_x, y - t.nose_y + 0.8, t.nose_w + 1.2, 4.4)
    height += 2.1 * t.nose_h * _bump(x - 1.3 * t.yaw, y - 5.0, t.nose_w + 0.9, 10.0)
    height += 1.1 * t.nose_h * _bump(np.abs(nose_x) - t.nose_w, y - t.nose_y - 0.9, 2.2, 2.2)
    height -= 2.3 * _bump(ax - t.eye_x + 0.8, y + 0.2, 8.0, 6.0)
    height += 0.9 * _bump(ax - 8.0, y + 8.0, 10.0, 4.5)
    height += 2.0 * t.cheek * _bump(ax - 11.5, y - 9.0 + t.smile, 8.5, 7.5)
    height += 0.9 * _bump(x, y - t.mouth_y, 9.0, 5.5)
    height -= 0.9 * _bump(x, y - t.mouth_y - 4.6, 6.0, 2.6)
    height += 1.5 * _bump(x, y - t.mouth_y - 8.0, 7.0, 4.6)
    slope_x, slope_y = np.empty_like(height), np.empty_like(height)
    step = np.float32(0.5) / s.pixel
    slope_x[:, :, 1:-1] = (height[:, :, 2:] - height[:, :, :-2]) * step
    slope_x[:, :, 0], slope_x[:, :, -1] = slope_x[:, :, 1], slope_x[:, :, -2]
    slope_y[:, 1:-1] = (height[:, 2:] - height[:, :-2]) * step
    slope_y[:, 0], slope_y[:, -1] = slope_y[:, 1], slope_y[:, -2]
    steep = 1 / np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    bright = 1 / np.sqrt(1 + t.light_x * t.light_x + t.light_y * t.light_y)
    lambert = np.maximum((1 - slope_x * t.light_x - slope_y * t.light_y) * steep * bright, 0)
    light = 1 + t.contrast * (lambert * 0.9 - 0.78)
    shine = lambert * lambert
    shine = shine * shine
    shine = shine * shine
    shine = shine * shine
    # Folds of age, and the shadows that brows and cheeks cast whatever the light.
    fold = ax - 6.2 - 0.30 * (y - t.nose_y)
    along = _bump(y - t.nose_y - 3.0, 0 * y, 6.0, 1.0)
    light -= (0.05 + 0.13 * t.age + 0.09 * t.smile) * along * np.maximum(1 - np.abs(fold) * 0.6, 0)
    light -= 0.05 * _bump(ax - t.eye_x + 1.0, y - 0.4, 7.5, 5.0)
    light -= (0.04 + 0.12 * t.age) * _bump(ax - t.eye_x + 0.6, y - 3.6, 5.0, 1.5)
    lines = _bump(np.abs(np.abs(y + 12.4) - 1.4) * (1 + 0 * x), 0 * y, 0.9, 1.0)
    light -= 0.10 * t.age * lines * np.clip(1.4 - np.abs(x) * 0.12, 0, 1)
    light -= 0.12 * _bump(nose_x, y - t.nose_y - 2.6, t.nose_w + 2.2, 2.0)
    color = _tinted(t.skin, light)
    color += 0.10 * t.contrast * shine
    blush = t.blush * _bump(ax - 12.0, y - 9.0, 7.0, 5.5)
    color[1] -= color[1] * 0.42 * blush
    color[2] -= color[2] * 0.34 * blush
    s.paint(color, s.cover(head))
    s.planes["light"] = light


def _draw_eyes(s: _Scene) -> None:
    t = s.traits
    x = s.afx - t.eye_x
    y = s.fy + t.eye_tilt * x
    u = x / t.eye_w
    arc = 1 - u * u
    upper, lower = -t.eye_up * arc, t.eye_low * arc
    s.paint(t.shadow_rgb, t.shadow * _bump(x, y + 2.8, t.eye_w + 1.6, 3.4))
    # The lid's crease.
    crease = np.abs(y - 1.25 * upper + 1.3 - 0.3 * np.abs(u)) - 0.25
    s.paint(t.skin * 0.52, 0.5 * s.cover(crease, 0.5) * (np.abs(u) < 1.05))
    outside = np.maximum(upper - y, y - lower)
    open_eye = s.cover(outside)
    ball = np.clip(0.93 - 0.05 * u * u - 0.10 * np.maximum(1 - (y - upper) * 0.7, 0), 0, 1)
    s.paint(np.stack([ball, ball * 0.975, ball * 0.96]), open_eye)
    gx, gy = x - t.gaze_x * s.side, y + 0.25 - t.gaze_y
    r = np.sqrt(gx * gx + gy * gy)
    glow = 0.8 + 0.5 * np.clip(gy * 0.4, -0.6, 1)
    iris = open_eye * s.cover(r - t.iris_r)
    s.paint(t.iris * glow, iris)
    s.paint(t.iris * 0.35, iris * np.clip((r - t.iris_r + 0.8) * 1.1, 0, 1) * 0.8)
    s.paint((0.03, 0.025, 0.03), open_eye * s.cover(r - 0.95))
    # Under the lid lies its shadow, and on it the lashes.
    s.paint((0.08, 0.05, 0.05), 0.35 * open_eye * s.cover(y - upper - 0.5, 0.8))
    lash = np.abs(y - upper) - 0.28 - 0.25 * t.lash * (1 + u)
    near = np.clip((1.22 - np.abs(u)) * 5, 0, 1)
    s.paint((0.07, 0.045, 0.04), np.minimum(t.lash + 0.25, 1) * near * s.cover(lash, 0.2))
    s.paint(t.skin * 0.45, 0.45 * near * s.cover(np.abs(y - lower) - 0.15, 0.3) * (u > -1.05))
    spark = _bump(gx + 0.75 * s.side, gy + 0.8, 0.95, 0.95)
    s.paint((1.0, 1.0, 1.0), open_eye * np.minimum(spark * 1.6, 1))


def _draw_brows(s: _Scene) -> None:
    t = s.traits
    x = s.afx - t.eye_x
    u = (x - 0.4) / 6.6
    y = s.fy - t.brow_y - t.brow_arch * (u - 0.25) * (u - 0.25) * 1.5 + t.brow_arch * 0.4 - t.brow_slope * x
    thick = t.brow_h * np.clip(1.15 - 0.75 * np.maximum(u, -0.4), 0, 2)
    inside = np.maximum(np.abs(y) - thick, (np.abs(u) - 1) * 5)
    hairs = 0.86 + 0.14 * _wave(s.afx * 0.55 + s.fy * 0.35)
    s.paint(t.brow_rgb, 0.88 * hairs * s.cover(inside, 0.7))


def _draw_nostrils(s: _Scene) -> None:
    t = s.traits
    x = s.fx - 2.3 * t.yaw
    y = s.fy - t.nose_y - 1.7
    s.paint(t.skin * 0.26, 0.8 * np.minimum(1.5 * _bump(np.abs(x) - 0.58 * t.nose_w, y, 1.5, 1.1), 1))
    wing = np.abs(np.abs(x) - t.nose_w - 0.9 + 0.25 * y * y) - 0.1
    s.paint(t.skin * 0.5, 0.35 * s.cover(wing, 0.9) * _bump(y + 0.6, 0 * y, 2.4, 1.0))


def _whiskers(s: _Scene) -> np.ndarray:
    """Texture of facial hair, around 1."""
    return 1 + 0.16 * _wave(s.fx * 0.45 + 0.35 * _wave(s.fy * 0.16)) * _wave(s.fy * 0.21 + s.fx * 0.07)


def _mouth_frame(s: _Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Across the mouth -1..1 at its corners, down from the line where the lips meet, and 1 - across^2."""
    t = s.traits
    u = (s.fx - 0.8 * t.yaw) / t.mouth_w
    arc = 1 - u * u
    return u, s.fy - t.mouth_y - t.lift * (arc - 0.55), arc


def _draw_beard(s: _Scene) -> None:
    t = s.traits
    u, v, _ = _mouth_frame(s)
    edge = 9.5 + 0.0 * u - np.maximum(s.afx - 9.0, 0) * 1.25 + 3.4 * _bump(s.afx - 7.5, 0 * u, 6.5, 1.0)
    clear = _bump(u * t.mouth_w, v + 1.0, t.mouth_w + 2.6, 4.4)
    alpha = s.cover(edge - s.fy, 3.0) * s.cover(s.head - 1.0, 1.0) * np.clip(1 - 2.2 * clear, 0, 1)
    s.paint(t.beard_rgb * (_whiskers(s) * np.clip(s.light, 0.45, 1.2)), t.beard_alpha * alpha)


def _draw_goatee(s: _Scene) -> None:
    t = s.traits
    u, v, _ = _mouth_frame(s)
    chin = _ellipse(s.fx - 0.8 * t.yaw, s.fy - t.mouth_y - 7.2, 6.4, 4.6)
    alpha = s.cover(chin, 2.2) * s.cover(s.head - 1.0, 1.0) * np.clip((v - 1.5) * 0.5, 0, 1)
    s.paint(t.beard_rgb * (_whiskers(s) * np.clip(s.light, 0.45, 1.2)), 0.92 * t.beard_alpha * alpha)


def _draw_mustache(s: _Scene) -> None:
    t = s.traits
    u, v, arc = _mouth_frame(s)
    u = u * 0.86
    middle = -t.lip_up - t.gap * 0.6 - 1.3 + 1.5 * u * u
    inside = np.abs(v - middle) - 1.55 * np.clip(1.15 - u * u, 0, 1) + 0.5 * _bump(u, 0 * u, 0.2, 1.0)
    alpha = s.cover(inside, 1.0) * (np.abs(u) < 1.1)
    s.paint(t.beard_rgb * (_whiskers(s) * np.clip(s.light, 0.45, 1.2)), t.beard_alpha * alpha)


def _draw_mouth(s: _Scene) -> None:
    t = s.traits
    u, v, arc = _mouth_frame(s)
    arc = np.maximum(arc, 0)
    bow = arc * (1 - 0.35 * _bump(u, 0 * u, 0.28, 1.0))
    top = -(t.lip_up * bow + 0.62 * t.gap * arc)
    bottom = t.lip_low * arc * (0.75 + 0.25 * arc) + 0.75 * t.gap * arc
    light = np.clip(s.light, 0.5, 1.25)
    within = (np.abs(u) < 1) * 1.0
    shape = s.cover(np.maximum(top - v, v - bottom), 0.35) * within
    tone = np.where(v < 0, 0.80, 1.0) * light
    s.paint(t.lips * tone, 0.92 * shape)
    s.paint(t.lips * 0.4 + 0.6, 0.30 * _bump(u * t.mouth_w, v - bottom * 0.62, t.mouth_w * 0.55, 0.9))
    opened = t.gap * arc
    hole = s.cover(np.maximum(-0.62 * opened - v, v - 0.75 * opened), 0.1) * (opened > 0.1)
    s.paint((0.20, 0.05, 0.06), hole)
    bite = (0.75 + 0.62) * opened * t.teeth - 0.62 * opened
    teeth = hole * s.cover(v - bite, 0.2) * np.clip((0.92 - np.abs(u)) * 5, 0, 1)
    s.paint((0.93, 0.91, 0.87), 0.95 * teeth)
    s.paint(t.lips * 0.30, 0.8 * (1 - hole) * s.cover(np.abs(v) - 0.2, 0.3) * np.clip((1.03 - np.abs(u)) * 8, 0, 1))
    corner = _bump((np.abs(u) - 1.02) * t.mouth_w, v + 0.2, 1.5, 1.2)
    s.paint(t.skin * 0.42, (0.3 + 0.3 * t.smile) * corner)
    s.paint(t.skin * 0.5, 0.30 * _bump(u * t.mouth_w, v - bottom - 1.1, t.mouth_w * 0.6, 1.0))


def _strands(s: _Scene) -> np.ndarray:
    """Texture of hair, -1..1: strands that fan out from the parting, and sway where the hair is wavy."""
    t = s.traits
    fan = (s.hx - 6 * t.part + 1.6 * s.sway) / np.maximum(s.hy + 48, 8)
    return 0.55 * _wave(fan * 7.3 + t.wave_phase) + 0.45 * _wave(fan * 15.1 + 0.3 * s.sway)


def _hair_color(s: _Scene) -> np.ndarray:
    """Hair under light: dark at its rim, a band of gloss around the crown."""
    t = s.traits
    strands = _strands(s)
    light = 0.92 + 0.17 * strands + s.hx * t.light_x * (1 / 70) - 0.004 * s.hy
    light -= 0.25 * np.clip(1 + s.mass * 0.35, 0, 1)
    band = s.hy + 18 - 0.020 * s.hx * s.hx
    gloss = t.gloss * _bump(band, 0 * band, 6.5, 1.0) * (0.7 + 0.5 * strands)
    return t.hair * (light + 0.5 * gloss) + 0.10 * gloss


def _draw_front_hair(s: _Scene) -> None:
    t = s.traits
    # The face shows through an arch: an ellipse above, straight sides below.
    temple = t.hairline + 11.5
    rise = np.minimum(s.fy - temple - 0.22 * t.part * s.fx * (1 - t.hat), 0)
    arch = _ellipse(s.fx + 0.25 * s.sway, rise, t.opening, 11.5) - 0.06 * np.maximum(s.fy - temple, 0)
    s.planes["arch"] = arch
    ends = s.hy - t.sideburn - 99 * t.long - 0.5 * s.sway
    distance = np.maximum(np.maximum(s.mass, -arch), ends)
    s.paint(t.skin * 0.25, 0.30 * s.cover(distance - 1.2, 2.6) * s.cover(s.head))
    s.paint(_hair_color(s), s.cover(distance, 0.4))


def _draw_bangs(s: _Scene) -> None:
    t = s.traits
    tips = 0.9 * _wave(s.fx * 0.16 + t.wave_phase) + 0.5 * _wave(s.fx * 0.37)
    edge = t.bangs_y + t.bangs_slope * s.fx - 0.006 * s.fx * s.fx + tips
    distance = np.maximum(np.maximum(s.fy - edge, s.arch - 2.0), s.mass)
    s.paint(t.skin * 0.25, 0.35 * s.cover(distance - 1.2, 2.4) * s.cover(s.head))
    s.paint(_hair_color(s) * (1 - 0.05 * np.clip(s.fy - edge + 5, 0, 5)), s.cover(distance, 0.5))


def _draw_earrings(s: _Scene) -> None:
    t = s.traits
    right = np.where(s.hx < 0, np.float32(-1), np.float32(1))
    x = np.abs(s.hx) - t.cranium_w + 0.2 + 3.2 * t.yaw * right
    y = s.hy - 10.2 - t.earring_r
    r = np.sqrt(x * x + y * y)
    shade = 1.0 - 0.35 * np.clip(y * 0.5, -0.4, 1)
    s.paint(t.earring_rgb * 0.35, 0.5 * s.cover(r - t.earring_r - 0.5, 0.6))
    s.paint(t.earring_rgb * shade, s.cover(r - t.earring_r))
    s.paint((1.0, 1.0, 1.0), 0.9 * _bump(x + 0.5, y + 0.6, 1.0, 1.0))


def _draw_hat(s: _Scene) -> None:
    t = s.traits
    hx = s.hx + 1.5 * t.yaw
    edge = t.hat_y + 0.005 * s.fx * s.fx
    up = s.fy - edge
    beanie = 1 - t.cap - t.brimmed
    height = 27.5 + t.hat_y + 2.0 * t.brimmed
    dome = np.maximum(_ellipse(hx, s.fy - t.hat_y - 2, t.cranium_w + 2.4, height + 2), up)
    side = hx * (1 / 22)
    light = 0.92 - 0.34 * side * side + 0.30 * t.light_x * side + 0.010 * (-up - 6)
    ribs = _wave(s.fx * 0.26)
    seam = t.cap * np.maximum(1 - np.abs(s.fx), 0) * 0.16
    # What the hat keeps from the light: a soft stripe over the forehead, wider below a brim.
    depth = 2.6 + 3.4 * (1 - beanie)
    shadow = s.cover(np.maximum(up - depth, -up), 3.5) * s.cover(s.head + 0.5)
    s.paint(t.skin * 0.18, 0.42 * shadow)
    s.paint(t.hat_rgb * (light + 0.07 * beanie * ribs - seam), s.cover(dome))
    band = np.maximum(dome, -5.2 - up) + 99 * t.cap
    trim = t.hat_rgb * beanie + t.hat_trim * t.brimmed
    s.paint(trim * (light + (0.10 + 0.12 * ribs) * beanie), s.cover(band))
    s.paint(t.hat_rgb * 0.4, 0.45 * beanie * s.cover(dome) * np.maximum(1 - np.abs(up + 5.4), 0))
    visor_x = (s.fx - 2.0 * t.yaw) * (1 / 17.5)
    curve = 1 - visor_x * visor_x
    visor = np.maximum(up - 3.6 * curve - 0.3, -up - 2.0 * curve - 0.2) + 99 * (1 - t.cap)
    s.paint(t.hat_trim * (0.72 + 0.12 * np.clip(-up, -2, 2) + 0.2 * t.light_x * visor_x), s.cover(visor))
    brim_y = s.fy - t.hat_y - 0.5
    brim = _ellipse(s.hx - 1.0 * t.yaw, brim_y, 29.5, 3.7) + 99 * (1 - t.brimmed)
    s.paint(t.hat_rgb * (0.88 - 0.10 * brim_y + 0.24 * t.light_x * side), s.cover(brim))


def _draw_glasses(s: _Scene) -> None:
    t = s.traits
    wide = np.minimum(t.lens_w, t.eye_x - 1.3)
    x, y = s.afx - t.eye_x - 0.2, s.fy - 0.9
    radius = t.lens_round * np.minimum(wide, t.lens_h)
    qx, qy = np.abs(x) - wide + radius, np.abs(y) - t.lens_h + radius
    u, v = np.maximum(qx, 0), np.maximum(qy, 0)
    lens = np.sqrt(u * u + v * v) + np.minimum(np.maximum(qx, qy), 0) - radius
    inside = s.cover(lens)
    s.paint(t.skin * 0.3, 0.22 * s.cover(np.abs(lens) - t.frame_h - 0.6, 1.0) * s.cover(s.head) * (y > 0))
    tint = 0.06 + 0.03 * y * (1 / t.lens_h)
    s.paint(np.stack([tint, tint, tint * 1.3]), 0.90 * t.sun * inside)
    # The sky in the glass: two slanted stripes.
    slant = s.fx * 0.7 + s.fy - 2.0 * s.side
    glare = s.cover(np.abs(slant + 3.5) - 1.6, 1.0) + 0.6 * s.cover(np.abs(slant) - 0.5, 0.8)
    s.paint((0.92, 0.96, 1.0), (0.16 + 0.06 * t.sun) * inside * glare)
    s.paint((0.9, 0.95, 1.0), 0.06 * inside * (1 - t.sun))
    bridge = np.maximum(np.abs(s.fy + 0.6 + 0.12 * s.afx * s.afx * 0.3) - t.frame_h, s.afx - t.eye_x + wide)
    arm = np.maximum(np.maximum(np.abs(y + 1.6) - t.frame_h, wide - x), s.head)
    frame = np.minimum(np.minimum(np.abs(lens) - t.frame_h, bridge), arm)
    s.paint(t.frame_rgb * (1 - 0.12 * np.clip(y * 0.4, -1, 1)), s.cover(frame))


def _develop(s: _Scene) -> np.ndarray:
    """Exposure and warmth, then 8 bits."""
    t = s.traits
    gain = t.exposure * (1 - 0.00008 * (s.px * s.px + s.py * s.py))
    rgb = s.rgb * np.stack([gain * (1 + t.warmth), gain, gain * (1 - t.warmth)])
    images = np.empty((*rgb.shape[1:], 3), np.uint8)
    images[...] = np.moveaxis(np.floor(np.clip(rgb, 0, 1) * 255 + np.float32(0.5)), 0, -1)
    return images
