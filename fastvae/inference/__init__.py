"""Fast inference with a trained VAE: folded, captured in CUDA graphs on a GPU, in C++ on a CPU."""
