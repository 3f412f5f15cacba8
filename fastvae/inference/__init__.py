"""Running a trained VAE: loading it, and making it fast."""

from fastvae.inference.load import load

__all__ = ["load"]
