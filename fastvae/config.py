"""The configuration of a training run. A recipe gives its values; every field is a flag of `fastvae train`."""

from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from fastvae.errors import UsageError
from fastvae.models.stages import MOST_STAGES, stages_of
from fastvae.ranges import above, at_least, between, require

Options = TypeVar("Options")
# Weights of one linear layer: 4 GB in float32, and as much for its gradient and each of Adam's averages.
_LARGEST_LINEAR = 2**30


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the networks."""

    image_size: int = 64  # pixels a side, 8 to 1024: 4, 5, 6 or 7 times a power of two unless stages are given
    width: int = 32  # channels of the first stage, 1 to 1024; later stages have 2, 4, and from then on 8 times as many
    latent: int = 100  # dimensions of z, 1 to 65536
    # how often the networks halve an image; by default as often as leaves 4x4 to 7x7: 3 at 32, 4 at 64, 5 at 128
    stages: int | None = None

    def __post_init__(self) -> None:
        require(self, width=between(1, 1024), latent=between(1, 65536), stages=between(1, MOST_STAGES))
        try:
            widths, side = stages_of(self.image_size, self.width, self.stages)
        except ValueError as error:
            raise UsageError(f"image-size and stages: {error}") from error
        if (weights := widths[-1] * side**2 * self.latent) > _LARGEST_LINEAR:
            raise UsageError(
                f"latent, width and stages: {self.latent} dimensions for a {side}x{side} map of {widths[-1]} channels "
                f"make linear layers of {weights:,} weights, and at most {_LARGEST_LINEAR:,} are possible: give more "
                "stages, a smaller width or fewer dimensions"
            )


@dataclass(frozen=True)
class TrainConfig:
    """Schedule, hardware, data loading and logging of a run."""

    epochs: int = 5  # passes over the training images, > 0
    steps: int | None = None  # train for this many steps instead of epochs, > 0
    # stop after this many minutes of training if that comes first, > 0; those before a --resume count
    minutes: float | None = None
    batch_size: int = 64  # images per step, with torchrun of each process; >= 2 because of batch normalisation
    lr: float = 5e-4  # initial learning rate, > 0
    lr_decay: float = 0.5  # factor on every learning rate after each epoch, in (0, 1]
    # decay of an exponential moving average of the weights, from 0 to below 1, e.g. 0.999; 0: none. Evaluations,
    # pictures and whatever loads the run use the average, which is saved beside the weights
    ema: float = 0.0
    seed: int = 0  # of initial weights, image order, flips and noise, >= 0
    flip: bool = False  # flip each training image left to right with probability 1/2, decided anew in every epoch
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA if available
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of convolutions and linear layers; auto: see `fastvae info`
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile the step; auto: see `fastvae info`
    cuda_graph: Literal["auto", "on", "off"] = "auto"  # replay the step as one CUDA graph; auto: on a GPU
    # what decodes a folder of images: dali or pillow during training, packed once before it; auto: dali if there are a
    # GPU, DALI and JPEGs, else packed
    loader: Literal["auto", "dali", "pillow", "packed"] = "auto"
    resident: Literal["auto", "on", "off"] = "auto"  # keep all images on the device; auto: on a GPU with enough memory
    log_every: int = 10  # steps between lines of stats.jsonl, > 0
    # steps between measurements of the critic's share of the gradient; with critic held there is one after the first
    # step, too; 0: never
    balance_every: int = 100
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
        if not 0 <= self.ema < 1:
            raise UsageError(f"ema must be 0 (no average) or more, and below 1, e.g. 0.999; got {self.ema}")


@dataclass(frozen=True)
class InitialWeights:
    """The weights that a run started from (`--init`); a record only, since its checkpoints hold what it took."""

    source: str  # as given; the path of a file or folder is absolute
    sha256: str  # of the model.safetensors, 64 hexadecimal digits


@dataclass(frozen=True)
class Config(Generic[Options]):
    """A complete run."""

    recipe: str  # name of the recipe that it started from
    objective: Options  # options of the objective; their class says which one
    data: str = "faces"  # "faces", the embedded set; a packed file, folder, zip, tar or Parquet file; or hub:USER/NAME
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    initial_weights: InitialWeights | None = None  # None: drawn from the seed
