"""Sheets: every image pixel a square of whole pixels, in the right place; words that fit."""

import numpy as np
import pytest

from fastvae.figures import sheet
from fastvae.figures.sheet import Label, Panel, draw


def found(drawn: np.ndarray, colour) -> tuple[int, int, int, int]:
    """Top, left, height, width of the rectangle that has this colour, all of it."""
    rows, columns = np.nonzero((drawn == colour).all(2))
    top, left, height, width = rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1
    assert len(rows) == height * width  # nothing lies over it
    return top, left, height, width


def plain(rows: int, columns: int, size: int, red: int) -> np.ndarray:
    """Images of one colour each, all different."""
    i = np.arange(rows * columns, dtype=np.uint8).reshape(rows, columns)
    colours = np.stack([np.full_like(i, red), 10 + i, 200 + i], -1)
    return np.broadcast_to(colours[:, :, None, None], (rows, columns, size, size, 3))


def test_images_stand_in_a_grid_of_exact_squares():
    names = [Label("first", "note\nsecond line of it"), Label("a second name that is much longer than the first")]
    drawn = draw([Panel(plain(2, 3, 16, 77), Label("head", "note"), names, "abc")], "t", "c", shown=50, gap=5)
    assert drawn.dtype == np.uint8
    top, left, height, width = found(drawn, (77, 10, 200))
    assert (height, width) == (48, 48)  # three times 16 is the most that 50 hold
    for i in range(2):
        for j in range(3):
            n = 3 * i + j
            assert found(drawn, (77, 10 + n, 200 + n)) == (top + i * 53, left + j * 53, 48, 48)


def test_pixels_are_squares():
    random = np.random.default_rng(0).integers(0, 256, (1, 1, 4, 6, 3), np.uint8)
    random[..., 0] = 99  # a mark: words are grey
    drawn = draw([Panel(random)], "", "", shown=12)
    rows, columns = np.nonzero((drawn[..., 0] == 99) & (np.ptp(drawn, axis=2) > 0))
    large = np.kron(random[0, 0], np.ones((2, 2, 1), np.uint8))
    assert (drawn[rows.min() :, columns.min() :][:8, :12] == large).all()


def test_panels_side_by_side_begin_at_one_height_and_wrap():
    panels = [
        Panel(plain(1, 2, 16, 71)),
        Panel(plain(1, 2, 32, 72), Label("words", "more\nmore"), columns=["left", "right"]),
        Panel(plain(2, 1, 16, 73), rows=[Label("one"), Label("two")]),
    ]
    drawn = draw(panels, "title", "caption", across=2, shown=32)
    first, second, third = (found(drawn, (red, 10, 200)) for red in (71, 72, 73))
    assert first[2:] == second[2:] == third[2:] == (32, 32)  # images of two sizes are shown at one
    assert first[0] == second[0] and second[1] > first[1] + 2 * 32
    assert third[0] > first[0] + 32 and third[1] < second[1]


def test_smaller_than_one_to_one_is_not_drawn():
    assert found(draw([Panel(plain(1, 1, 40, 5))], "", "", shown=16), (5, 10, 200))[2:] == (40, 40)


@pytest.mark.parametrize("text", ["short", "many words that need several lines", "oneverylongwordwithoutanyspace", ""])
def test_lines_fit_and_lose_nothing(text):
    font = sheet._font(20)
    lines = sheet._wrapped(text, font, 90)
    assert all(font.getlength(line) <= 90 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_words_leave_ink_and_empty_ones_none():
    blank, written = (draw([Panel(plain(1, 1, 32, 5))], title, "") for title in ("", "A title"))
    inked = [((x == x[..., :1]).all(2) & (x[..., 0] < 128)).sum() for x in (blank, written)]
    assert inked[0] == 0 and inked[1] > 50
