"""The canvas of `drawing`: many small pictures at once as NumPy planes [N, H, W], and shapes on them.

Coordinates: one unit is 1/64 of the image's side, x to the right, y down, so that measures do not depend on the
resolution. Head coordinates (hx, hy) have the picture's middle as origin and undo shift, zoom and roll. Face
coordinates (fx, fy) lie on the curved front of the head, undo yaw and pitch too, and start between the eyes.

Shapes are signed distances in units, negative inside; coverage of a pixel follows from its distance, which
gives antialiased edges. All is made of operations that IEEE 754 rounds correctly; `faces` says why.
"""

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

# Left, top, right, bottom in units from the picture's middle.
Box = tuple[int, int, int, int]
ALL: Box = (-32, -32, 32, 32)
# Radius of the cylinder on which the face's features lie, in units, for the yaw.
_HEAD_RADIUS = 24.0
# Height of the line through the eyes, in head coordinates.
_EYE_LINE = 0.5


class Traits(SimpleNamespace):
    """Measures float32 [N, 1, 1] in units, and colours float32 [3, N, 1, 1] in 0..1, of N faces, by name."""


class View:
    """Another object's arrays by the same names, each indexed on first use."""

    def __init__(self, source: object, index: tuple):
        self._source, self._index = source, index

    def __getattr__(self, name: str) -> np.ndarray:
        value = getattr(self._source, name)[self._index]
        setattr(self, name, value)
        return value


class Scene:
    """N faces being drawn, or a window of some of them.

    Attributes:
        rgb: the picture, float32 [3, N, H, W], 0..1.
        traits: of the N faces.
        planes: float32 [N, H, W] by name: coordinates, and what later parts need of earlier ones.
        size: side of the whole picture in pixels.
        pixel: side of a pixel in units.
    """

    def __init__(self, rgb: np.ndarray, traits: Traits | View, planes: SimpleNamespace | View, size: int):
        self.rgb, self.traits, self.planes, self.size = rgb, traits, planes, size
        self.pixel = 64 / size

    def cut(self, box: Box) -> "Scene":
        """The window `box` of all faces. It shares memory, so that painting it paints this scene."""
        left, top = (math.floor((edge + 32) / self.pixel) for edge in box[:2])
        right, bottom = (math.ceil((edge + 32) / self.pixel) for edge in box[2:])
        window = (..., slice(top, bottom), slice(left, right))
        return Scene(self.rgb[window], self.traits, View(self.planes, window), self.size)

    def where(self, trait: str, paint: Callable[["Scene"], None], box: Box = ALL) -> None:
        """Calls `paint` with the window `box` of only those faces whose `trait` is above zero."""
        faces = np.flatnonzero(getattr(self.traits, trait))
        if len(faces) == 0:
            return
        whole = self.cut(box)
        chosen = (..., faces, slice(None), slice(None))
        part = Scene(whole.rgb[chosen], View(self.traits, chosen), View(whole.planes, chosen), self.size)
        paint(part)
        whole.rgb[chosen] = part.rgb

    def paint(self, color: np.ndarray | tuple[float, float, float], alpha: np.ndarray) -> None:
        """Lays a colour, as three numbers or [3, N, H or 1, W or 1], over the picture with opacity `alpha` 0..1."""
        if isinstance(color, tuple):
            color = np.array(color, np.float32)[:, None, None, None]
        difference = color - self.rgb
        difference *= alpha
        self.rgb += difference

    def cover(self, distance: np.ndarray, softness: float | np.ndarray = 0.0) -> np.ndarray:
        """How much of each pixel a shape covers, 0..1; its edge is a pixel and `softness` units wide."""
        return np.clip(0.5 - distance * (1 / (self.pixel + softness)), 0, 1)


