"""Measures the latency of a trained VAE on this machine, for `fastvae latency`."""
