"""Every setting of a training run, as frozen dataclasses; recipes are values here. No torch."""

from dataclasses import dataclass, field, is_dataclass
from math import cos, pi
from pathlib import Path
from typing import Any, Literal
from zipfile import is_zipfile

from inference.errors import GanpackError

TORCHVISION_DATASETS = ("mnist", "fashion-mnist", "kmnist")
DATASETS = (*TORCHVISION_DATASETS, "digits")


class ConfigError(GanpackError):
    """A setting that cannot be. No ValueError: tyro would wrap its one line in a box."""

    exit_code = 2


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True)
class DataConfig:
    """Which images to learn."""

    dataset: str = "mnist"
    """mnist, fashion-mnist, kmnist, digits (1,797 small digits, needs no download), or a folder or
    a zip archive of images, its subfolders as labels."""
    data_dir: Path = Path("data")
    """Where data sets are downloaded to, once."""
    image_size: int = 28
    """Height and width in pixels that images are resized to."""
    channels: Literal[1, 3] = 1
    """1 for grey, 3 for colour."""
    levels: Literal["auto"] | tuple[float, float] | None = None
    """Black and white of images of more than 8 bits: two levels, or auto for the lowest and the
    highest that are there; by default the whole range of 16 bits."""
    skip_broken: bool = False
    """Leave out images that cannot be read, instead of refusing to train."""
    large_images: bool = False
    """Read images of any number of pixels; by default those of more than 89 million are refused,
    as a small file can hold one that fills the memory."""

    def __post_init__(self) -> None:
        _require(self.image_size >= 1, f"--image-size must be at least 1, got {self.image_size}")
        if isinstance(self.levels, tuple):
            low, high = self.levels
            _require(low < high, f"--levels: {low:g} must be below {high:g}")

    def require_there(self) -> None:
        """Raise ConfigError for no data set of ours and no folder; a run may outlive its folder."""
        _require(
            self.dataset in DATASETS or Path(self.dataset).is_dir() or is_zipfile(self.dataset),
            f"--dataset {self.dataset!r} is neither a folder, nor a zip archive, nor one of "
            f"{', '.join(DATASETS)}",
        )


