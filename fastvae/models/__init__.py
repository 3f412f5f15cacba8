"""Encoder, decoder, critic and the VAE made of the first two."""

from fastvae.models.critic import Critic
from fastvae.models.decoder import Decoder
from fastvae.models.encoder import Encoder
from fastvae.models.vae import VAE

__all__ = ["VAE", "Critic", "Decoder", "Encoder"]
