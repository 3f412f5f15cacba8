"""How good samples and reconstructions are, in numbers: what `fastvae evaluate` measures."""
