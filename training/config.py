"""Every setting of a training run, as frozen dataclasses. Does not import torch."""

from dataclasses import dataclass, field, is_dataclass, replace
from math import cos, isqrt, pi, sqrt
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar
from zipfile import is_zipfile

from inference.artifact import LONGEST_Z, MOST_PIXELS
from inference.errors import GanpackError

TORCHVISION_DATASETS = ("mnist", "fashion-mnist", "kmnist")
DATASETS = (*TORCHVISION_DATASETS, "digits")
_MOST_HELD_OUT = 0.5

_MOST_LAYERS = 100  # more would be an artifact of too many operations


class ConfigError(GanpackError):
    """A setting has an impossible value.

    Not a ValueError, because tyro prints a box around a ValueError.
    """

    exit_code = 2


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True)
class DataConfig:
    """Which images to train on."""

    dataset: str = "mnist"
    """mnist, fashion-mnist, kmnist, digits (1,797 small digits, without a download), or a folder or
    a zip archive of images, whose subfolders are the classes."""
    data_dir: Path = Path("data")
    """Folder that data sets are downloaded to."""
    image_size: int = 28
    """Height and width in pixels; images are resized to it."""
    channels: Literal[1, 3] = 1
    """1 for grey, 3 for colour."""
    levels: Literal["auto"] | tuple[float, float] | None = None
    """The levels of black and white in images of more than 8 bits: two numbers, or auto for the
    lowest and the highest level in the images; by default the whole range of 16 bits."""
    skip_broken: bool = False
    """Leave out images that cannot be read, instead of refusing to train."""
    large_images: bool = False
    """Read images of any number of pixels. By default, images of more than 89 million pixels are
    refused, because a small file can contain an image that fills the memory."""
    held_out: Literal["auto"] | float = "auto"
    """Share of the images that is never trained on, to show how far the discriminator learns the
    other images by heart. Of a folder, at least 10 images and at most 1,000 are held out, and none
    of fewer than 200. auto: a twentieth of a folder, nothing of digits. Data sets with test images
    use these instead, unless the share is 0."""

    def __post_init__(self) -> None:
        values = self.channels * self.image_size**2
        _require(
            self.image_size >= 1 and values <= MOST_PIXELS,
            f"--image-size must be at least 1, and at most {isqrt(MOST_PIXELS // self.channels)} "
            f"with {self.channels} channels, got {self.image_size}",
        )
        _require(
            self.held_out == "auto" or 0 <= self.held_out <= _MOST_HELD_OUT,
            f"--held-out must be auto or a share of 0 … {_MOST_HELD_OUT}, got {self.held_out}",
        )
        if isinstance(self.levels, tuple):
            low, high = self.levels
            _require(low < high, f"--levels: {low:g} must be below {high:g}")

    @property
    def held_out_share(self) -> float:
        """The share that is held out of the images."""
        if self.held_out == "auto":
            return 0.0 if self.dataset == "digits" else 0.05
        return self.held_out

    def require_there(self) -> None:
        """Raise ConfigError unless the data set is a known name or a folder that exists.

        This is not part of __post_init__, because an old run must be readable without its folder of
        images.
        """
        _require(
            self.dataset in DATASETS or Path(self.dataset).is_dir() or is_zipfile(self.dataset),
            f"--dataset {self.dataset!r} is neither a folder, nor a zip archive, nor one of "
            f"{', '.join(DATASETS)}",
        )


