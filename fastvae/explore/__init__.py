"""A local web page to play with a trained VAE: what `fastvae explore` serves. Standard library and one static page."""
