"""For developers of fastvae; not installed with it."""
