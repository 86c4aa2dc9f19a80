"""Read the content of an ONNX file before a runtime sees it. Standard library only.

Only the needed parts of ONNX are read. Field numbers are those of onnx.proto.
"""

import struct
from collections.abc import Collection, Iterator

from ..artifact import LONGEST_CONTRACT, ArtifactError
from .parts import AttributeValue, ModelFile, Node, Tensor, Value
from .wire import Field, Wire, integer, message

_MOST_PARTS = 2_000_000  # takes two seconds to read
_DEEPEST_GRAPH = 8  # graphs within the nodes of graphs
_HIGHEST_RANK = 32
_LONGEST_NAME = 2**12

# The field with an attribute's value, by the attribute's type: float, integer, string, integers.
# ganpack writes no other types.
_FIELDS_OF_TYPES = {1: 2, 2: 3, 3: 4, 7: 8}


def read_model(file: bytes, most_parts: int = _MOST_PARTS) -> ModelFile:
    """Read an ONNX file.  most_parts: see `Wire`.

    Raises:
        CutShortError: if the end of the file is missing.
        TooManyPartsError: if it is made of more parts.
        ArtifactError: if it is no ONNX file for another reason.
    """
    model = ModelFile()
    try:
        _Reader(model, most_parts).model(memoryview(file))
    except (UnicodeDecodeError, TypeError):
        raise ArtifactError("it is no ONNX file, or one with names that are not UTF-8") from None
    if model.graphs == 0:
        raise ArtifactError("it is no ONNX file: there is no graph in it")
    return model


