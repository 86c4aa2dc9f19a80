"""Run two halves of a traced function of tensors concurrently, each in a CUDA stream."""

from collections.abc import Callable
from copy import deepcopy
from operator import getitem
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

Compiled = Callable[..., list[Any]]


class Part(NamedTuple):
    """A function made of some nodes of a trace."""

    module: GraphModule
    inputs: list[Node]
    """The nodes whose values are its arguments."""


class Split(NamedTuple):
    """A trace in three parts. The two halves can run at the same time, after the common part."""

    common: Part
    passed: list[Node]
    """The nodes whose values the common part returns."""
    apart: Part
    other: Part


def side_by_side(
    traced: GraphModule,
    tensors: list[Tensor],
    apart: list[bool],
    compile_part: Callable[[GraphModule, list[Tensor]], Compiled],
) -> Compiled:
    """Compile a trace in three parts: the common part, the half that runs apart, the other half.

    apart: for each input, whether writes to it belong to the half that runs apart.
    """
    with torch.no_grad():
        # Writes are at the end.
        traced = make_fx(torch.func.functionalize(_with_declared_writes(traced)))(*tensors)
    inputs = [node for node in traced.graph.nodes if node.op == "placeholder"]
    split = _split(traced, dict(zip(inputs, apart, strict=True)))
    place = {node: i for i, node in enumerate([*inputs, *split.passed])}
    common, one, other = (
        [place[node] for node in part.inputs] for part in (split.common, split.apart, split.other)
    )
    run_common = compile_part(split.common.module, [tensors[i] for i in common])
    with torch.no_grad():
        known = [*tensors, *run_common(*(tensors[i] for i in common))]
    run_one = compile_part(split.apart.module, [known[i] for i in one])
    run_other = compile_part(split.other.module, [known[i] for i in other])
    cuda = tensors[0].device.type == "cuda"
    side = torch.cuda.Stream(tensors[0].device) if cuda else None

    def run(*given: Tensor) -> list[Any]:
        values = [*given, *run_common(*[given[i] for i in common])]
        if side is None:
            run_one(*[values[i] for i in one])
            return run_other(*[values[i] for i in other])
        now = torch.cuda.current_stream()
        side.wait_stream(now)
        with torch.cuda.stream(side):
            run_one(*[values[i] for i in one])
        results = run_other(*[values[i] for i in other])
        now.wait_stream(side)
        return results

    return run


def _with_declared_writes(traced: GraphModule) -> GraphModule:
    """A copy, in which the BatchNorm that changes its statistics in secret is one that says so."""
    copy = GraphModule(traced, deepcopy(traced.graph))
    for node in copy.graph.nodes:
        if node.target is torch.ops.aten.native_batch_norm.default:
            node.target = torch.ops.aten._native_batch_norm_legit.default
    copy.recompile()
    return copy


def _split(traced: GraphModule, apart: dict[Node, bool]) -> Split:
    """Split a trace whose writes are at its end.

    apart: for each input, whether writes to it belong to the half that runs apart.
    """
    nodes, inputs = list(traced.graph.nodes), list(apart)
    (output,) = (node for node in nodes if node.op == "output")
    results: list[Node] = list(output.args[0])
    writes = [node for node in nodes if node.target is torch.ops.aten.copy_.default]
    one_writes = [node for node in writes if apart[node.args[0]]]
    other_writes = [node for node in writes if not apart[node.args[0]]]
    one, other = _ancestors(one_writes), _ancestors([*other_writes, *results])
    _require_unread(one_writes, other - one)
    _require_unread(other_writes, one - other)
    both = (one & other) - set(inputs)
    # Parts pass single tensors, not tuples; views are made again instead of being passed.
    both |= {user for node in both for user in node.users if user.target is getitem}

    def half(needed: set[Node], returned: list[Node]) -> Part:
        mine = needed - both
        mine |= _views({i for node in mine for i in node.all_input_nodes} & both)
        return _part(traced, [node for node in nodes if node in mine], inputs, returned)

    first, second = half(one, []), half(other, results)
    needs = {*first.inputs, *second.inputs}
    passed = [node for node in nodes if node in both and node in needs]
    common = _part(traced, [node for node in nodes if node in both], inputs, passed)
    return Split(common, passed, first, second)


def _require_unread(writes: list[Node], others: set[Node]) -> None:
    """Check that the other half does not read what one half writes."""
    read = {node for other in others for node in other.all_input_nodes}
    clash = {node.args[0] for node in writes} & read
    assert not clash, f"{clash} would be read and written at the same time"


def _ancestors(nodes: list[Node]) -> set[Node]:
    found: set[Node] = set()
    left = list(nodes)
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left += node.all_input_nodes
    return found


def _views(nodes: set[Node]) -> set[Node]:
    """The nodes that are views, and the views they are based on."""
    found: set[Node] = set()
    left = list(nodes)
    while left:
        node = left.pop()
        if node not in found and _is_view(node):
            found.add(node)
            left += node.all_input_nodes
    return found


def _is_view(node: Any) -> bool:
    if node.target is getitem:
        return _is_view(node.args[0])
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    returned = [each.alias_info for each in node.target._schema.returns]
    return bool(returned) and all(info is not None and not info.is_write for info in returned)


def _part(traced: GraphModule, nodes: list[Node], inputs: list[Node], returned: list[Node]) -> Part:
    """A function made of some nodes in order."""
    mine = set(nodes) - set(inputs)
    read = [i for node in nodes if node in mine for i in node.all_input_nodes if i not in mine]
    needs = list(dict.fromkeys(read))
    graph = Graph()
    copies = {node: graph.placeholder(f"input_{i}") for i, node in enumerate(needs)}
    for node in nodes:
        if node in mine:
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    graph.output([copies[node] for node in returned])
    return Part(GraphModule(traced, graph), needs)
