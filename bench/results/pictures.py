"""What complete runs drew: kept as pixels beside their records, and laid out as sheets for docs/results.md.

So runs of several machines stand side by side, as in the paper's Figs. 4 and 6: one seed draws the same z for all, and
chooses the same held-out images.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.reporting.drawn_of import is_drawn_of, text_entry
from fastvae.errors import FastvaeError
from fastvae.figures import originals, reconstructions, samples
from fastvae.figures.sheet import Label, Panel, draw
from fastvae.pictures import save_picture
from fastvae.runs.open import Run

_KINDS = ("samples", "reconstructions")
_ROWS, _COLUMNS, _SEED = 6, 6, 0
_PAIRS = 10
_ACROSS, _SHOWN = 3, 64


def forget(name: str, folder: Path) -> None:
    """Removes the pictures of a record that is replaced."""
    for kind in _KINDS:
        (folder / f"{name}-{kind}.png").unlink(missing_ok=True)


def keep(run: Run, data: str, name: str, folder: Path) -> list[Path]:
    """Writes NAME-samples.png and, of a VAE, NAME-reconstructions.png: a row of held-out images, one of x'.

    Args:
        run: of one model.
        data: what it was trained on.
        name: of the record.
        folder: where the record is.
    """
    rows = {"samples": samples.sample(run.model, _ROWS * _COLUMNS, _SEED).reshape(_ROWS, _COLUMNS, *_shape(run))}
    if run.vae is not None:
        chosen, _ = originals.given_or_held_out(run, (), data, _PAIRS, _SEED)
        rows["reconstructions"] = np.stack([chosen, reconstructions.reconstruct(run.vae, chosen)])
    paths = []
    for kind, pixels in rows.items():
        paths.append(folder / f"{name}-{kind}.png")
        save_picture(_joined(pixels), paths[-1])
    return paths


def sheets(records: Sequence[dict[str, Any]], folder: Path) -> dict[str, list[tuple[dict[str, Any], Path]]]:
    """Of each kind of picture the records that have one, and where it is; kinds that none has are left out."""
    found = {
        kind: [(r, path) for r in records if (path := folder / f"{r['name']}-{kind}.png").exists()] for kind in _KINDS
    }
    return {kind: kept for kind, kept in found.items() if kept}


def draw_sheet(kind: str, kept: Sequence[tuple[dict[str, Any], Path]], path: Path) -> None:
    """Writes a sheet of one kind, which carries what it shows."""
    if kind == "samples":
        panels = [Panel(_pixels(p, _side(r)), Label(r["name"], _note(r, "fid", "FID {:.0f}"))) for r, p in kept]
        sheet = draw(panels, "Random samples", _caption(kept), across=_ACROSS, shown=_SHOWN)
    else:
        pairs = [_pixels(p, _side(r)) for r, p in kept]
        if any(not np.array_equal(pair[0], pairs[0][0]) for pair in pairs):
            names = ", ".join(r["name"] for r, _ in kept)
            raise FastvaeError(f"the runs {names} reconstruct different images: measure them with the same data")
        labels = [Label("Original"), *(Label(r["name"], _note(r, "psnr_db", "{:.1f} dB")) for r, _ in kept)]
        rows = np.stack([pairs[0][0], *(pair[1] for pair in pairs)])
        text = "Decoded from the mean of q(z|x). PSNR is of all held-out images."
        sheet = draw([Panel(rows, rows=labels)], "Reconstructions of held-out images", text, shown=_SHOWN)
    save_picture(sheet, path, text=text_entry(_content(kind, kept)))


def shows(path: Path, kind: str, kept: Sequence[tuple[dict[str, Any], Path]]) -> bool:
    """Whether the sheet of one kind at `path` was drawn of these."""
    return is_drawn_of(path, _content(kind, kept))


def _caption(kept: Sequence[tuple[dict[str, Any], Path]]) -> str:
    return samples.caption(_SEED, [r["config"]["model"]["latent"] for r, _ in kept])


def _shape(run: Run) -> tuple[int, int, int]:
    return run.model.image_size, run.model.image_size, 3


def _side(record: dict[str, Any]) -> int:
    return record["config"]["model"]["image_size"]


def _note(record: dict[str, Any], key: str, text: str) -> str:
    value = record["numbers"].get(key)
    return "" if value is None else text.format(value)


def _joined(pixels: np.ndarray) -> np.ndarray:
    """[R, C, H, W, 3] -> [R * H, C * W, 3]."""
    rows, columns, height, width, _ = pixels.shape
    return pixels.swapaxes(1, 2).reshape(rows * height, columns * width, 3)


def _pixels(path: Path, side: int) -> np.ndarray:
    """Undoes `_joined`."""
    joined = np.array(Image.open(path).convert("RGB"))
    rows, columns = joined.shape[0] // side, joined.shape[1] // side
    return joined.reshape(rows, side, columns, side, 3).swapaxes(1, 2)


def _content(kind: str, kept: Sequence[tuple[dict[str, Any], Path]]) -> str:
    """A digest of what the sheet shows."""
    notes = [[r["name"], _note(r, "fid", "{:.0f}"), _note(r, "psnr_db", "{:.1f}")] for r, _ in kept]
    notes += [_caption(kept)] if kind == "samples" else []
    digest = hashlib.sha256(json.dumps(notes).encode())
    for _, path in kept:
        digest.update(path.read_bytes())
    return digest.hexdigest()
