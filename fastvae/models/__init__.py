"""The networks: encoder, decoder, critic, and the VAE of encoder and decoder."""

from fastvae.models.critic import Critic
from fastvae.models.decoder import Decoder
from fastvae.models.encoder import Encoder
from fastvae.models.vae import VAE

__all__ = ["VAE", "Critic", "Decoder", "Encoder"]
