"""The configuration of a training run. A recipe gives its values; every field is a flag of `fastvae train`."""

from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from fastvae.errors import UsageError
from fastvae.ranges import above, at_least, between, require

Options = TypeVar("Options")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the networks."""

    image_size: int = 64  # pixels a side, a multiple of 16 up to 1024
    width: int = 32  # channels of the first stage, 1 to 1024; later stages have 2, 4 and 8 times as many
    latent: int = 100  # dimensions of z, 1 to 65536

    def __post_init__(self) -> None:
        if not 16 <= self.image_size <= 1024 or self.image_size % 16:
            raise UsageError(f"image-size must be a multiple of 16 up to 1024, e.g. 64 or 32; got {self.image_size}")
        require(self, width=between(1, 1024), latent=between(1, 65536))


@dataclass(frozen=True)
class TrainConfig:
    """Schedule, hardware, data loading and logging of a run."""

    epochs: int = 5  # passes over the training images, > 0
    steps: int | None = None  # train for this many steps instead of epochs, > 0
    minutes: float | None = None  # stop after this many minutes of training if that comes first, > 0
    batch_size: int = 64  # images per step, with torchrun of each process; >= 2 because of batch normalisation
    lr: float = 5e-4  # Adam's initial learning rate, > 0
    lr_decay: float = 0.5  # factor on every learning rate after each epoch, in (0, 1]
    seed: int = 0  # of initial weights, image order and noise, >= 0
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA if available
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of convolutions and linear layers; auto: see `fastvae info`
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile the step; auto: see `fastvae info`
    cuda_graph: Literal["auto", "on", "off"] = "auto"  # replay the step as one CUDA graph; auto: on a GPU
    # what decodes a folder of images: dali or pillow during training, packed once before it; auto: dali if there are a
    # GPU, DALI and JPEGs, else packed
    loader: Literal["auto", "dali", "pillow", "packed"] = "auto"
    resident: Literal["auto", "on", "off"] = "auto"  # keep all images on the device; auto: on a GPU with enough memory
    log_every: int = 10  # steps between lines of stats.jsonl, > 0
    balance_every: int = 100  # steps between measurements of the critic's share of the gradient; 0: never
    evaluate_every: int = 500  # steps between evaluations on held-out images; 0: only at the start and the end
    pictures_every: int = 500  # steps between image grids; 0: only at the end
    checkpoint_minutes: float = 5.0  # save at the next log line after so many minutes of training; 0: not by time
    checkpoint_every: int = 0  # also after every so many steps; 0: never
    keep_checkpoints: int = 2  # how many of the newest checkpoints to keep, > 0
    held_out: int = 256  # held-out images per evaluation, > 0

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
            checkpoint_minutes=at_least(0),
            checkpoint_every=at_least(0),
            keep_checkpoints=at_least(1),
            held_out=at_least(1),
        )
        if not 0 < self.lr_decay <= 1:
            raise UsageError(f"lr-decay must be above 0 and at most 1; got {self.lr_decay}")


@dataclass(frozen=True)
class Config(Generic[Options]):
    """A complete run."""

    recipe: str  # name of the recipe that it started from
    objective: Options  # options of the objective; their class says which one
    data: str = "faces"  # "faces", the embedded data set; or the path of a packed file or a folder of images
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
