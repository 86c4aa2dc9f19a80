"""Which folder may import which: an allow-list, compared with the sources. No import cycles."""

import ast
import sys
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.files import ROOT

# From the top: a name may import names in the lines below it, and modules of its own folder. The
# names are folders, and modules outside these folders.
ORDER = {
    "training": [
        "run",
        "report compare train",
        "training_loop",
        "pages scoring divergence keeping",
        "records",
        "engine run_folder",
        "gan data",
        "config command_line interruption",
    ],
    "export": [
        "run score",
        "artifact_folder",
        "half_precision model_card",
        "parity scoring",
        "file_runners",
        "generator_files sampler_file",
    ],
    "inference": [
        "__main__",
        "run",
        "command",
        "__init__",
        "sampler",
        "golden model_files",
        "cpu gpu",
        "runtime writing onnx_format",
        "arrays artifact label noise",
        "errors strict_json",
    ],
}
# What a package may import from another.
ALLOWED = {
    "training": {"inference": "__init__ artifact errors noise strict_json writing"},
    "export": {
        "training": "config command_line data engine gan run_folder scoring",
        "inference": "__init__ artifact errors golden model_files noise onnx_format runtime "
        "writing",
    },
    "inference": {},
}
# The packages that a host of `inference` installs.
LIBRARIES = {"numpy", "onnxruntime", "PIL"}
MOST_MODULES = 10


@cache
def modules() -> dict[str, Path]:
    """Our modules by their dotted names."""
    found = {}
    for package in ORDER:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imported(name: str, path: Path) -> set[str]:
    """Everything that a file imports, anywhere in it, by its full name."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            inner = {f"{base}.{alias.name}" for alias in node.names} & modules().keys()
            found |= inner or {base}
    return found


def arrows() -> dict[str, set[str]]:
    """Which of our modules each of them imports."""
    return {name: imported(name, path) & modules().keys() for name, path in modules().items()}


def place(module: str) -> tuple[str, str]:
    """The package of a module, and its folder there, or its own name if it is in no folder."""
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0] or "__init__"


@cache
def rank(package: str, name: str) -> int:
    """The line of `ORDER` that a name is in."""
    return next(i for i, line in enumerate(ORDER[package]) if name in line.split())


def test_every_module_has_its_place_in_the_order() -> None:
    known = {
        (package, name) for package in ORDER for line in ORDER[package] for name in line.split()
    }
    inner = {place(name) for name in modules()} - {("training", "__init__"), ("export", "__init__")}
    assert inner == known


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_downwards(package: str) -> None:
    wrong = []
    for module, targets in arrows().items():
        own_package, here = place(module)
        if own_package != package or (package != "inference" and here == "__init__"):
            continue
        for target in targets:
            other_package, there = place(target)
            if other_package != package:
                fine = there in ALLOWED[package].get(other_package, "").split()
            else:
                fine = here == there or rank(package, here) < rank(package, there)
            if not fine:
                wrong.append(f"{module} imports {target}")
    assert wrong == []


def test_there_are_no_circles() -> None:
    try:
        TopologicalSorter(arrows()).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(reversed(error.args[1])))


def test_inference_imports_itself_relatively_and_only_what_a_host_installs() -> None:
    """The wheel is called `ganpack`, so no import may say `inference`. Hosts have no torch."""
    for name, path in modules().items():
        if place(name)[0] != "inference":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            outside = []
            if isinstance(node, ast.Import):
                outside = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                outside = [node.module or ""]
            tops = {module.partition(".")[0] for module in outside}
            assert tops <= sys.stdlib_module_names | LIBRARIES, (name, tops)


def test_no_folder_is_too_full_and_each_says_what_lives_there() -> None:
    files = [path for path in modules().values() if path.name != "__init__.py"]
    assert {
        folder: count for folder, count in Counter(f.parent for f in files).items()
        if count > MOST_MODULES
    } == {}  # fmt: skip
    for folder in {file.parent for file in files}:
        words = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8")))
        assert words, f"{folder.name}/__init__.py says nothing"


def test_tests_import_nothing_from_one_another_but_support() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        for name in imported("tests.x", path):
            if name.partition(".")[0] == "tests":
                assert name.startswith("tests.support"), f"{path.name} imports {name}"


def test_no_test_patches_a_private_name() -> None:
    """A test changes only arguments and public names."""
    found = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "setattr":
                named = [a.value for a in node.args if isinstance(a, ast.Constant)]
                names = [str(name).rpartition(".")[2] for name in named if isinstance(name, str)]
            elif isinstance(node, ast.Assign):
                names = [
                    target.attr
                    for target in node.targets
                    if isinstance(target, ast.Attribute)
                    and not (isinstance(target.value, ast.Name) and target.value.id == "self")
                ]
            found += [
                f"{path.name}:{getattr(node, 'lineno', 0)} {name}"
                for name in names
                if name.startswith("_") and not name.startswith("__")
            ]
    assert found == []
