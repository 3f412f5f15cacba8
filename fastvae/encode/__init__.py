"""`fastvae encode`: the latent vectors of all images of a data set, in one safetensors file."""
