"""Running a trained VAE fast: folded, captured on a GPU, in C++ on a CPU."""
