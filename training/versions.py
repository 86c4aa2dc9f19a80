"""Versions of this project and of the packages that it uses, for files that name their origin."""

from importlib.metadata import PackageNotFoundError, version

import inference

NO_METADATA = "no package metadata"


def package_versions(*names: str) -> dict[str, str]:
    """The version of each package by its name, and of ganpack.

    A checkout that is not installed has no package metadata, so ganpack's version is read from its
    code. Another package without metadata is listed as `NO_METADATA`.
    """
    return {"ganpack": inference.__version__} | {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return NO_METADATA
