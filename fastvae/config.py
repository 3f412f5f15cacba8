"""What a run is made of. A recipe fills these in; every field is a flag of `fastvae train`."""

from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from fastvae.errors import UsageError
from fastvae.ranges import above, at_least, between, require

Options = TypeVar("Options")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the networks."""

    image_size: int = 64  # pixels a side, a multiple of 16 up to 1024
    width: int = 32  # channels of the first stage, 1 to 1024; the next ones have 2, 4 and 8 times as many
    latent: int = 100  # dimensions of z, 1 to 65536

    def __post_init__(self) -> None:
        if not 16 <= self.image_size <= 1024 or self.image_size % 16:
            raise UsageError(f"image-size must be a multiple of 16 up to 1024, e.g. 64 or 32; got {self.image_size}")
        require(self, width=between(1, 1024), latent=between(1, 65536))


@dataclass(frozen=True)
class TrainConfig:
    """How long, how fast, on what, and what is written on the way."""

    epochs: int = 5  # passes over the training images, > 0
    steps: int | None = None  # stop after this many batches instead, > 0
    minutes: float | None = None  # stop earlier, after this many minutes of training, > 0
    batch_size: int = 64  # images a step, >= 2 because of the batch statistics
    lr: float = 5e-4  # Adam's initial learning rate, > 0
    lr_decay: float = 0.5  # factor on every learning rate after each epoch, in (0, 1]
    seed: int = 0  # of weights, order and noise, >= 0
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA where there is one
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of convolutions and linear layers; auto: see `fastvae info`
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile the step; auto: see `fastvae info`
    cuda_graph: Literal["auto", "on", "off"] = "auto"  # replay the step as one CUDA graph; auto: on a GPU
    # who decodes a folder of pictures: dali or pillow while training, packed once before; auto: dali where there are a
    # GPU, DALI and JPEGs, else packed
    loader: Literal["auto", "dali", "pillow", "packed"] = "auto"
    resident: Literal["auto", "on", "off"] = "auto"  # keep all images on the device; auto: on a GPU that has the room
    log_every: int = 10  # steps between two lines of stats.jsonl, > 0
    balance_every: int = 100  # steps between two measurements of the critic's share of the gradient; 0: never
    evaluate_every: int = 500  # steps between two evaluations on held-out images; 0: only before and after
    pictures_every: int = 500  # steps between two picture grids; 0: only at the end
    checkpoint_every: int = 500  # steps between two checkpoints; 0: only at the end
    keep_checkpoints: int = 2  # newest checkpoints that are kept, > 0
    held_out: int = 256  # held-out images that an evaluation looks at, > 0

    def __post_init__(self) -> None:
        require(
            self,
            epochs=between(1, 10**6),
            steps=between(1, 10**9),
            minutes=above(0),
            batch_size=between(2, 65536),
            lr=above(0),
            seed=between(0, 2**63 - 1),
            log_every=between(1, 10**5),
            balance_every=at_least(0),
            evaluate_every=at_least(0),
            pictures_every=at_least(0),
            checkpoint_every=at_least(0),
            keep_checkpoints=at_least(1),
            held_out=at_least(1),
        )
        if not 0 < self.lr_decay <= 1:
            raise UsageError(f"lr-decay must be above 0 and at most 1; got {self.lr_decay}")


@dataclass(frozen=True)
class Config(Generic[Options]):
    """A whole run."""

    recipe: str  # the recipe this came from
    objective: Options  # what is trained and how; its class names the objective
    data: str = "faces"  # "faces", the embedded data set; a packed file; or a folder of images
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
