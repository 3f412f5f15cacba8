"""Sharing trained models: saved folders with weights, config and model card, and the Hugging Face Hub."""
