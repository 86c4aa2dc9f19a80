"""provider="cuda" runs on CUDA, or the error names what is missing.

Without a GPU, fakes replace the driver and onnxruntime's CUDA provider.
"""

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inference import ProviderError, Sampler
from inference.command import doctor
from inference.runtime import cuda, driver, installation, session
from inference.runtime.cuda import Library, require_cuda
from tests.support.fake_cuda import LIBRARIES, FakeDriver, FakeRuntime


def problem(runtime: Any, device: int = 0) -> str:
    with pytest.raises(ProviderError) as info:
        require_cuda(runtime, device)
    return str(info.value)


def test_nothing_is_wrong_where_all_is_there(loaded: dict[str, Any], fake: Any) -> None:
    require_cuda(fake, 0)


def test_missing_libraries_are_named_with_their_pip_line(loaded: dict[str, Any], fake: Any) -> None:
    del loaded["libcurand.so.10"]
    text = "libcurand.so.10 cannot be loaded: pip install 'nvidia-curand~=10.0'"
    assert problem(fake) == text
    del loaded["libcublas.so.13"], loaded["libcublasLt.so.13"]
    assert problem(fake) == (
        "libcublasLt.so.13, libcublas.so.13, libcurand.so.10 cannot be loaded: "
        "pip install 'nvidia-cublas~=13.0' 'nvidia-curand~=10.0'"
    )


def test_cudnn_is_wanted_for_convolutions_alone(
    loaded: dict[str, Any],
    fake: Any,
    tiny_artifact: Path,
    conv_artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "runtime", lambda: fake)
    missing = "libcudnn.so.9 cannot be loaded: pip install 'nvidia-cudnn-cu13~=9.0'"
    with pytest.raises(ProviderError, match=re.escape(missing)):
        Sampler(conv_artifact, provider="cuda")
    with pytest.raises(AttributeError, match="SessionOptions"):  # the check of the driver passed
        Sampler(tiny_artifact, provider="cuda")
    loaded["libcudnn.so.9"] = object()
    with pytest.raises(AttributeError, match="SessionOptions"):
        Sampler(conv_artifact, provider="cuda")


def test_an_old_driver_is_told_with_what_it_can_run(loaded: dict[str, Any], fake: Any) -> None:
    loaded["libcuda.so.1"] = FakeDriver(version=12040)
    text = problem(fake)
    assert "driver is too old: it runs CUDA 12.4 at most, onnxruntime 1.31.1 needs 13.0" in text
    assert text.endswith("pip install 'onnxruntime-gpu[cuda,cudnn]<1.27'")
    loaded["libcuda.so.1"] = FakeDriver(
        version=13020
    )  # a newer driver runs programs for older ones
    require_cuda(fake, 0)


def test_two_onnxruntimes_over_one_another_are_told(
    loaded: dict[str, Any], fake: Any, tmp_path: Path
) -> None:
    (tmp_path / "onnxruntime-1.30.0.dist-info").mkdir()
    assert problem(fake) == (
        "onnxruntime 1.30.0 and onnxruntime-gpu 1.31.1 are installed over one another: "
        f"pip uninstall -y onnxruntime onnxruntime-gpu && {installation.command('gpu')}"
    )


def test_the_build_for_the_cpu_is_told(loaded: dict[str, Any], fake: Any) -> None:
    fake.get_available_providers = lambda: ["CPUExecutionProvider"]
    assert problem(fake) == (
        f"onnxruntime 1.31.1 here has no CUDA provider: "
        f"pip uninstall -y onnxruntime && {installation.command('gpu')}"
    )


