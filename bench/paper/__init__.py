"""The paper's two claims: ten hours of training, 0.012 s an image."""
