"""The network of a generator.onnx alone: without the nodes that turn its images into pixels.

A kernel of ours does that on the GPU, in one pass over the images instead of six.
"""

from collections.abc import Iterator

from .onnx_file import Node

# Field numbers of onnx.proto: of a model, of its graph, and of the names in the latter's parts.
_GRAPH = 7
_NODE, _INITIALIZER, _OUTPUT = 1, 5, 12
_INITIALIZER_NAME, _OUTPUT_NAME = 8, 1


def without_pixels(model: bytes, nodes: list[Node]) -> bytes:
    """The ONNX file with the values of `images` as its only output, before they get their shape.

    nodes: those of its graph, in their order. The file is one that `read_model` has read.
    """
    makers = {name: node for node in nodes for name in node.outputs}
    output = "images"
    if output in makers and makers[output].op_type == "Reshape":
        output = makers[output].inputs[0]  # the values are the same, and need not be copied
    needed = {output}
    kept = []
    for node in reversed(nodes):
        kept.append(bool(needed & set(node.outputs)))
        if kept[-1]:
            needed |= set(node.inputs)
    return b"".join(
        _field(_GRAPH, _graph(content, kept, needed, output)) if number == _GRAPH else whole
        for number, content, whole in _fields(model)
    )


def _graph(graph: bytes, kept: list[bool], needed: set[str], output: str) -> bytes:
    """kept: whether each node is, the last one first.  needed: names of values that are used."""
    parts = []
    for number, content, whole in _fields(graph):
        if number == _NODE and not kept.pop():
            continue
        if number == _INITIALIZER and _name(content) not in needed:
            continue
        if number != _OUTPUT:
            parts.append(whole)
    # Its type and shape are inferred.
    parts.append(_field(_OUTPUT, _field(_OUTPUT_NAME, output.encode())))
    return b"".join(parts)


def _name(initializer: bytes) -> str:
    names = (part for number, part, _ in _fields(initializer) if number == _INITIALIZER_NAME)
    return next(names, b"").decode()


def _fields(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Number, content and whole of each field; without content where it is a number."""
    at = 0
    while at < len(data):
        first = at
        key, at = _varint(data, at)
        content = b""
        if key & 7 == 2:
            size, at = _varint(data, at)
            content = data[at : at + size]
            at += size
        elif key & 7 == 0:
            _, at = _varint(data, at)
        else:
            at += 8 if key & 7 == 1 else 4
        yield key >> 3, content, data[first:at]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, as protobuf writes it."""
    key, size = number << 3 | 2, len(content)
    head = bytearray([key])
    while size >= 128:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head) + content
