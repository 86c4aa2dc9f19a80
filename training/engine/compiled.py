"""Compile a function of tensors once; later processes find the result in a cache."""

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from training.engine.side_by_side import Compiled, side_by_side

_CACHE = "TORCHINDUCTOR_CACHE_DIR"  # read by the compiler, when it is imported


class Compilation:
    """A traced function of tensors, which may be compiled."""

    def __init__(
        self,
        function: Callable[..., Any],
        example: tuple[Any, ...],
        options: Mapping[str, Any],
        apart: Callable[..., list[Tensor]] | None = None,
    ) -> None:
        """Trace `function`, which may change its tensors in place; it is called once or twice.

        The trace holds the operations of the forward and backward passes, because `torch.compile`
        alone cannot differentiate twice, which the penalties need.

        example: example arguments; later calls may differ only in the tensors.
        options: settings of the compiler, by their names in torch._inductor.config.
        apart: given the arguments, the changed tensors to compute in a CUDA stream of their own.
        """
        set_cache_folder()
        leaves, structure = pytree.tree_flatten(example)
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        structures = []

        def of_tensors(*tensors: Tensor) -> list[Any]:
            whole = list(leaves)
            for place, tensor in zip(places, tensors, strict=True):
                whole[place] = tensor
            results, of_results = pytree.tree_flatten(
                function(*pytree.tree_unflatten(whole, structure))
            )
            structures.append(of_results)
            return results

        self._options = dict(options)
        self._tensors = [leaves[place] for place in places]
        self.graph = make_fx(of_tensors)(*self._tensors)
        """The operations of the trace."""
        self._results = structures[0]
        self._apart: list[bool] | None = None
        if apart is not None:
            chosen = {id(tensor) for tensor in apart(*example)}
            self._apart = [id(tensor) in chosen for tensor in self._tensors]

    def is_known(self) -> bool:
        """Whether this machine has the compiled function in its cache."""
        note = self._note()
        return note is not None and note.exists()

    def compile(self) -> Callable[..., Any]:
        """The compiled function, with the arguments of the original."""
        if self._apart is None:
            whole = self.compile_part(self.graph, self._tensors)
        else:
            whole = side_by_side(self.graph, self._tensors, self._apart, self.compile_part)
        with torch.no_grad():
            whole(*self._tensors)  # the first call compiles the rest
        self.note_compiled()

        def run(*arguments: Any) -> Any:
            given = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]
            with torch.no_grad():
                results = whole(*given)
            return pytree.tree_unflatten(results, self._results)

        return run

    def compile_part(self, traced: GraphModule, tensors: list[Tensor]) -> Compiled:
        with torch.no_grad():
            function: Compiled = torch._inductor.standalone_compile(
                traced,
                [*tensors],
                dynamic_shapes="from_example_inputs",
                options={"config_patches": self._options},
            )
        return function

    def _note(self) -> Path | None:
        folder = os.environ.get(_CACHE)
        return Path(folder) / "ganpack" / self._key() if folder else None

    def note_compiled(self) -> None:
        if note := self._note():
            with suppress(OSError):  # without a writable folder, the next process compiles again
                note.parent.mkdir(exist_ok=True)
                note.touch()

    def _key(self) -> str:
        """A key of everything that the compiled code depends on."""
        device = self._tensors[0].device
        parts = [
            self.graph.code,
            [(tuple(t.shape), t.stride(), str(t.dtype), str(t.device)) for t in self._tensors],
            sorted(self._options.items()),
            self._apart,
            torch.__version__,
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_num_threads(),
            torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else sorted(torch.cpu.get_capabilities().items()),
        ]
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def set_cache_folder() -> None:
    """Let the compiler keep its results where they outlast a restart of the machine.

    The compiled code is run as it is found there, so the folder must belong to the user alone. This
    has no effect if the compiler has been imported before, as `torch.optim` does.
    """
    if _CACHE not in os.environ:
        root = os.environ.get("XDG_CACHE_HOME")
        folder = (Path(root) if root else Path.home() / ".cache") / "ganpack" / "compiled"
        with suppress(OSError):  # without a writable folder, the compiler uses its own
            folder.mkdir(parents=True, exist_ok=True)
            os.environ[_CACHE] = str(folder)
