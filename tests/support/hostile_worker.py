"""Load damaged and forged artifacts under limits, one for each line on stdin; run as a program.

A line is JSON: the file to start from, and the edits and whether to seal it anew, or a family and
its seed. The answer is a line of JSON: "refused" with the message, "drawn", or "bad", with the
seconds of the processor and the memory that it took.
"""

import json
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from inference import ArtifactError, Sampler
from inference.artifact import CONTRACT_KEY, SEAL_KEY, UNSEALED, seal
from tests.support.families import forged

MEMORY = 2**30  # in addition to the imports
SECONDS = 10


def apply_bytes(data: bytearray, edit: dict[str, Any]) -> None:
    """Edit the bytes; `at` and `source` are places as shares of the file."""
    at, size = int(edit["at"] * len(data)), edit["size"]
    kind = edit["kind"]
    if kind == "flip" and data:
        data[min(at, len(data) - 1)] ^= 1 << edit["bit"]
    elif kind == "cut":
        del data[at : at + size]
    elif kind == "end":
        del data[at:]
    elif kind == "splice":
        source = int(edit["source"] * len(data))
        data[at:at] = data[source : source + size]
    elif kind == "overwrite":
        data[at : at + size] = bytes([edit["bit"] * 37 & 255]) * min(size, len(data) - at)


def apply_graph(model: onnx.ModelProto, edit: dict[str, Any]) -> None:
    """Edit the protobuf; indices wrap around."""
    graph, value = model.graph, edit["value"]
    node = graph.node[edit["index"] % max(len(graph.node), 1)] if graph.node else onnx.NodeProto()
    tensors = graph.initializer or [onnx.TensorProto()]
    tensor = tensors[edit["index"] % len(tensors)]
    values = [*graph.input, *graph.output]
    chosen = values[edit["index"] % len(values)] if values else onnx.ValueInfoProto()
    whole = int(value) if abs(value) < 2**63 else 2**62
    actions: dict[str, Callable[[], object]] = {
        "op": lambda: setattr(node, "op_type", edit["text"]),
        "domain": lambda: setattr(node, "domain", edit["text"]),
        "drop": lambda: node in graph.node and graph.node.remove(node),
        "twice": lambda: graph.node.add().CopyFrom(node),
        "rewire": lambda: node.input and node.input.__setitem__(0, tensor.name),
        "weights": lambda: len(node.input) > 1 and node.input.__setitem__(1, "z"),
        "output": lambda: node.output and node.output.__setitem__(0, edit["text"]),
        "attribute": lambda: node.attribute.append(onnx.helper.make_attribute("to", whole)),
        "perm": lambda: node.attribute.append(onnx.helper.make_attribute("perm", [whole, 0, 1])),
        "subgraph": lambda: node.attribute.append(onnx.helper.make_attribute("body", graph)),
        "dims": lambda: tensor.dims and tensor.dims.__setitem__(0, whole),
        "more_dims": lambda: tensor.dims.extend([whole, 0]),
        "type": lambda: setattr(tensor, "data_type", whole % 30),
        "data": lambda: setattr(tensor, "raw_data", tensor.raw_data[: abs(whole) % 64]),
        "shape": lambda: set_int64(graph, whole),
        "outside": lambda: outside(tensor, edit["text"]),
        "io": lambda: chosen.type.tensor_type.shape.dim.add(dim_value=whole),
        "io_type": lambda: setattr(chosen.type.tensor_type, "elem_type", whole % 30),
        "opset": lambda: setattr(model.opset_import[0], "version", whole % 2**31),
        "ir": lambda: setattr(model, "ir_version", whole % 2**31),
        "function": lambda: model.functions.add(name="Gemm", domain=""),
        "contract": lambda: edit_contract(model, edit),
    }
    actions[edit["kind"]]()


def set_int64(graph: onnx.GraphProto, value: int) -> None:
    """Write one number into the shape that Reshape takes."""
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT64 and len(tensor.raw_data) >= 16:
            raw = value.to_bytes(8, "little", signed=True)
            tensor.raw_data = tensor.raw_data[:8] + raw + tensor.raw_data[16:]


def outside(tensor: onnx.TensorProto, location: str) -> None:
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def edit_contract(model: onnx.ModelProto, edit: dict[str, Any]) -> None:
    for entry in model.metadata_props:
        if entry.key == CONTRACT_KEY:
            contract = json.loads(entry.value)
            contract[edit["text"]] = edit["json"]
            entry.value = json.dumps(contract)


def mutated(case: dict[str, Any], folder: Path) -> tuple[bytes, bool]:
    """The file of a case, and whether it differs from the good one."""
    good = (folder / case["file"]).read_bytes()
    if "family" in case:
        return forged(case["family"], case["seed"], folder / case["file"]), True
    file = good
    if case["graph"]:
        model = onnx.load_model_from_string(good)
        for edit in case["graph"]:
            apply_graph(model, edit)
        for entry in model.metadata_props:
            if entry.key == SEAL_KEY:
                entry.value = UNSEALED
        file = model.SerializeToString()
        if case["seal"]:
            file = seal(file)
    data = bytearray(file)
    for edit in case["bytes"]:
        apply_bytes(data, edit)
    if case["bytes"] and case["seal"]:
        data = bytearray(seal_anew(bytes(data)))
    return bytes(data), bytes(data) != good


def seal_anew(file: bytes) -> bytes:
    """Make the seal of a file valid again, if the file still has one."""
    marker = b"\x0a\x0e" + SEAL_KEY.encode() + b"\x12\x40"
    if file.count(marker) != 1:
        return file
    at = file.index(marker) + len(marker)
    return seal(file[:at] + UNSEALED.encode() + file[at + 64 :])


def judge(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Load the file of a case; the answer."""
    file, differs = mutated(case, folder)
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak begins anew
    before = peak_kilobytes()
    begin = time.process_time()
    signal.alarm(SECONDS)
    try:
        sampler = Sampler(file, provider="cpu")
        channels, height, width = sampler.metadata.image_shape
        sampler.metadata.to_json()
        images = sampler.sample(2)
        assert images.size == 2 * channels * height * width, images.shape
        if sampler.metadata.golden:
            sampler.check()
        outcome = "drawn"
    except ArtifactError as error:
        outcome = f"refused: {error}"
    except BaseException as error:
        outcome = f"bad: {error!r}"
    signal.alarm(0)
    return {
        "outcome": outcome,
        "differs": differs,
        "seconds": time.process_time() - begin,
        "kilobytes": peak_kilobytes() - before,
    }


def peak_kilobytes() -> int:
    """Peak memory of this process. (getrusage starts with the size of the parent process.)"""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0])


def too_long(*_: object) -> None:
    raise TimeoutError(f"over {SECONDS} s")


def main() -> None:
    folder = Path(sys.argv[1])
    Sampler(folder, provider="cpu").sample(2)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, too_long)
    for line in sys.stdin:
        print(json.dumps(judge(json.loads(line), folder)), flush=True)


if __name__ == "__main__":
    main()
