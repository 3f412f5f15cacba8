"""A trained VAE as files that other programs run, without fastvae."""
