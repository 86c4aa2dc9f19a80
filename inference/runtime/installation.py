"""The commands that install ganpack, as messages and model cards have them.

ganpack is on no package index, so its name alone installs nothing, or a stranger's package.
"""

import json
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import GanpackError

_NAME = "ganpack"
TO_TRAIN = "training,export"
"""The extras of training and export."""


class MissingError(GanpackError):
    """Something is not installed; the message says how to install it."""


def require(*modules: str, extras: str = TO_TRAIN) -> None:
    """Make sure that modules of some extras are installed, before a package imports them.

    Raises:
        ModuleNotFoundError: with what to do. `python -m` ends with that line, not with a traceback.
    """
    for name in modules:
        if find_spec(name) is None:
            problem = f"{name} is not installed for {sys.executable}. {how_to_get(extras)}"
            if sys.argv[:1] == ["-m"]:  # Python looks for the module that it will run
                sys.exit(f"error: {problem}")
            raise ModuleNotFoundError(problem, name=name)


def how_to_get(extras: str = TO_TRAIN) -> str:
    """How to get everything that some extras of the checkout need."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / "training").is_dir() or not (folder / "pyproject.toml").is_file():
        return (
            f"In a checkout of ganpack's repository, this installs all of it: "
            f"pip install -e '.[cpu,{extras}]'"
        )
    environment = folder / ".venv"
    activate = environment / "bin" / "activate"
    if activate.is_file() and Path(sys.prefix).resolve() != environment.resolve():
        return f"Activate the project's environment first: . {shlex.quote(str(activate))}"
    runtime = "" if find_spec("onnxruntime") else "cpu,"
    return f"This installs it: {_of_folder(folder, runtime + extras, editable=True)}"


def command(extra: str) -> str:
    """The command that installs ganpack again with an extra, "cpu" or "gpu".

    It names what this ganpack came from: a wheel file, a folder or a repository's address.
    """
    from importlib.metadata import PackageNotFoundError, distribution  # imported late: slow

    try:
        found = distribution(_NAME)
    except PackageNotFoundError:  # in a checkout that is not installed
        return _of_folder(Path(__file__).parents[2], extra, editable=True)
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    return _from(origin, extra) if origin else from_wheel(extra, found.version)


def from_wheel(extra: str, version: str) -> str:
    """The command that installs the wheel file of a version with an extra."""
    return f"pip install '{_NAME}-{version}-py3-none-any.whl[{extra}]'"


def _from(origin: dict[str, Any], extra: str) -> str:
    """The same for an origin as pip notes it: direct_url.json of PEP 610."""
    from urllib.parse import urlparse  # imported late: with all that they need, slow
    from urllib.request import url2pathname

    url = origin["url"]
    if url.startswith("file:") and "vcs_info" not in origin:
        editable = origin.get("dir_info", {}).get("editable", False)
        return _of_folder(Path(url2pathname(urlparse(url).path)), extra, editable=editable)
    if "vcs_info" in origin:
        repository = origin["vcs_info"]
        url = f"{repository['vcs']}+{url}@{repository['commit_id']}"
    return f"pip install {shlex.quote(f'{_NAME}[{extra}] @ {url}')}"


def _of_folder(path: Path, extra: str, *, editable: bool) -> str:
    return f"pip install {'-e ' if editable else ''}{shlex.quote(f'{path}[{extra}]')}"
