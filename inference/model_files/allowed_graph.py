"""The graphs that ganpack writes. An artifact may contain no other graph.

Anyone can make a file with a valid seal, and onnxruntime would run any graph in it, even one with
endless loops or terabytes of memory. So this package lists what a generator may contain.
"""

from ..artifact import ArtifactError, Metadata
from ..onnx_format.onnx_file import read_model
from ..onnx_format.parts import ModelFile, Value
from .operations import FLOAT, INT64, ITEM_SIZES, UINT8, Known, Result, follow

# Files of format 1 have these versions.
_IR_VERSION, _OPSET = 8, 18
_DOMAINS = {"", "ai.onnx"}

# A network of a hundred layers has 419 nodes and 213 initializers, with its weights in float16.
_MOST_PARTS = 2**16
_MOST_NODES = _MOST_INITIALIZERS = 512
_MOST_ENTRIES = 8

# Work and memory for one image. Images of the largest size need up to 2^22 values in each of the
# last ten results. Before them, a network has at most half as many values in one result as its file
# has bytes, in all results at most four times as many, and a few multiplications per byte.
_MOST_VALUES_OF_A_RESULT = 2**23
_MOST_VALUES = 2**25
_SMALL_FILE = 2**23
_MULTIPLICATIONS_PER_BYTE = 256
# For weights in float16: a copy as float32, and a copy in the order of an operation.
_WEIGHTS_PER_BYTE = 4


def read_bounded(file: bytes) -> ModelFile:
    """Read a generator's file, unless it has more parts than an export; see `read_model`."""
    return read_model(file, _MOST_PARTS)


def require_allowed(model: ModelFile, metadata: Metadata, size: int) -> int:
    """Refuse a graph that is not the generator that the contract describes.

    size: number of bytes in the file.  Returns the most values of one image in a result.

    Raises:
        ArtifactError: for anything that ganpack does not write.
    """
    _require_inside(model)
    _require_few(model)
    _require_whole_constants(model)
    inputs = {"z": Result((metadata.latent_dim,))}
    if metadata.classes:
        inputs["labels"] = Result((), INT64)
    halves = {n: t for n, t in model.initializers.items() if t.data_type not in {FLOAT, INT64}}
    constants = {n: t for n, t in model.initializers.items() if n not in halves}
    if names := inputs.keys() & model.initializers.keys():
        raise ArtifactError(f"its graph is not a generator's: {min(names)} is a constant")
    known = Known(constants, dict(inputs), len(metadata.classes), halves=halves)
    for node in model.nodes:
        follow(node, known)
        _require_affordable(known, size)
    if model.strange:
        raise ArtifactError(
            f"its graph is not a generator's: it has parts that ganpack never writes, in its "
            f"{', '.join(sorted(model.strange))}"
        )
    _require_contract(model, metadata, inputs, known)
    return max(result.count for result in known.results.values())


def _require_inside(model: ModelFile) -> None:
    if model.external:
        raise ArtifactError(
            f"its weights are kept outside the file ({model.external[0].name!r}), ganpack keeps "
            f"them inside"
        )
    if model.graphs != 1:
        raise ArtifactError(f"its graph is not a generator's: it has {model.graphs} graphs")


def _require_few(model: ModelFile) -> None:
    for what, count, most in (
        ("nodes", len(model.nodes), _MOST_NODES),
        ("initializers", len(model.initializers), _MOST_INITIALIZERS),
        ("entries of metadata", len(model.metadata), _MOST_ENTRIES),
    ):
        if count > most:
            raise ArtifactError(f"{count:,} {what} are absurd: a generator has at most {most}")
    domains = model.opsets.keys()
    if (
        model.ir_version != _IR_VERSION
        or [*model.opsets.values()] != [_OPSET]
        or domains - _DOMAINS
    ):
        raise ArtifactError(
            f"its graph is not a generator's: ganpack writes IR {_IR_VERSION} and opset {_OPSET}, "
            f"this is IR {model.ir_version} and {model.opsets}"
        )


def _require_whole_constants(model: ModelFile) -> None:
    for tensor in model.initializers.values():
        size = ITEM_SIZES.get(tensor.data_type, 0)
        # A zero-sized tensor would let the next shape claim any size.
        if min((size, *tensor.dims)) < 1 or tensor.count * size != len(tensor.raw):
            raise ArtifactError(
                f"absurd shape: {tensor.name!r} is said to be {tensor.dims} and has "
                f"{len(tensor.raw)} bytes"
            )


def _require_affordable(known: Known, size: int) -> None:
    """Raise ArtifactError if a network costs more than an export of this file size can."""
    widest = max(result.count for result in known.results.values())
    for what, number, most in (
        ("values in one layer", widest, max(_MOST_VALUES_OF_A_RESULT, size // 2)),
        ("values", known.values, _MOST_VALUES + 4 * size),
        (
            "multiplications",
            known.multiplications,
            _MULTIPLICATIONS_PER_BYTE * max(size, _SMALL_FILE),
        ),
        ("bytes of weights", known.weight_bytes, _WEIGHTS_PER_BYTE * size),
    ):
        if number > most:
            raise ArtifactError(
                f"its network is absurd: it needs {number:,} {what} for one image, at most "
                f"{most:,} are allowed in a file of this size"
            )


def _require_contract(
    model: ModelFile, metadata: Metadata, inputs: dict[str, Result], known: Known
) -> None:
    """Raise ArtifactError unless inputs and outputs of the graph are those of the contract."""
    channels, height, width = metadata.image_shape
    outputs = {
        "images": Result((channels, height, width)),
        "pixels": Result((height, width, channels), UINT8),
    }
    given = {name: known.results.get(name) for name in outputs}
    found = [_described(model.inputs), _described(model.outputs)]
    expected: list[dict[str, Result | None]] = [{**inputs}, {**outputs}]
    repeated = len(model.inputs) + len(model.outputs) != sum(map(len, expected))
    if found != expected or given != outputs or repeated:
        raise ArtifactError(
            f"its graph is not what its contract says: inputs and outputs {found}, which are "
            f"{given}, expected {expected}"
        )


def _described(values: list[Value]) -> dict[str, Result | None]:
    """Inputs or outputs by name; None for one without a free number of images."""
    found: dict[str, Result | None] = {}
    for value in values:
        first, *rest = value.dims or (0,)
        sizes = tuple(size for size in rest if isinstance(size, int))
        fits = isinstance(first, str) and first and len(sizes) == len(rest)
        found[value.name] = Result(sizes, value.data_type) if fits else None
    return found