@dataclass(frozen=True)
class NetworkConfig:
    """Kind and sizes of the two networks."""

    latent_dim: int = 100
    """Length of the noise vector z."""
    generator_dims: tuple[int, ...] = (128, 256, 512, 1024)
    """Widths of the generator's hidden layers, of mlp."""
    discriminator_dims: tuple[int, ...] = (512, 256)
    """Widths of the discriminator's hidden layers, of mlp."""
    conditional: bool = False
    """Whether both networks are given the classes of images, so that the generator draws the class
    that it is asked for; the images need labels."""
    network: Literal["mlp", "conv"] = "mlp"
    """mlp: fully connected layers. conv: convolutions, from 8 pixels a side on; better images from
    as many iterations, each of which takes six times as long on a CPU."""
    conv_width: int = 32
    """Channels of conv's first layer that looks at images; all others are in proportion."""

    def __post_init__(self) -> None:
        _require(self.latent_dim >= 1, f"--latent-dim must be at least 1, got {self.latent_dim}")
        for option, dims in (
            ("--generator-dims", self.generator_dims),
            ("--discriminator-dims", self.discriminator_dims),
        ):
            _require(min(dims, default=0) >= 1, f"{option} must be positive widths, got {dims}")
        _require(self.conv_width >= 1, f"--conv-width must be at least 1, got {self.conv_width}")

    @property
    def dims(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Widths, or channels, of the generator's hidden layers and the discriminator's."""
        if self.network == "mlp":
            return self.generator_dims, self.discriminator_dims
        width = self.conv_width
        return (2 * width, width, max(1, width // 4)), (width, 2 * width, 4 * width)


@dataclass(frozen=True)
class RecipeConfig:
    """How the two networks are trained against each other."""

    recipe: Literal["bce", "r3gan", "hinge"] = "bce"
    """bce: binary cross entropy, non-saturating (Goodfellow et al. 2014). r3gan: relativistic
    pairing (Huang et al. 2024, arXiv 2501.05441). hinge: Lim and Ye 2017. Each has its own defaults
    for the options below; gradient penalties keep bce, too, from circling (Mescheder et al. 2018,
    arXiv 1801.04406)."""
    batch_size: int = 64
    """Real images, and generated ones, in each update."""
    lr: float = 2e-4
    """Learning rate of Adam, of both networks, at the start."""
    lr_end: float = 0.0
    """The same from --burn-in on, to which it falls along half a cosine; 0 keeps --lr."""
    betas: tuple[float, float] = (0.0, 0.99)
    """Decay rates of Adam's two moments."""
    gamma: float = 2.0
    """Weight of the gradient penalties R1 and R2 on the discriminator, at the start; 0: none."""
    gamma_end: float = 0.1
    """The same from --burn-in on, to which it falls along half a cosine (Huang et al. 2024)."""
    burn_in: float = 4e6
    """Images until --lr-end and --gamma-end are reached; 0 keeps --lr and --gamma."""
    ema_half_life: float = 500_000.0
    """Images after which a weight's share in the moving average of the generator halves."""

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
        """Whether there ever are gradient penalties."""
        return self.gamma > 0 or (self.burn_in > 0 and self.gamma_end > 0)

    def gamma_at(self, images: int) -> float:
        """The weight of the penalties after so many images."""
        return self._falling(self.gamma, self.gamma_end, images)

    def lr_at(self, images: int) -> float:
        """The learning rate after so many images."""
        return self._falling(self.lr, self.lr_end or self.lr, images)

    def _falling(self, start: float, end: float, images: int) -> float:
        share = min(images / self.burn_in, 1.0) if self.burn_in else 0.0
        return end + (start - end) * (1 + cos(pi * share)) / 2


RECIPES: dict[str, RecipeConfig] = {
    "bce": RecipeConfig(),
    "r3gan": RecipeConfig("r3gan", batch_size=128),
    "hinge": RecipeConfig("hinge", betas=(0.5, 0.999), gamma=0.0, gamma_end=0.0),
}


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a run; what is written to config.json."""

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    epochs: int = 200
    """Times that every image is seen."""
    iterations: int | None = None
    """Updates of both networks; None: as many as --epochs says."""
    seed: int = 0
    """Of the weights, the order of the images and the noise: one seed, one device, one result."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """auto takes CUDA where there is a GPU."""
    matmul_precision: Literal["highest", "high", "medium"] = "medium"
    """Of float32 matrix products in training, as torch.set_float32_matmul_precision has it. medium:
    layers in bfloat16 on a CPU that multiplies it, else as that function says; weights, gradients
    and updates stay float32."""
    engine: Literal["auto", "plain", "compiled", "graph"] = "auto"
    """How steps are run. plain: one operation at a time. compiled: by torch.compile, which needs a
    C++ compiler and a quarter of a minute. graph: in CUDA graphs. auto: graph on CUDA; on the CPU
    compiled from 10,000 iterations on, with --network conv plain."""
    deterministic: bool = False
    """Whether CUDA may use only what gives the same bits each time, so that a resume is exact there
    too; slower. A CPU always does."""
    select: Literal["fcd", "g-loss"] = "fcd"
    """Which checkpoint is best. fcd: nearest to the real images, as a classifier sees them.
    g-loss: lowest mean generator loss of an epoch, the first apart."""
    score_every: int = 1000
    """Iterations between two scorings, rounded up to the end of an epoch."""

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
        _require(0 <= self.seed < 2**63, f"--seed must be in 0 … 2**63 - 1, got {self.seed}")


def grouped(config: TrainConfig) -> dict[str, dict[str, Any]]:
    """The settings by group: "data", "network", "recipe", and "run" for those of none of them."""
    groups = {
        name: dict(vars(value)) for name, value in vars(config).items() if is_dataclass(value)
    }
    return groups | {"run": {k: v for k, v in vars(config).items() if k not in groups}}


def flattened(config: TrainConfig) -> dict[str, Any]:
    """Every setting by its name, in one level."""
    return {name: value for group in grouped(config).values() for name, value in group.items()}


def differences(a: TrainConfig, b: TrainConfig) -> list[str]:
    """Names of the settings in which two configs differ."""
    others = flattened(b)
    return [name for name, value in flattened(a).items() if value != others[name]]


def options(config: TrainConfig) -> dict[str, str | int | float | bool | None]:
    """Every setting, named as its option without the dashes before it."""
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
