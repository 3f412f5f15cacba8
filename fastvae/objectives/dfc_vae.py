"""DFC-VAE: the variational autoencoder with a deep-feature-consistent loss.

L = alpha KL(q(z|x) || N(0, I)) + beta L_rec          (Hou et al., eq. 7; L_rec is eq. 5 and 6)
"""

from dataclasses import dataclass

from torch import Tensor, nn

from fastvae.config import ModelConfig
from fastvae.kernels import feature_loss
from fastvae.lossnet.network import tap_indices
from fastvae.objectives.layer_weights import LayerWeights, layer_weights
from fastvae.objectives.losses import kl_divergence, reparameterise
from fastvae.objectives.plain_vae import PlainVae
from fastvae.ranges import at_least, between, require


@dataclass(frozen=True)
class DfcVaeOptions:
    """Options of the feature loss."""

    alpha: float = 1.0  # weight of the KL divergence, >= 0
    beta: float = 0.5  # weight of the feature loss, >= 0
    # layers of the loss network whose features are compared
    layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1")
    # paper: 100 / C_l^2 (eq. 6); unit: 1 each (DFC-VAE); equal: eq. 6 times factors that let the chosen layers
    # contribute alike, and together as much as all five do
    layer_weights: LayerWeights = "unit"
    # share of the run's steps, from 0 to 1, in which the KL divergence's weight rises linearly from 0; 0: none
    kl_warmup: float = 0.0
    # weights of the loss network: caffe or torchvision (downloaded once, 575 MB), random (a stand-in), or a file
    vgg: str = "caffe"

    def __post_init__(self) -> None:
        require(self, alpha=at_least(0), beta=at_least(0), kl_warmup=between(0, 1))
        tap_indices(self.layers)  # raises if a layer is unknown


class DfcVae(PlainVae):
    """The plain VAE with the feature loss in place of the pixel loss."""

    title = "DFC-VAE"
    description = "KL divergence and feature loss of VGG-19"

    def __init__(self, options: DfcVaeOptions, model: ModelConfig, loss_network: nn.Module):
        super().__init__(options, model, loss_network)
        # VGG-19 hardly sees fine colour: a red-green grating of period 4 costs a hundredth of a grey one. The colours
        # of the initial filters would stay, as a grid at the same places of all images (METHOD.md).
        if options.beta > 0:
            self.decoder.start_grey_()

    @classmethod
    def taps(cls, options: DfcVaeOptions) -> tuple[str, ...]:
        return tuple(options.layers)

    def feature_distance(self, fake_features: tuple[Tensor, ...], features: tuple[Tensor, ...]) -> Tensor:
        """L_rec of eq. 6 over the chosen layers: a scalar, averaged over the batch."""
        chosen = [self.loss_network.taps.index(layer) for layer in self.options.layers]
        channels = [self.loss_network.channels[i] for i in chosen]
        weights = layer_weights(self.options.layer_weights, self.options.layers, channels)
        return feature_loss([fake_features[i] for i in chosen], [features[i] for i in chosen], weights)

    def forward(self, images: Tensor, noise: Tensor, features: tuple[Tensor, ...] | None = None):
        """Images [B, 3, H, W] in [-1, 1], noise [B, latent] -> KL, L_rec, features, features of the reconstructions.

        Args:
            images, noise: the batch.
            features: of the images, if already computed.
        """
        mean, log_variance = self.encoder(images)
        fakes = self.decoder(reparameterise(mean, log_variance, noise))
        if features is None:
            features, fake_features = self.loss_network.forward_pair(images, fakes)
        else:
            fake_features = self.loss_network(fakes)
        return (
            kl_divergence(mean, log_variance),
            self.feature_distance(fake_features, features),
            features,
            fake_features,
        )

    def loss(self, images: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        kl, rec, _, _ = self.forward(images, noise)
        total = self.options.alpha * self.warmed_up(kl) + self.options.beta * rec
        return total, {"kl": kl.detach(), "rec": rec.detach()}
