"""fastvae: train and run the deep-feature-consistent VAE with a Wasserstein critic (VAE-WGAN), fast.

import fastvae
vae = fastvae.load("runs/demo")          # images in [-1, 1], [B, 3, 64, 64]
faces = vae.sample(16)
"""

from fastvae.version import __version__ as __version__


def __getattr__(name: str):
    # torch takes seconds to import, and `fastvae --help` should not wait for it.
    if name in ("VAE", "load"):
        from fastvae import vae

        return getattr(vae, name)
    raise AttributeError(f"module 'fastvae' has no attribute {name!r}")
