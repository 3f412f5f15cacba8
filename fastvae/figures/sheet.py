"""Sheets of images with text: panels that are labelled grids of images, enlarged by whole factors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fastvae.errors import FastvaeError

_MARGIN, _BETWEEN, _PAD = 32, 28, 8  # around the sheet, between panels, between text and images; pixels
_LABEL_WIDTH = 190  # maximum width of a row's label, pixels
_TITLE, _LABEL, _NOTE = 30, 20, 15  # font sizes, pixels
_BLACK, _GREY = (20, 20, 20), (105, 105, 105)


@dataclass(frozen=True)
class Label:
    """A text with a note in smaller letters below it; either may be empty."""

    text: str = ""
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """A grid of images.

    Attributes:
        pixels: uint8 [R, C, H, W, 3].
        heading: above the panel.
        rows: R labels to the left of the rows, or none.
        columns: C texts above the columns, or none.
    """

    pixels: np.ndarray
    heading: Label = field(default_factory=Label)
    rows: Sequence[Label] = ()
    columns: Sequence[str] = ()


def draw(
    panels: Sequence[Panel], title: str, caption: str, *, across: int | None = None, shown: int = 128, gap: int = 4
) -> np.ndarray:
    """Lays panels out from left to right and top to bottom.

    Args:
        panels: one or more; their images may differ in size.
        title: above the panels.
        caption: below the panels.
        across: panels side by side; None for all of them.
        shown: width of an image on the sheet, in pixels. Images are enlarged by the largest whole factor that does not
            exceed it, at least 1.
        gap: pixels between images.

    Returns:
        uint8 [height, width, 3].

    Raises:
        FastvaeError: there is not enough memory.
    """
    across = across or len(panels)
    lines = [
        [_Block(panel, max(1, shown // panel.pixels.shape[3]), gap) for panel in panels[start : start + across]]
        for start in range(0, len(panels), across)
    ]
    width = max(sum(block.width for block in line) + _BETWEEN * (len(line) - 1) for line in lines)
    width = max(width, 420)
    head, foot = _Text([(title, _TITLE, _BLACK)], width), _Text([(caption, _NOTE, _GREY)], width)
    # The images of panels side by side start at the same height, whatever is above them.
    tops = [max(block.above for block in line) for line in lines]
    heights = [top + max(block.grid_height for block in line) for top, line in zip(tops, lines, strict=True)]
    height = head.height + 20 + sum(heights) + _BETWEEN * (len(lines) - 1) + 20 + foot.height
    try:
        sheet = Image.new("RGB", (width + 2 * _MARGIN, height + 2 * _MARGIN), "white")
    except (MemoryError, ValueError) as error:
        raise FastvaeError(f"a sheet of {width:,}x{height:,} pixels does not fit into memory: show less") from error
    head.draw(sheet, _MARGIN, _MARGIN)
    y = _MARGIN + head.height + 20
    for line, top, line_height in zip(lines, tops, heights, strict=True):
        x = _MARGIN
        for block in line:
            block.draw(sheet, x, y + top)
            x += block.width + _BETWEEN
        y += line_height + _BETWEEN
    foot.draw(sheet, _MARGIN, y - _BETWEEN + 20)
    return np.asarray(sheet)


class _Block:
    """A panel with its text laid out, but no position yet."""

    def __init__(self, panel: Panel, scale: int, gap: int):
        rows, columns, height, width, _ = panel.pixels.shape
        self._panel, self._scale = panel, scale
        self._step_y, self._step_x = height * scale + gap, width * scale + gap
        self.grid_height, grid_width = rows * self._step_y - gap, columns * self._step_x - gap
        self._rows = [_label_text(label, _LABEL_WIDTH) for label in panel.rows]
        self._left = max((text.width for text in self._rows), default=-2 * _PAD) + 2 * _PAD
        self._heading = _label_text(panel.heading, grid_width)
        self._columns = [_Text([(name, _NOTE, _BLACK)], width * scale) for name in panel.columns]
        names = max((text.height for text in self._columns), default=0)
        # Height of everything above the images, gaps included.
        self.above = sum(height + _PAD for height in (self._heading.height, names) if height)
        self._names_top = names + _PAD
        self.width = self._left + grid_width

    def draw(self, sheet: Image.Image, x: int, y: int) -> None:
        """Draws the panel, with the upper edge of its first image at y."""
        x += self._left
        self._heading.draw(sheet, x, y - self.above)
        for i, text in enumerate(self._columns):
            text.draw(sheet, x + i * self._step_x + (self._step_x - text.width) // 2, y - self._names_top)
        for i, row in enumerate(self._panel.pixels):
            if self._rows:
                text, middle = self._rows[i], y + i * self._step_y + self._step_y // 2
                text.draw(sheet, x - self._left, middle - text.height // 2)
            for j, image in enumerate(row):
                large = image.repeat(self._scale, axis=0).repeat(self._scale, axis=1)
                sheet.paste(Image.fromarray(large), (x + j * self._step_x, y + i * self._step_y))


class _Text:
    """Lines of text, wrapped to a width.

    Args:
        pieces: text, font size and colour of each piece; each starts a new line, as does a line break in it.
        width: maximum width of a line, in pixels.
    """

    def __init__(self, pieces: Sequence[tuple[str, int, tuple[int, int, int]]], width: int):
        self._lines = [
            (line, size, colour)
            for text, size, colour in pieces
            for given in text.splitlines()
            for line in _wrapped(given, _font(size), width)
        ]
        self.width = max((int(_font(size).getlength(line)) + 1 for line, size, _ in self._lines), default=0)
        self.height = sum(_line_height(size) for _, size, _ in self._lines)

    def draw(self, sheet: Image.Image, x: int, y: int) -> None:
        pen = ImageDraw.Draw(sheet)
        for line, size, colour in self._lines:
            pen.text((x, y), line, colour, _font(size))
            y += _line_height(size)


def _label_text(label: Label, width: int) -> _Text:
    return _Text([(label.text, _LABEL, _BLACK), (label.note, _NOTE, _GREY)], width)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _line_height(size: int) -> int:
    return round(1.3 * size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines no wider than the width; a wider word is broken."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines
