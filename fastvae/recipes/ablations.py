"""The paper's ablations of its model on CelebA: one layer, other weights, no reconstruction loss, other labels."""

from fastvae.lossnet.network import TAPS
from fastvae.objectives.vae_wgan import VaeWganOptions
from fastvae.recipes.paper import CELEBA64


def _with(name: str, about: str, **options):
    return CELEBA64.derive(name, f"{about}; give --data.", VaeWganOptions(**{"critic": "balanced", **options}))


# (alpha, beta) = (1, 0.5) is celeba64 itself.
RECIPES = (
    *(
        _with(f"-{tap}", f"celeba64 with the feature loss on {tap} alone (4.2.3, Fig. 7)", layers=(tap,))
        for tap in TAPS
    ),
    _with("-beta0.01", "celeba64 with alpha = 1, beta = 0.01 (4.2.4, Figs. 8 and 9)", alpha=1.0, beta=0.01),
    _with("-alpha0.01", "celeba64 with alpha = 0.01, beta = 1 (4.2.4, Figs. 8 and 9)", alpha=0.01, beta=1.0),
    _with("-no-rec", "celeba64 without reconstruction loss (4.2.4, Fig. 10)", beta=0.0),
    *(
        _with(
            f"-label{scale}",
            f"celeba64, critic to the letter, labels of {scale} (3.4)",
            critic="paper",
            label_scale=float(scale),
        )
        for scale in (1, 10, 100)
    ),
)
