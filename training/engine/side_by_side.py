"""Run two halves of a traced function of tensors concurrently, each in a CUDA stream."""

from collections.abc import Callable
from operator import getitem
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

Compiled = Callable[..., list[Any]]


def side_by_side(
    traced: GraphModule,
    tensors: list[Tensor],
    apart: list[bool],
    compile_part: Callable[[GraphModule, list[Tensor]], Compiled],
) -> Compiled:
    """Split a trace into three functions: the common part, the half that runs apart, the other
    half.

    apart: for each input, whether writes to it belong to the half that runs apart.
    """
    with torch.no_grad():
        traced = make_fx(torch.func.functionalize(traced))(*tensors)  # writes are at the end
    nodes = list(traced.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    (output,) = (node for node in nodes if node.op == "output")
    results: list[Node] = list(output.args[0])
    writes = [node for node in nodes if node.target is torch.ops.aten.copy_.default]
    own = dict(zip(inputs, apart, strict=True))
    one_writes = [node for node in writes if own[node.args[0]]]
    other_writes = [node for node in writes if not own[node.args[0]]]
    one, other = _ancestors(one_writes), _ancestors([*other_writes, *results])
    both = one & other - set(inputs)
    # Parts pass single tensors, not tuples; views are made again instead of being passed.
    both |= {user for node in both for user in node.users if user.target is getitem}
    halves = []
    for needed, written, returned in ((one, one_writes, []), (other, other_writes, results)):
        mine = needed - both
        mine |= _views({i for node in mine for i in node.all_input_nodes} & both)
        halves.append(_part(traced, [n for n in nodes if n in mine], inputs, returned))
        clash = {n.args[0] for n in written} & {
            i for n in ((one | other) - needed) for i in n.all_input_nodes if i in own
        }
        assert not clash, f"{clash} would be read and written at the same time"
    crossing = [node for node in nodes if node in both and any(node in half[1] for half in halves)]
    first_module, first_inputs = _part(traced, [n for n in nodes if n in both], inputs, crossing)
    at = {node: i for i, node in enumerate(inputs)}

    known = dict(zip(inputs, tensors, strict=True))
    first = compile_part(first_module, [known[node] for node in first_inputs])
    with torch.no_grad():
        between = first(*(known[node] for node in first_inputs))
    known |= dict(zip(crossing, between, strict=True))
    (one_module, one_inputs), (other_module, other_inputs) = halves
    run_one = compile_part(one_module, [known[node] for node in one_inputs])
    run_other = compile_part(other_module, [known[node] for node in other_inputs])
    cuda = tensors[0].device.type == "cuda"
    side = torch.cuda.Stream(tensors[0].device) if cuda else None

    def run(*given: Tensor) -> list[Any]:
        between = dict(zip(crossing, first(*(given[at[n]] for n in first_inputs)), strict=True))

        def of(needs: list[Node]) -> list[Tensor]:
            return [between[n] if n in between else given[at[n]] for n in needs]

        if side is None:
            run_one(*of(one_inputs))
            return run_other(*of(other_inputs))
        now = torch.cuda.current_stream()
        side.wait_stream(now)
        with torch.cuda.stream(side):
            run_one(*of(one_inputs))
        results = run_other(*of(other_inputs))
        now.wait_stream(side)
        return results

    return run


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


def _part(
    traced: GraphModule, nodes: list[Node], inputs: list[Node], returned: list[Node]
) -> tuple[GraphModule, list[Node]]:
    """A function made of some nodes in order, and the nodes that are its arguments."""
    mine = set(nodes) - set(inputs)
    needs = [
        *dict.fromkeys(
            i for node in nodes if node in mine for i in node.all_input_nodes if i not in mine
        )
    ]
    graph = Graph()
    copies = {node: graph.placeholder(f"input_{i}") for i, node in enumerate(needs)}
    for node in nodes:
        if node in mine:
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    graph.output([copies[node] for node in returned])
    return GraphModule(traced, graph), needs
