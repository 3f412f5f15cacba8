"""How long a trained VAE takes to answer."""
