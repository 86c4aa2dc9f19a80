"""Fixtures: a fake machine with CUDA, which replaces `driver.load` and `runtime`."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inference.runtime import driver, session
from tests.support.fake_cuda import LIBRARIES, PROVIDERS, FakeDriver, FakeRuntime


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The libraries that can be loaded, by file name."""
    there: dict[str, Any] = {name: object() for name in LIBRARIES} | {"libcuda.so.1": FakeDriver()}
    monkeypatch.setattr(driver, "load", lambda name, mode=0: there.get(Path(name).name))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    return there


@pytest.fixture
def fake(tmp_path: Path) -> Any:
    """The module onnxruntime of the package onnxruntime-gpu, in a folder of its own."""
    (tmp_path / "onnxruntime_gpu-1.31.1.dist-info").mkdir()
    (tmp_path / "onnxruntime_extensions-0.14.dist-info").mkdir()
    return SimpleNamespace(
        __version__="1.31.1",
        __file__=str(tmp_path / "onnxruntime" / "__init__.py"),
        cuda_version="13.0",
        get_available_providers=lambda: PROVIDERS,
    )


@pytest.fixture
def runtime(loaded: dict[str, Any], fake: Any, monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    """onnxruntime for the device of that machine."""
    played = FakeRuntime(fake, lambda: loaded["libcuda.so.1"])
    monkeypatch.setattr(session, "runtime", lambda: played)
    return played
