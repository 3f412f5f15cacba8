"""`fastvae explore`: a local web page to play with a trained VAE. Standard library and one static page."""