@pytest.mark.parametrize("devices", [None, 0, 1])
def test_where_the_cpu_is_all_there_is_nothing_is_said_of_cuda(
    devices: int | None, runtime: FakeRuntime, loaded: dict[str, Any], tiny_artifact: Path,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """`auto` does not advise to install what the machine cannot use."""
    caplog.set_level("INFO", "inference")
    loaded["libcuda.so.1"] = None if devices is None else FakeDriver(count=devices)
    assert Sampler(tiny_artifact).provider == ("cuda:0" if devices else "cpu")
    monkeypatch.setattr(runtime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert Sampler(tiny_artifact).provider == "cpu"
    with_cuda, for_the_cpu = caplog.messages
    assert "pip" not in with_cuda
    assert (
        for_the_cpu == "generating images on the CPU: onnxruntime 1.31.1 here is the build for it"
    )


def test_drivers_and_devices_that_are_not_there_are_told(loaded: dict[str, Any], fake: Any) -> None:
    loaded["libcuda.so.1"] = FakeDriver(count=2)
    require_cuda(fake, 1)
    assert problem(fake, 2) == "there is no CUDA device 2, this machine shows 2: cuda:0 to cuda:1"
    loaded["libcuda.so.1"] = FakeDriver(init=100)
    assert problem(fake) == "no NVIDIA GPU: the driver shows no device"
    fake.get_available_providers = lambda: ["CPUExecutionProvider"]
    assert (
        problem(fake) == "no NVIDIA GPU: the driver shows no device"
    )  # another build would not help
    loaded["libcuda.so.1"] = FakeDriver(init=3)
    assert "forked" in problem(fake)
    loaded["libcuda.so.1"] = FakeDriver(init=802)
    assert "cuInit says 802, CUDA_ERROR_SYSTEM_NOT_READY: system not yet initialized" in problem(
        fake
    )
    del loaded["libcuda.so.1"]
    assert problem(fake) == "no NVIDIA driver: libcuda.so.1 cannot be loaded"


def test_each_onnxruntime_needs_its_own_libraries(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    assert [library.name for library in cuda.libraries(fake)] == LIBRARIES
    fake.cuda_version, fake.__version__ = "12.8", "1.26.0"
    assert cuda.libraries(fake) == [
        Library("libcublasLt.so.12", "nvidia-cublas-cu12~=12.0"),
        Library("libcublas.so.12", "nvidia-cublas-cu12~=12.0"),
        Library("libcudart.so.12", "nvidia-cuda-runtime-cu12~=12.0"),
        Library("libcurand.so.10", "nvidia-curand-cu12~=10.0"),
        Library("libcufft.so.11", "nvidia-cufft-cu12~=11.0"),
        Library("libcudnn.so.9", "nvidia-cudnn-cu12~=9.0"),
    ]
    monkeypatch.setattr("platform.system", lambda: "Windows")
    fake.cuda_version, fake.__version__ = "13.0", "1.31.1"
    names = [library.name for library in cuda.libraries(fake)]
    assert names == ["cublasLt64_13.dll", "cublas64_13.dll", "cudart64_13.dll"]


def test_libraries_that_pip_installed_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "nvidia" / "cu13" / "lib" / "libcurand.so.10"
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path / name)]),
    )
    monkeypatch.setattr(driver, "load", lambda name, mode=0: name == str(file))
    assert cuda.load(Library("libcurand.so.10", "-")) == str(file)
    assert cuda.load(Library("libcublas.so.13", "-")) is None


def test_a_session_on_cuda_is_asked_for_strictly(
    runtime: FakeRuntime, loaded: dict[str, Any], tiny_artifact: Path
) -> None:
    loaded["libcuda.so.1"] = FakeDriver(count=2)
    sampler = Sampler(tiny_artifact, provider="cuda:1")
    assert sampler.provider == "cuda:1"
    ((providers, options, others),) = runtime.asked
    ((name, asked),) = providers
    assert int(asked.pop("user_compute_stream")) in loaded["libcuda.so.1"].streams
    assert (name, asked) == ("CUDAExecutionProvider", {"use_tf32": "0", "device_id": "1"})
    assert others == {"enable_fallback": 0}
    assert options.log_severity_level == 4
    assert ("session.disable_cpu_ep_fallback", "1") in runtime.settings
    Sampler(tiny_artifact, provider="cuda", tf32=True)
    # Without "device_id": naming it makes onnxruntime print a warning.
    assert runtime.asked[1][0][0][1].keys() == {"use_tf32", "user_compute_stream"}
    assert runtime.asked[1][0][0][1]["use_tf32"] == "1"


def test_a_node_on_the_cpu_breaks_the_promise(runtime: FakeRuntime, tiny_artifact: Path) -> None:
    runtime.assigned.add("CPUExecutionProvider")
    with pytest.raises(ProviderError, match=r"CPUExecutionProvider.*instead of CUDA alone"):
        Sampler(tiny_artifact, provider="cuda")
    assert Sampler(tiny_artifact).provider == "cpu"


def test_auto_takes_cuda_if_all_holds_and_says_why_in_one_line(
    runtime: FakeRuntime,
    loaded: dict[str, Any],
    tiny_artifact: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    assert Sampler(tiny_artifact).provider == "cuda:0"
    del loaded["libcurand.so.10"]
    assert Sampler(tiny_artifact).provider == "cpu"
    Sampler(tiny_artifact, provider="cpu")  # the host chose the CPU, so no reason is needed
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        (
            "inference",
            "generating images on CUDA device 0: it has all libraries, and each node of the graph "
            "runs there",
        ),
        (
            "inference",
            "generating images on the CPU, because CUDA cannot be used: libcurand.so.10 cannot be "
            "loaded: pip install 'nvidia-curand~=10.0'",
        ),
    ]


def test_the_doctor_names_all_that_is_missing(
    runtime: FakeRuntime, loaded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "runtime", lambda: runtime)
    report = doctor.examine()
    assert report["cuda"]["problem"] is None
    assert report["cuda"]["driver_runs_cuda"] == "13.0"
    assert report["cuda"]["devices"] == [
        {"name": "GPU 0", "compute_capability": "9.0", "memory_bytes": 80 * 2**30}
    ]
    assert report["onnxruntime"]["packages"] == {"onnxruntime-gpu": "1.31.1"}
    del loaded["libcuda.so.1"], loaded["libcurand.so.10"]
    report = doctor.examine()
    assert "no NVIDIA driver" in report["cuda"]["problem"]
    assert report["cuda"]["libraries"]["libcurand.so.10"] == "missing"
    assert report["cuda"]["libraries"]["libcublas.so.13"] != "missing"
    text = doctor.describe(report)
    assert "    libcurand.so.10: missing" in text
    assert "  problem: no NVIDIA driver" in text
    monkeypatch.setattr(runtime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert doctor.examine()["cuda"] == {"problem": "this onnxruntime is the build for the CPU"}