class _Reader:
    def __init__(self, model: ModelFile, most_parts: int) -> None:
        self._file, self._wire = model, Wire(most_parts)

    def model(self, data: memoryview) -> None:
        for number, value in self._fields(data, "model", once={1, 2, 3, 7}, often={8, 14}):
            if number == 1:
                self._file.ir_version = integer(value)
            elif number == 7:
                self._file.graphs += 1
                self._graph(message(value), 0)
            elif number == 8:
                self._opset(message(value))
            elif number == 14:
                key, text = self._entry(message(value))
                if key in self._file.metadata:
                    self._file.strange.add("metadata")
                self._file.metadata[key] = text
            elif number == 20:
                for _, graph in self._fields(message(value), "training"):
                    self._graph(message(graph), 1)
            elif number == 25:
                self._function(message(value))

    def _opset(self, data: memoryview) -> None:
        domain, version = "", 0
        for number, value in self._fields(data, "opset", once={1, 2}):
            if number == 1:
                domain = _text(value)
            elif number == 2:
                version = integer(value)
        if domain in self._file.opsets:
            self._file.strange.add("opset")
        self._file.opsets[domain] = version

    def _function(self, data: memoryview) -> None:
        for number, value in self._fields(data, "function"):
            if number == 7:
                self._node(message(value), 1)
            elif number == 11:
                self._attribute(message(value), 1)

    def _graph(self, data: memoryview, depth: int) -> None:
        """depth: 0 for the graph of the model; others are in nodes, or for training."""
        if depth > _DEEPEST_GRAPH:
            raise ArtifactError("its graphs lie absurdly deep within one another")
        for number, value in self._fields(data, "graph", once={2}, often={1, 5, 11, 12}):
            if number == 1:
                node = self._node(message(value), depth)
                if depth == 0:
                    self._file.nodes.append(node)
            elif number == 5:
                tensor = self._tensor(message(value))
                if depth == 0:
                    if tensor.name in self._file.initializers:
                        raise ArtifactError(f"it has two initializers named {tensor.name!r}")
                    self._file.initializers[tensor.name] = tensor
            elif number == 15:
                self._sparse(message(value))
            elif number in {11, 12}:
                read = self._value(message(value))
                if depth == 0:
                    (self._file.inputs if number == 11 else self._file.outputs).append(read)

    def _node(self, data: memoryview, depth: int) -> Node:
        inputs, outputs = [], []
        attributes: dict[str, AttributeValue] = {}
        op_type = domain = ""
        for number, value in self._fields(data, "node", once={3, 4, 7}, often={1, 2, 5}):
            if number == 1:
                inputs.append(_text(value))
            elif number == 2:
                outputs.append(_text(value))
            elif number == 4:
                op_type = _text(value)
            elif number == 7:
                domain = _text(value)
            elif number == 5:
                name, held = self._attribute(message(value), depth)
                if name in attributes:
                    raise ArtifactError(f"one of its nodes has two attributes named {name!r}")
                attributes[name] = held
        return Node(op_type, domain, tuple(inputs), tuple(outputs), attributes)

    def _attribute(self, data: memoryview, depth: int) -> tuple[str, AttributeValue]:
        name, kind = "", 0
        held: dict[int, AttributeValue] = {}  # by the number of their field
        several: list[int] = []
        for number, value in self._fields(data, "attribute", once={1, 2, 3, 4, 20}, often={8}):
            if number == 1:
                name = _text(value)
            elif number == 20:
                kind = integer(value)
            elif number == 2:
                held[number] = _float(value)
            elif number == 3:
                held[number] = integer(value)
            elif number == 4:
                held[number] = bytes(message(value)).decode("utf-8", "replace")
            elif number == 8:
                several += self._wire.integers(value)
            elif number in {5, 10}:
                self._tensor(message(value))
            elif number in {6, 11}:
                self._graph(message(value), depth + 1)
            elif number in {22, 23}:
                self._sparse(message(value))
        if several:
            held[8] = tuple(several)
        return name, held.get(_FIELDS_OF_TYPES.get(kind, 0)) if len(held) == 1 else None

    def _tensor(self, data: memoryview) -> Tensor:
        name, data_type, elsewhere, raw = "", 0, False, memoryview(b"")
        dims: list[int] = []
        external: dict[str, str] = {}
        for number, value in self._fields(data, "tensor", once={2, 8, 9}, often={1}):
            if number == 1:
                dims += self._wire.integers(value)
                if len(dims) > _HIGHEST_RANK:
                    raise ArtifactError(f"absurd: a tensor of more than {_HIGHEST_RANK} dimensions")
            elif number == 2:
                data_type = integer(value)
            elif number == 8:
                name = _text(value)
            elif number == 9:
                raw = message(value)
            elif number == 13:
                key, text = self._entry(message(value))
                external[key] = text
            elif number == 14:
                elsewhere = integer(value) != 0
        if elsewhere or external:
            external.setdefault("location", "")
        tensor = Tensor(name, data_type, tuple(dims), raw, external)
        self._file.tensors.append(tensor)
        return tensor

    def _sparse(self, data: memoryview) -> None:
        for number, value in self._fields(data, "sparse tensor"):
            if number in {1, 2}:
                self._tensor(message(value))

    def _value(self, data: memoryview) -> Value:
        name, data_type = "", 0
        dims: list[int | str] = []
        for number, value in self._fields(data, "value", once={1, 2}, often={4}):
            if number == 1:
                name = _text(value)
            elif number == 2:
                for key, part in self._inner(message(value), "type", 1, once={1, 2}):
                    if key == 1:
                        data_type = integer(part)
                    elif key == 2:
                        dims = [*self._dims(message(part))]
        return Value(name, data_type, tuple(dims))

    def _dims(self, shape: memoryview) -> Iterator[int | str]:
        for number, dim in self._fields(shape, "shape", often={1}):
            size: int | str = ""
            if number == 1:
                for key, value in self._fields(message(dim), "dim", once={1, 2}):
                    size = _text(value) if key == 2 else integer(value) if key == 1 else size
            yield size

    def _entry(self, data: memoryview) -> tuple[str, str]:
        """Key and value of an entry."""
        found = dict(self._fields(data, "entry", once={1, 2}))
        none = memoryview(b"")
        return _text(found.get(1, none)), _text(found.get(2, none), 4 * LONGEST_CONTRACT)

    def _inner(
        self, data: memoryview, what: str, wanted: int, once: Collection[int]
    ) -> Iterator[tuple[int, Field]]:
        """The fields of a message's only field, if that is the wanted one."""
        for number, value in self._fields(data, what, once={wanted}):
            if number == wanted:
                yield from self._fields(message(value), what, once)

    def _fields(
        self, data: memoryview, what: str, once: Collection[int] = (), often: Collection[int] = ()
    ) -> Iterator[tuple[int, Field]]:
        """Number and value of each field; notes fields that a generator cannot have.

        once: fields that may occur once.  often: fields that may be repeated.
        """
        left = set(once)
        for number, value, _ in self._wire.fields(data):
            if number in left:
                left.remove(number)
            elif number not in often:
                self._file.strange.add(what)
            yield number, value


def _text(value: Field, longest: int = _LONGEST_NAME) -> str:
    part = message(value)
    if len(part) > longest:
        raise ArtifactError(f"one of its names has {len(part):,} bytes, which is absurd")
    return bytes(part).decode("utf-8")


def _float(value: Field) -> float:
    if len(message(value)) != 4:
        raise TypeError
    number: float = struct.unpack("<f", message(value))[0]
    return number