@dataclass(frozen=True)
class NetworkConfig:
    """Kind and size of both networks."""

    latent_dim: int = 100
    """Length of the noise vector z."""
    generator_dims: tuple[int, ...] = (128, 256, 512, 1024)
    """Widths of the generator's hidden layers, with --network mlp."""
    discriminator_dims: tuple[int, ...] = (512, 256)
    """Widths of the discriminator's hidden layers, with --network mlp."""
    conditional: bool = False
    """Give both networks the class labels, so that the generator can be asked for a class. The
    images need labels."""
    network: Literal["mlp", "conv"] = "mlp"
    """mlp: fully connected layers. conv: convolutions, for images of at least 8 pixels a side; the
    images are better after the same number of iterations, but an iteration takes six times as long
    on a CPU. With conv, bce and r3gan have other defaults of --lr-end, --gamma-end and --burn-in,
    for runs of 12 million images (200 epochs of MNIST)."""
    conv_width: int = 32
    """Channels of the first layer of the discriminator, with --network conv. All other layers scale
    with it."""
    differences: bool = False
    """With --network mlp, show the discriminator also how much pixels one and two apart differ.
    Images of clothes become far better and more varied; its first layer has five times as many
    weights. For --recipe bce and r3gan; without their penalties, the images become worse. Their
    defaults of --lr-end, --gamma-end and --burn-in change with it, for runs of 12 million images
    (200 epochs of MNIST)."""

    def __post_init__(self) -> None:
        _require(
            1 <= self.latent_dim <= LONGEST_Z,
            f"--latent-dim must be at least 1 and at most {LONGEST_Z}, got {self.latent_dim}",
        )
        for option, dims in (
            ("--generator-dims", self.generator_dims),
            ("--discriminator-dims", self.discriminator_dims),
        ):
            _require(
                min(dims, default=0) >= 1 and len(dims) <= _MOST_LAYERS,
                f"{option} must be positive widths, at most {_MOST_LAYERS}, got {dims}",
            )
        _require(
            self.network == "mlp" or not self.differences,
            "--differences is for --network mlp: convolutions see differences anyway",
        )
        _require(self.conv_width >= 1, f"--conv-width must be at least 1, got {self.conv_width}")

    @property
    def discriminator(self) -> str:
        """The kind of discriminator."""
        return "differences" if self.differences else self.network

    @property
    def dims(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Sizes of the hidden layers, of the generator and of the discriminator."""
        if self.network == "mlp":
            return self.generator_dims, self.discriminator_dims
        width = self.conv_width
        return (2 * width, width, max(1, width // 4)), (width, 2 * width, 4 * width)


Number = TypeVar("Number")


class StepNumbers(NamedTuple, Generic[Number]):
    """The numbers that change from step to step."""

    lr: Number
    """Learning rate of Adam."""
    gamma: Number
    """Weight of the gradient penalties R1 and R2."""
    ema_share: Number
    """How far the moving average moves towards the generator, 0 … 1."""
    updates: Number
    """Number of Adam's updates, including this step's, for the bias corrections."""
    step_size: Number
    """`lr` over the bias correction of the first moments."""
    root: Number
    """Square root of the bias correction of the second moments."""


@dataclass(frozen=True)
class RecipeConfig:
    """Loss, penalties and optimizer."""

    recipe: Literal["bce", "r3gan", "hinge", "textbook"] = "bce"
    """Loss of both networks. bce: binary cross entropy, non-saturating (Goodfellow et al. 2014).
    r3gan: relativistic pairing (Huang et al. 2024, arXiv 2501.05441). hinge: Lim and Ye 2017.
    textbook: bce as in tutorials, without penalties and moving average, for comparison.
    Each recipe has its own defaults for the options below. Gradient penalties stop the two networks
    from circling, with bce as well (Mescheder et al. 2018, arXiv 1801.04406)."""
    batch_size: int = 64
    """Number of real images in each update, and number of generated images."""
    lr: float = 2e-4
    """Adam's learning rate at the start, for both networks."""
    lr_end: float = 0.0
    """Learning rate after --burn-in images; until then it falls along half a cosine. 0: stay at
    --lr."""
    betas: tuple[float, float] = (0.0, 0.99)
    """Adam's decay rates of the first and the second moment."""
    gamma: float = 2.0
    """Weight of the gradient penalties R1 and R2 on the discriminator, at the start. 0: none."""
    gamma_end: float = 0.1
    """Weight of the penalties after --burn-in images; until then it falls along half a cosine
    (Huang et al. 2024)."""
    burn_in: float = 4e6
    """Number of images until --lr-end and --gamma-end are reached. 0: keep --lr and --gamma."""
    ema_half_life: float = 500_000.0
    """Number of images after which an old weight counts half in the generator's moving average."""
    augment: bool = False
    """Shift the images that the discriminator sees by a few pixels, and mirror some, so
    that it does not learn a few images by heart. The same quality needs more iterations."""

    def __post_init__(self) -> None:
        _require(
            self.batch_size >= 2,
            f"--batch-size must be at least 2 (BatchNorm needs two images), got {self.batch_size}",
        )
        _require(0 < self.lr < float("inf"), f"--lr must be positive, got {self.lr}")
        _require(
            all(0 <= b < 1 for b in self.betas), f"--betas must lie in [0, 1), got {self.betas}"
        )
        for option, value in (
            ("--lr-end", self.lr_end),
            ("--gamma", self.gamma),
            ("--gamma-end", self.gamma_end),
            ("--burn-in", self.burn_in),
        ):
            _require(0 <= value < float("inf"), f"{option} must be 0 or more, got {value}")
        _require(
            0 <= self.ema_half_life < float("inf"),
            f"--ema-half-life must be 0 (no averaging) or more, got {self.ema_half_life}",
        )

    @property
    def penalised(self) -> bool:
        """Whether gradient penalties are used at any step."""
        return self.gamma > 0 or (self.burn_in > 0 and self.gamma_end > 0)

    def at(self, step: int) -> StepNumbers[float]:
        """The numbers of the step that follows `step` steps.

        The average's half-life is at most a twentieth of the images seen, so that the average does
        not remember the first weights (the ramp-up of Karras et al. 2020, arXiv 2006.06676).
        """
        images, updates = step * self.batch_size, step + 1
        half_life = min(self.ema_half_life, updates * self.batch_size / 20)
        return self.numbers(
            lr=self._falling(self.lr, self.lr_end or self.lr, images),
            gamma=self._falling(self.gamma, self.gamma_end, images),
            ema_share=1 - 0.5 ** (self.batch_size / half_life) if half_life > 0 else 1.0,
            updates=updates,
        )

    def numbers(
        self, *, lr: float, gamma: float, ema_share: float, updates: int
    ) -> StepNumbers[float]:
        """These numbers, with Adam's bias corrections (Kingma and Ba 2015, arXiv 1412.6980)."""
        step_size = lr / (1 - self.betas[0] ** updates)
        root = sqrt(1 - self.betas[1] ** updates)
        return StepNumbers(lr, gamma, ema_share, updates, step_size, root)

    def _falling(self, start: float, end: float, images: int) -> float:
        share = min(images / self.burn_in, 1.0) if self.burn_in else 0.0
        return end + (start - end) * (1 + cos(pi * share)) / 2


RECIPES: dict[str, RecipeConfig] = {
    "bce": RecipeConfig(),
    "r3gan": RecipeConfig("r3gan", batch_size=128),
    "hinge": RecipeConfig("hinge", betas=(0.5, 0.999), gamma=0.0, gamma_end=0.0),
    "textbook": RecipeConfig(
        "textbook", betas=(0.5, 0.999), gamma=0.0, gamma_end=0.0, ema_half_life=0.0
    ),
}


def usual_recipe(name: str, discriminator: str = "mlp") -> RecipeConfig:
    """A recipe with its defaults, for a kind of discriminator, as `NetworkConfig.discriminator`.

    A discriminator with convolutions, or one that sees differences of pixels, wins late in a run.
    So the learning rate falls during the exercise's 200 epochs, and the penalties stay higher.
    """
    recipe = RECIPES[name]
    if discriminator == "mlp" or not recipe.penalised:
        return recipe
    return replace(recipe, lr_end=1.5e-5, gamma_end=0.5, burn_in=12e6)


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a run, as in config.json."""

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    epochs: int = 200
    """Number of passes over the images."""
    iterations: int | None = None
    """Number of updates of both networks. None: as many as --epochs needs."""
    seed: int = 0
    """Random seed for weights, shuffling and noise. The same seed on the same device gives the same
    result."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """auto: CUDA if there is a GPU, otherwise the CPU."""
    matmul_precision: Literal["highest", "high", "medium"] = "medium"
    """Precision of matrix products in training, as in torch.set_float32_matmul_precision. medium
    also runs layers in bfloat16 on a CPU or GPU with bfloat16 instructions. Weights, gradients and
    updates stay float32."""
    engine: Literal["auto", "plain", "compiled", "graph"] = "auto"
    """How steps are run. plain: one operation at a time. compiled: as one compiled function; on a
    CPU this needs a C++ compiler, and up to 30 seconds the first time. graph: in CUDA graphs. auto
    measures the engines that can save time in a run of this length, and uses the fastest."""
    deterministic: bool = False
    """Use only deterministic CUDA operations, so that a resumed run gives the same bits; slower. On
    a CPU every operation is deterministic."""
    select: Literal["fcd", "g-loss"] = "fcd"
    """Rule for the best generator snapshot. fcd: nearest to the real images in a classifier's
    features. g-loss: lowest mean generator loss of an epoch, except the first."""
    score_every: int = 1000
    """Number of iterations between two scorings, rounded up to the end of an epoch."""
    grids: tuple[int, ...] = ()
    """Iterations with a sample grid, besides the last. By default 1000, 10000, 20000, and so on; a
    run of less than 80,000 iterations has ten grids."""

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"--epochs must be at least 1, got {self.epochs}")
        _require(
            self.iterations is None or self.iterations >= 1,
            f"--iterations must be at least 1, got {self.iterations}",
        )
        size = self.data.image_size
        _require(
            self.network.network == "mlp" or size >= 8,
            f"--network conv needs an --image-size of at least 8, got {size}",
        )
        _require(self.score_every >= 1, f"--score-every must be at least 1, got {self.score_every}")
        _require(min(self.grids, default=1) >= 1, f"--grids must be positive, got {self.grids}")
        _require(0 <= self.seed < 2**63, f"--seed must be in 0 … 2**63 - 1, got {self.seed}")


def grouped(config: TrainConfig) -> dict[str, dict[str, Any]]:
    """The settings by group: "data", "network", "recipe", and "run" for all others."""
    groups = {
        name: dict(vars(value)) for name, value in vars(config).items() if is_dataclass(value)
    }
    return groups | {"run": {k: v for k, v in vars(config).items() if k not in groups}}


def flattened(config: TrainConfig) -> dict[str, Any]:
    """Every setting by its name, without groups."""
    return {name: value for group in grouped(config).values() for name, value in group.items()}


def differences(a: TrainConfig, b: TrainConfig) -> list[str]:
    """Names of the settings in which two configs differ."""
    others = flattened(b)
    return [name for name, value in flattened(a).items() if value != others[name]]


def options(config: TrainConfig) -> dict[str, str | int | float | bool | None]:
    """Every setting by the name of its option, without the leading dashes."""
    return {
        option(name)[2:]: " ".join(map(str, value))
        if isinstance(value, tuple)
        else str(value)
        if isinstance(value, Path)
        else value
        for name, value in flattened(config).items()
    }


def option(name: str) -> str:
    """The option of a setting on the command line: "--batch-size" for "batch_size"."""
    return f"--{name.replace('_', '-')}"
