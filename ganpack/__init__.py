"""The name that `inference` has in the wheel, for a checkout: both names are the same modules.

`import ganpack` gives the package `inference` itself, and `ganpack.noise` gives `inference.noise`.
No module is loaded twice, so a class or a cache is the same under both names. The wheel does not
contain this folder: it installs `inference` as `ganpack`.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING

import inference

if TYPE_CHECKING:
    from inference import *  # noqa: F403

_NAME, _REAL = __name__, inference.__name__


class _Alias(MetaPathFinder, InspectLoader):
    """Finds `ganpack.x` and loads `inference.x` for it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{_NAME}."):
            return None
        spec = find_spec(_real(fullname))
        if spec is None:
            return None
        return spec_from_loader(fullname, self, origin=spec.origin, is_package=_is_package(spec))

    def exec_module(self, module: ModuleType) -> None:
        # The import system takes what is in sys.modules now, and drops the empty module.
        sys.modules[module.__name__] = import_module(_real(module.__name__))

    def is_package(self, fullname: str) -> bool:
        return _is_package(find_spec(_real(fullname)))

    def get_code(self, fullname: str) -> CodeType | None:  # for `python -m`
        spec = find_spec(_real(fullname))
        assert spec is not None
        assert isinstance(spec.loader, InspectLoader)
        return spec.loader.get_code(spec.name)

    def get_source(self, fullname: str) -> str | None:
        spec = find_spec(_real(fullname))
        assert spec is not None
        assert isinstance(spec.loader, InspectLoader)
        return spec.loader.get_source(spec.name)


def _real(name: str) -> str:
    return _REAL + name.removeprefix(_NAME)


def _is_package(spec: ModuleSpec | None) -> bool:
    return spec is not None and spec.submodule_search_locations is not None


_here = Path(__file__).resolve().parents[1] / "inference" / "__init__.py"
_there = Path(str(inference.__file__)).resolve()
if _there != _here:
    raise ImportError(
        f"another package named inference, {_there}, hides the one of the checkout, {_here}: "
        f"uninstall it, or install ganpack from its wheel"
    )
# First, because other finders would load the files of `inference` again under the other name.
sys.meta_path.insert(0, _Alias())
sys.modules[_NAME] = inference