def new_scene(traits: Traits | View, size: int) -> Scene:
    """An unpainted scene with the planes x, y (unit coordinates, [W] and [H, 1]), hx, hy, fx, fy and |fx| as afx."""
    t = traits
    x = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(64 / size) - np.float32(32)
    y = x[:, None]
    sin, cos = _sin_cos(t.roll)
    right, down = x - t.shift_x, y - t.shift_y
    hx, hy = (right * cos + down * sin) / t.zoom, (down * cos - right * sin) / t.zoom
    # Rotates the cylinder back: sin(angle - yaw) from the visible sine. Nothing is rotated beside the head.
    sin, cos = _sin_cos(t.yaw)
    seen = np.clip(hx / _HEAD_RADIUS, -1, 1)
    fx = hx + _HEAD_RADIUS * (seen * cos - sin * np.sqrt(1 - seen * seen) - seen)
    fy = hy - _EYE_LINE - t.pitch * np.maximum(1 - hy * hy * (1 / 900), 0)
    planes = SimpleNamespace(x=x, y=y, hx=hx, hy=hy, fx=fx, fy=fy, afx=np.abs(fx))
    return Scene(np.empty((3, *hx.shape), np.float32), traits, planes, size)


def to_bytes(rgb: np.ndarray) -> np.ndarray:
    """Float [3, N, H, W], 0..1, to uint8 [N, H, W, 3]."""
    images = np.empty((*rgb.shape[1:], 3), np.uint8)
    images[...] = np.moveaxis(np.floor(np.clip(rgb, 0, 1) * 255 + np.float32(0.5)), 0, -1)
    return images


def bump(x: np.ndarray, y: np.ndarray, radius_x: float | np.ndarray, radius_y: float | np.ndarray) -> np.ndarray:
    """A bell of height 1 on an ellipse: (1 - r^2)^2 inside, 0 outside."""
    u, v = x * (1 / radius_x), y * (1 / radius_y)
    inside = np.maximum(1 - u * u - v * v, 0)
    return inside * inside


def hump(x: np.ndarray, radius: float | np.ndarray) -> np.ndarray:
    """`bump` of one coordinate."""
    u = x * (1 / radius)
    inside = np.maximum(1 - u * u, 0)
    return inside * inside


def ellipse(x: np.ndarray, y: np.ndarray, radius_x: float | np.ndarray, radius_y: float | np.ndarray) -> np.ndarray:
    """Approximate signed distance from an ellipse; first-order exact at the edge, which is enough for coverage."""
    u, v = x * (1 / radius_x), y * (1 / radius_y)
    radius = np.sqrt(u * u + v * v)
    u, v = u * (1 / radius_x), v * (1 / radius_y)
    # The small number avoids division by zero at the centre.
    return radius * (radius - 1) / (np.sqrt(u * u + v * v) + np.float32(1e-6))


def rounded_box(
    x: np.ndarray,
    y: np.ndarray,
    half_width: float | np.ndarray,
    half_height: float | np.ndarray,
    radius: float | np.ndarray,
) -> np.ndarray:
    """Signed distance from a rectangle with round corners."""
    right, down = np.abs(x) - half_width + radius, np.abs(y) - half_height + radius
    u, v = np.maximum(right, 0), np.maximum(down, 0)
    return np.sqrt(u * u + v * v) + np.minimum(np.maximum(right, down), 0) - radius


def join(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    """Union of two shapes, with a seam that is rounded over `blend` units."""
    near = np.maximum(blend - np.abs(a - b), 0)
    return np.minimum(a, b) - near * near * np.float32(0.25 / blend)


def wave(phase: np.ndarray) -> np.ndarray:
    """Like a sine of period 1, between -1 and 1, but made of parabolas."""
    t = (phase - np.floor(phase)) * 2 - 1
    return 4 * t * (1 - np.abs(t))


def side(x: np.ndarray) -> np.ndarray:
    """-1 left of the middle, else 1. A feature drawn in |x| is drawn on both sides; this tells them apart."""
    return np.copysign(np.float32(1), x)


def _sin_cos(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sine and cosine of the angle whose half has tangent `angle` / 2; for small ones that is `angle` radians."""
    half = angle * np.float32(0.5)
    scale = 1 / (1 + half * half)
    return 2 * half * scale, (1 - half * half) * scale
