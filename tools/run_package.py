#!/usr/bin/env python3
"""Reconstructs a picture with a package of `fastvae export RUN --format aoti`; needs torch, NumPy and Pillow only.

python tools/run_package.py exported/reconstruct.pt2 face.jpg reconstructed.png
"""

import sys

import numpy as np
import torch
from PIL import Image


def main() -> int:
    if len(sys.argv) != 4:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    package, picture, out = sys.argv[1:]
    try:
        model = torch._inductor.aoti_load_package(package)
        metadata = model.get_metadata()
        size, device = int(metadata["shape"].split()[-1]), metadata.get("AOTI_DEVICE_KEY", "cpu")  # "3 64 64"
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        print(f"{package} cannot be loaded as a package of fastvae export: {error}", file=sys.stderr)
        return 1
    try:
        image = Image.open(picture).convert("RGB")
    except OSError as error:
        print(f"{picture} cannot be read as a picture: {error}", file=sys.stderr)
        return 1
    with image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side)).resize((size, size))
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]
    # A package takes its input for contiguous and does not ask: after permute alone it would read other pixels.
    images = (pixels / 127.5 - 1).contiguous()
    with torch.no_grad():
        reconstruction = model(images.to(device))[0].cpu()
    values = ((reconstruction + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    try:
        Image.fromarray(values.permute(1, 2, 0).numpy()).save(out)
    except (OSError, ValueError) as error:
        print(f"{out} cannot be written: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
