"""fastvae: train and run the deep-feature-consistent VAE with a Wasserstein critic (VAE-WGAN), fast.

import fastvae
vae = fastvae.load("runs/demo")          # images in [-1, 1], [B, 3, 64, 64]
faces = vae.sample(16)
"""

__version__ = "0.1.0"


def __getattr__(name: str):
    # torch takes seconds to import, and `fastvae --help` should not wait for it.
    if name == "VAE":
        from fastvae.models import VAE

        return VAE
    if name == "load":
        from fastvae.inference import load

        return load
    raise AttributeError(f"module 'fastvae' has no attribute {name!r}")
