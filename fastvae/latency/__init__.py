"""How long a trained VAE takes to answer on this machine: what `fastvae latency` measures."""
