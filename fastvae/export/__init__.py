"""Exports a trained VAE to files that run without fastvae."""
