"""Weights that others can use: folders of weights, config and model card, and the Hugging Face Hub."""
