"""Families of well sealed files that are meant to harm: each makes another file for each seed."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from inference.artifact import CONTRACT_KEY, SEAL_KEY, UNSEALED, seal
from tests.support.networks import expensive

Change = Callable[[onnx.ModelProto, Random], None]

MANY = 100, 1_000, 30_000
LARGEST = 8_000_000  # bytes of a file
WHOLE = -(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 4, 7, 255, 2**16, 2**31 - 1, 2**40, 2**63 - 1
FRACTIONS = math.nan, math.inf, -math.inf, 0.0, -1.0, 1e-45, 1.0, 2.0, 3.4e38
TEXTS = "", "NOTSET", "SAME_UPPER", "VALID", "DCR", "CRD", "x" * 100_000, "\0", "猫"
ATTRIBUTES = (
    "alpha", "beta", "transA", "transB", "axis", "allowzero", "to", "saturate", "perm", "group",
    "auto_pad", "dilations", "kernel_shape", "pads", "strides", "blocksize", "mode", "axes",
    "starts", "consumed_inputs", "broadcast", "max", "min", "output_shape", "x" * 5000,
)  # fmt: skip
STRINGS = "dataset", "recipe", "noise", "role", "precision", "weights_sha256"


def value(random: Random) -> Any:
    """The value of an attribute: of any type, seldom a harmless one."""
    whole = random.choice(WHOLE)
    several = [random.choice(WHOLE) for _ in range(random.choice([1, 2, 4, 4, 4, 2000]))]
    fractions = [random.choice(FRACTIONS) for _ in range(random.choice([1, 4]))]
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "inside")
    text = random.choice(TEXTS)
    return random.choice(
        [whole, whole, several, several, random.choice(FRACTIONS), fractions, text, [text], tensor,
         helper.make_graph([], "g", [], []), helper.make_tensor_type_proto(1, [2])]
    )  # fmt: skip


def attributes(model: onnx.ModelProto, random: Random) -> None:
    """Any value for an attribute that a node has, or for one that it has not."""
    node = random.choice(model.graph.node)
    names = [attribute.name for attribute in node.attribute] or ["alpha"]
    name = random.choice([*names, *names, random.choice(ATTRIBUTES)])
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.append(helper.make_attribute(name, value(random)))


def attribute_types(model: onnx.ModelProto, random: Random) -> None:
    """Attributes that say another type than they have, or that refer to one of a function."""
    node = random.choice([node for node in model.graph.node if node.attribute])
    attribute = random.choice(node.attribute)
    attribute.type = random.randrange(15)
    if random.random() < 0.5:
        attribute.i = random.choice(WHOLE)
    if random.random() < 0.3:
        attribute.ref_attr_name = "alpha"


def constants(model: onnx.ModelProto, random: Random) -> None:
    """Other numbers in shapes, slices and pixels."""
    small = [t for t in model.graph.initializer if len(t.raw_data) <= 32]
    tensor = random.choice(small)
    array = numpy_helper.to_array(tensor).copy()
    flat = array.reshape(-1)
    numbers = WHOLE if array.dtype == np.int64 else FRACTIONS
    with np.errstate(over="ignore"):
        flat[random.randrange(flat.size)] = random.choice(numbers)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def dimensions(model: onnx.ModelProto, random: Random) -> None:
    """Tensors, inputs and outputs of very many dimensions, or of absurd ones."""
    many, size = random.choice([9, 33, 1000, 50_000]), random.choice(WHOLE)
    tensor = random.choice(model.graph.initializer)
    given = random.choice([*model.graph.input, *model.graph.output]).type.tensor_type.shape.dim
    random.choice([
        lambda: tensor.dims.extend([1] * many),
        lambda: tensor.dims.extend([size]),
        lambda: tensor.dims.insert(0, size),
        lambda: [given.add(dim_value=1) for _ in range(many)],
        lambda: given.add(dim_value=size),
        lambda: setattr(random.choice(given), "dim_value", size),
        lambda: setattr(random.choice(given), "dim_param", "n" * many),
        lambda: setattr(random.choice(given), "denotation", "d"),
    ])()  # fmt: skip


def types(model: onnx.ModelProto, random: Random) -> None:
    """Casts to any type, tensors of any type, and inputs and outputs of any kind."""
    kind = random.randrange(30)
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    tensor, element = random.choice(model.graph.initializer), random.choice([1, 8])
    chosen = random.choice([*model.graph.input, *model.graph.output])
    inner = helper.make_tensor_type_proto(element, ["n"])
    random.choice([
        lambda: random.choice(casts).attribute[0].CopyFrom(helper.make_attribute("to", kind)),
        lambda: model.graph.node.add().CopyFrom(
            helper.make_node("Cast", [tensor.name], ["text"], to=random.choice([1, 8, kind]))
        ),
        lambda: setattr(tensor, "data_type", kind),
        lambda: setattr(chosen.type.tensor_type, "elem_type", kind),
        lambda: chosen.type.CopyFrom(helper.make_sequence_type_proto(inner)),
        lambda: chosen.type.CopyFrom(helper.make_optional_type_proto(inner)),
        lambda: chosen.type.CopyFrom(helper.make_map_type_proto(7, inner)),
    ])()  # fmt: skip


def many_nodes(model: onnx.ModelProto, random: Random) -> None:
    """Dead nodes, or nodes in a row before the first that has weights."""
    count = random.choice(MANY)
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("LeakyRelu", {"alpha": 0.2}), ("Tanh", {}), ("Round", {}), ("Identity", {}),
        ("Cast", {"to": 8}), ("Cast", {"to": 1}), ("Reshape", {}),
    ]  # fmt: skip
    kind, more = random.choice(kinds)
    dead, last = random.random() < 0.5, "z"
    made = []
    for number in range(count):
        made.append(helper.make_node(kind, ["z" if dead else last], [f"row{number}"], **more))
        last = f"row{number}"
    taker = next(node for node in model.graph.node if "z" in node.input)
    if not dead:
        taker.input[[*taker.input].index("z")] = last
    old = [*model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*made, *old])


def repeated_layers(model: onnx.ModelProto, random: Random) -> None:
    """A layer in a row, or beside itself, with the same weights or with copies of them."""
    layers = [node for node in model.graph.node if node.op_type in {"Gemm", "Conv", "DepthToSpace"}]
    layer = random.choice(layers)
    place = [*model.graph.node].index(layer)
    rest = [*model.graph.node][place + 1 :]
    del model.graph.node[place + 1 :]
    output = layer.output[0]
    for number in range(random.choice([1, 30, *MANY])):
        again = model.graph.node.add()
        again.CopyFrom(layer)
        again.output[0] = f"again{number}"
        if random.random() < 0.5:
            again.input[0], output = output, again.output[0]
    model.graph.node.extend(rest)


def many_parts(model: onnx.ModelProto, random: Random) -> None:
    """Very many initializers, inputs, entries, operator sets, functions, or long documentation."""
    graph, count = model.graph, random.choice(MANY)
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), "more")
    text = "d" * random.choice([10, 1_000_000])

    def initializers() -> None:
        for number in range(count):
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].name = f"more{number}"

    random.choice([
        initializers,
        lambda: [graph.input.add().CopyFrom(graph.input[0]) for _ in range(count)],
        lambda: [graph.output.add().CopyFrom(graph.output[0]) for _ in range(count)],
        lambda: [graph.value_info.add(name=f"v{i}") for i in range(count)],
        lambda: [model.metadata_props.add(key=f"k{i}", value="v") for i in range(count)],
        lambda: [graph.input[0].metadata_props.add(key="k", value="v") for _ in range(count)],
        lambda: [graph.node[0].metadata_props.add(key="k", value="v") for _ in range(count)],
        lambda: [model.opset_import.add(domain=f"d{i}", version=1) for i in range(count)],
        lambda: [model.functions.add(name="Gemm", domain="") for _ in range(count)],
        lambda: [model.training_info.add().algorithm.CopyFrom(graph) for _ in range(3)],
        lambda: [graph.sparse_initializer.add().values.CopyFrom(tensor) for _ in range(count)],
        lambda: [graph.quantization_annotation.add(tensor_name="z") for _ in range(count)],
        lambda: setattr(model, "doc_string", text),
        lambda: setattr(graph, "doc_string", text),
        lambda: setattr(graph.node[0], "doc_string", text),
        lambda: setattr(graph.initializer[0], "doc_string", text),
        lambda: setattr(graph.node[0], "name", text),
        lambda: setattr(model, "ir_version", random.choice(WHOLE)),
        lambda: setattr(model.opset_import[0], "version", random.choice(WHOLE)),
        lambda: setattr(model.opset_import[0], "domain", random.choice(TEXTS)),
    ])()  # fmt: skip


def stored_elsewhere(model: onnx.ModelProto, random: Random) -> None:
    """Weights in other fields than raw data, outside the file, or twice."""
    tensor = random.choice(model.graph.initializer)
    count = min(math.prod(tensor.dims), 1000)
    if random.random() < 0.7:
        tensor.ClearField("raw_data")
    random.choice([
        lambda: tensor.float_data.extend([0.5] * count),
        lambda: tensor.int64_data.extend([1] * count),
        lambda: tensor.int32_data.extend([1] * count),
        lambda: tensor.string_data.extend([b"x"] * count),
        lambda: tensor.double_data.extend([0.5] * count),
        lambda: tensor.external_data.add(key="location", value=random.choice(TEXTS)),
        lambda: setattr(tensor, "data_location", TensorProto.EXTERNAL),
        lambda: setattr(tensor.segment, "end", random.choice(WHOLE)),
        lambda: setattr(tensor, "name", "z"),
        lambda: setattr(tensor, "name", model.graph.initializer[0].name),
    ])()  # fmt: skip


def contracts(model: onnx.ModelProto, random: Random) -> None:
    """Contracts that are very long, deep, large, or that no JSON may be."""
    (entry,) = (entry for entry in model.metadata_props if entry.key == CONTRACT_KEY)
    contract = json.loads(entry.value)
    key, many = random.choice([*contract]), random.choice([10, 10_000, 200_000])
    depth = random.choice([20, 40, 400, 900, 100_000])
    golden = (contract["golden"] or [{}])[0]
    raw = random.choice([
        "1e400", "-1e400", "NaN", "Infinity", "1" * 400, "1" * 5000, "-" + "9" * 100, "1e-400",
        "[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, '"\\ud800"',
        '"\\u202e\\u0000\\u001b[31m"', json.dumps("x" * 1_000_000), "[[[[1]]]]", "null", "true",
        "[" + "[]," * many + "1]", "[" + '"猫",' * many + "1]", "[" + '{"a":1},' * many + "1]",
    ])  # fmt: skip
    changes: list[tuple[str, Any]] = [
        ("golden", [golden] * min(many, LARGEST // 2 // len(json.dumps(golden)))),
        ("golden", [{**golden, random.choice(["seed", "image", "label"]): "RAW"}]),
        ("golden", [{**golden, random.choice(["pixels", "z_sha256"]): "RAW"}]),
        ("golden", [{**golden, "pixels": "A" * many}]),
        ("classes", ["c"] * many),
        ("classes", [str(number) for number in range(many)]),
        ("latent_dim", random.choice(WHOLE)),
        ("image_shape", [random.choice(WHOLE) for _ in range(3)]),
        ("image_shape", [1, *[random.choice([8, 1024, 2**11])] * 2]),
        (random.choice(STRINGS), "猫" * many),
        (key, "RAW"), (key, "RAW"), (key, "RAW"), ("scores", {"fcd": "RAW"}), ("new", "RAW"),
        ("versions", {"x" * many: "y"}),
    ]  # fmt: skip
    name, new = random.choice(changes)
    entry.value = json.dumps({**contract, name: new}).replace('"RAW"', raw)


def not_finite(model: onnx.ModelProto, random: Random) -> None:
    """Weights that are no numbers."""
    weights = [t for t in model.graph.initializer if t.data_type in {1, 10} and len(t.raw_data) > 8]
    tensor = random.choice(weights)
    array = numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[random.randrange(array.size) :: random.choice([1, 7])] = random.choice(
        [math.nan, math.inf, -math.inf]
    )
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


FAMILIES: dict[str, Change] = {
    change.__name__: change
    for change in (
        attributes, attribute_types, constants, dimensions, types, many_nodes, repeated_layers,
        many_parts, stored_elsewhere, contracts, not_finite,
    )
}  # fmt: skip


def broken_names(file: bytes, random: Random) -> bytes:
    """A name that is not UTF-8."""
    names = [
        b"images",
        b"pixels",
        b"node_",
        b"layers",
        b"main_graph",
        b"pytorch",
        b"\x12\x03\n\x01n",
    ]
    name = random.choice([name for name in names if name in file])
    places = [i for i in range(len(file)) if file.startswith(name, i)]
    place = random.choice(places) + len(name) - 1
    return file[:place] + random.choice([b"\xff", b"\xc0", b"\x80"]) + file[place + 1 :]


def broken_fields(file: bytes, random: Random) -> bytes:
    """Fields beside the file's own, such as a second graph: protobuf merges it with the first."""
    graph = onnx.load_model_from_string(file).graph.SerializeToString()
    field: bytes = random.choice([
        b"\x3a\x00", b"\x3a" + varint(len(graph)) + graph,  # a second graph
        b"\x3a\x04\x1a\x02\x08\x01", b"\x3a" + b"\xff" * 10 + b"\x01",
        b"\x08\x09", b"\x08" + b"\xff" * 10, b"\x08\x00" * random.choice(MANY),  # versions
        b"\x42\x04\x10\x12\x10\x11", b"\x72\x04\x0a\x02\x0a\x02", b"\xa2\x01\x00",
        b"\x3b\x3c", b"\x00", b"\xf8" + b"\xff" * 8 + b"\x01\x00", b"\x4d\x00\x00\x00\x00",
    ])  # fmt: skip
    return field + file if random.random() < 0.5 else file + field


BYTES: dict[str, Callable[[bytes, Random], bytes]] = {
    change.__name__: change for change in (broken_names, broken_fields)
}


NAMES = [*FAMILIES, *BYTES, "networks"]


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    made = bytearray()
    while number >= 128:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


def forged(family: str, seed: int, good: Path) -> bytes:
    """A well sealed file of a family, of at most 8 MB, made of the generator.onnx at a path."""
    random, size = Random(f"{family} {seed}"), LARGEST + 1
    if family == "networks":
        return expensive(random, LARGEST)
    while size > LARGEST:
        model = onnx.load(good)
        for entry in model.metadata_props:
            if entry.key == SEAL_KEY:
                entry.value = UNSEALED
        if family in FAMILIES:
            FAMILIES[family](model, random)
        file = model.SerializeToString()
        if family in BYTES:
            file = BYTES[family](file, random)
        size = len(file)
    return seal(file)
