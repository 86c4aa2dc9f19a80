"""The network of a generator.onnx alone: without the nodes that turn its images into pixels.

On the GPU, a kernel of ganpack does that, in one pass over the images instead of six.
"""

from ..onnx_format.parts import Node
from ..onnx_format.wire import Wire, field, message

# Field numbers of onnx.proto: of a model, of its graph, and of the names in the latter's parts.
_GRAPH = 7
_NODE, _INITIALIZER, _OUTPUT = 1, 5, 12
_INITIALIZER_NAME, _OUTPUT_NAME = 8, 1


def without_pixels(model: bytes, nodes: list[Node]) -> bytes:
    """The ONNX file with the values of `images` as its only output, before they get their shape.

    nodes: the nodes of its graph, in order. `read_model` must have accepted the file.
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
    wire = Wire(len(model))
    return b"".join(
        field(_GRAPH, _graph(wire, message(value), kept, needed, output))
        if number == _GRAPH
        else whole
        for number, value, whole in wire.fields(memoryview(model))
    )


def _graph(wire: Wire, graph: memoryview, kept: list[bool], needed: set[str], output: str) -> bytes:
    """kept: whether each node is, the last one first.  needed: names of values that are used."""
    parts: list[bytes | memoryview] = []
    for number, value, whole in wire.fields(graph):
        if number == _NODE and not kept.pop():
            continue
        if number == _INITIALIZER and _name(wire, message(value)) not in needed:
            continue
        if number != _OUTPUT:
            parts.append(whole)
    # Its type and shape are inferred.
    parts.append(field(_OUTPUT, field(_OUTPUT_NAME, output.encode())))
    return b"".join(parts)


def _name(wire: Wire, initializer: memoryview) -> str:
    names = (value for number, value, _ in wire.fields(initializer) if number == _INITIALIZER_NAME)
    return bytes(message(next(names, memoryview(b"")))).decode()
