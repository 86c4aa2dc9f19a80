"""Read the content of an ONNX file before a runtime sees it. Standard library only.

Only the needed parts of protobuf's wire format and of ONNX are read. Field numbers are those of
onnx.proto.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..artifact import ArtifactError

_MOST_FIELDS = 2_000_000  # takes two seconds to read; a generator of ours has some hundreds
_DEEPEST_GRAPH = 8  # graphs within the nodes of graphs


@dataclass(frozen=True)
class Tensor:
    """An initializer, or a constant in a node."""

    name: str
    data_type: int
    dims: tuple[int, ...]
    raw_size: int
    """Bytes of raw data in the file; 0 if the data is stored in another way or elsewhere."""
    external: Mapping[str, str]
    """`location`, `offset`, `length` of data outside the file; empty if it is inside."""


@dataclass(frozen=True)
class Node:
    """One operation."""

    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    integers: Mapping[str, int]
    """The integer attributes."""
    lists: Mapping[str, tuple[int, ...]]
    """The attributes that are lists of integers."""
    has_graph: bool


@dataclass
class ModelFile:
    """The parts of an ONNX file that are checked."""

    metadata: dict[str, str] = field(default_factory=dict)
    domains: set[str] = field(default_factory=set)
    nodes: list[Node] = field(default_factory=list)
    initializers: dict[str, Tensor] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)
    """All tensors, including those in nodes and inner graphs."""
    graphs: int = 0
    functions: int = 0
    has_sparse: bool = False

    @property
    def has_convolutions(self) -> bool:
        """Whether there are operations for which onnxruntime needs cuDNN on CUDA."""
        return any(node.op_type in {"Conv", "ConvTranspose"} for node in self.nodes)


class CutShortError(ArtifactError):
    """The file ends within a field."""


def read_model(file: bytes) -> ModelFile:
    """Read an ONNX file.

    Raises:
        CutShortError: if the end of the file is missing.
        ArtifactError: if it is no ONNX file for another reason.
    """
    model = ModelFile()
    try:
        _Reader(model).model(memoryview(file))
    except (UnicodeDecodeError, TypeError):
        raise ArtifactError("not an ONNX file") from None
    if model.graphs == 0:
        raise ArtifactError("not an ONNX file: there is no graph in it")
    return model


class _Reader:
    def __init__(self, model: ModelFile) -> None:
        self._file = model
        self._fields_left = _MOST_FIELDS

    def model(self, data: memoryview) -> None:
        for number, value in self._fields(data):
            if number == 7:
                self._file.graphs += 1
                self._graph(_part(value), 0)
            elif number == 8:
                domains = [_text(part) for key, part in self._fields(_part(value)) if key == 1]
                self._file.domains.add("".join(domains[-1:]))
            elif number == 14:
                entry = self._strings(_part(value))
                self._file.metadata[entry.get(1, "")] = entry.get(2, "")
            elif number in {20, 25}:  # training, functions
                self._file.functions += 1

    def _graph(self, data: memoryview, depth: int) -> None:
        if depth > _DEEPEST_GRAPH:
            raise ArtifactError("its graphs lie absurdly deep within one another")
        for number, value in self._fields(data):
            if number == 1:
                node = self._node(_part(value), depth)
                if depth == 0:
                    self._file.nodes.append(node)
            elif number == 5:
                tensor = self._tensor(_part(value))
                if depth == 0:
                    if tensor.name in self._file.initializers:
                        raise ArtifactError(f"it has two initializers named {tensor.name!r}")
                    self._file.initializers[tensor.name] = tensor
            elif number == 15:
                self._file.has_sparse = True

    def _node(self, data: memoryview, depth: int) -> Node:
        inputs, outputs, integers, lists = [], [], {}, {}
        op_type = domain = ""
        has_graph = False
        for number, value in self._fields(data):
            if number == 1:
                inputs.append(_text(value))
            elif number == 2:
                outputs.append(_text(value))
            elif number == 4:
                op_type = _text(value)
            elif number == 7:
                domain = _text(value)
            elif number == 5:
                name, integer, several, with_graph = self._attribute(_part(value), depth)
                if name in integers:
                    raise ArtifactError(f"one of its nodes has two attributes named {name!r}")
                integers[name], lists[name] = integer, several
                has_graph |= with_graph
        return Node(op_type, domain, tuple(inputs), tuple(outputs), integers, lists, has_graph)

    def _attribute(self, data: memoryview, depth: int) -> tuple[str, int, tuple[int, ...], bool]:
        name, integer, has_graph = "", 0, False
        several: list[int] = []
        for number, value in self._fields(data):
            if number == 1:
                name = _text(value)
            elif number == 3:
                integer = _integer(value)
            elif number == 8:
                several += [value] if isinstance(value, int) else self._packed(value)
            elif number in {5, 10}:
                self._tensor(_part(value))
            elif number in {6, 11}:
                has_graph = True
                self._graph(_part(value), depth + 1)
            elif number in {22, 23}:
                self._file.has_sparse = True
        return name, integer, tuple(several), has_graph

    def _tensor(self, data: memoryview) -> Tensor:
        name, data_type, raw_size, elsewhere = "", 0, 0, False
        dims: list[int] = []
        external: dict[str, str] = {}
        for number, value in self._fields(data):
            if number == 1:
                dims += [value] if isinstance(value, int) else self._packed(value)
            elif number == 2:
                data_type = _integer(value)
            elif number == 8:
                name = _text(value)
            elif number == 9:
                raw_size = len(_part(value))
            elif number == 13:
                entry = self._strings(_part(value))
                external[entry.get(1, "")] = entry.get(2, "")
            elif number == 14:
                elsewhere = _integer(value) != 0
        if elsewhere or external:
            external.setdefault("location", "")
        tensor = Tensor(name, data_type, tuple(dims), raw_size, external)
        self._file.tensors.append(tensor)
        return tensor

    def _strings(self, data: memoryview) -> dict[int, str]:
        return {number: _text(value) for number, value in self._fields(data)}

    def _packed(self, data: memoryview) -> Iterator[int]:
        at = 0
        while at < len(data):
            value, at = self._varint(data, at)
            yield value

    def _fields(self, data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """Number and value of each field of a message."""
        at = 0
        while at < len(data):
            key, at = self._varint(data, at)
            kind = key & 7
            if kind == 0:
                value, at = self._varint(data, at)
                yield key >> 3, value
                continue
            if kind == 2:
                size, at = self._varint(data, at)
            elif kind in {1, 5}:
                size = 8 if kind == 1 else 4
            else:
                raise ArtifactError("not an ONNX file")
            if at + size > len(data):
                missing = at + size - len(data)
                raise CutShortError(f"cut short: at least {missing:,} bytes are missing")
            yield key >> 3, data[at : at + size]
            at += size

    def _varint(self, data: memoryview, at: int) -> tuple[int, int]:
        self._fields_left -= 1
        if self._fields_left < 0:
            raise ArtifactError(f"it is made of more than {_MOST_FIELDS:,} parts, which is absurd")
        value = 0
        for shift in range(0, 70, 7):
            if at >= len(data):
                raise CutShortError("cut short: its end is missing")
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & (2**64 - 1), at
        raise ArtifactError("not an ONNX file")


def _part(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise TypeError
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_part(value)).decode("utf-8")


def _integer(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise TypeError
    return value
