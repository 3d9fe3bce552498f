"""The CuPy wheel where no GPU is: it says why it cannot run, NumPy takes over or the run is refused, and kernels compile.

`nox -s cupy_without_gpu` installs the wheel. A run that names these tests (-m cupy_without_gpu) fails where they cannot run;
any other run skips them there.
"""

import ctypes
import importlib
import itertools
import json
import operator
import os
import re
import subprocess
import sys
import sysconfig
import types
import warnings
from pathlib import Path

import pytest

from bptt import backend, dispatch
from bptt.backend import InputError, cupy_unavailable_reason, select
from bptt.errors import BackendWarning
from bptt.kernels.cuda import tiling

pytestmark = pytest.mark.cupy_without_gpu

COMMAND = Path(sysconfig.get_path("scripts")) / "bptt"
TINY = ("train", "--steps", "2", "--hidden", "4", "--batch", "8", "--out", "model")


@pytest.fixture(autouse=True)
def cupy(request, monkeypatch):
    """The module; without it, or with a device, the test fails if it was asked for by name and is skipped otherwise."""
    monkeypatch.delenv("BPTT_REQUIRE_BACKEND", raising=False)
    give_up = pytest.fail if request.config.option.markexpr == "cupy_without_gpu" else pytest.skip
    try:
        import cupy
    except ImportError as error:
        give_up(f"the CuPy wheel is not importable ({error}): nox -s cupy_without_gpu installs it")
    if not cupy_unavailable_reason():
        give_up("a CUDA device answers: hide it with CUDA_VISIBLE_DEVICES=-1")
    return cupy


def bptt(*arguments, folder, **environment):
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
    )


def cause(cupy):
    """The first line of what CUDA itself says."""
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError) as caught:
        cupy.cuda.runtime.getDeviceCount()
    return str(caught.value).splitlines()[0]


def test_importing_cupy_gives_no_warning(cupy):
    done = subprocess.run([sys.executable, "-W", "error", "-c", "import cupy"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_reason_quotes_cuda_and_names_a_remedy(cupy):
    assert cupy_unavailable_reason().startswith(f"no CUDA device answers: {cause(cupy)} (remedy: ")


def test_cupy_has_every_function_that_the_package_calls(cupy):
    """The standard's names as array-api-compat adds them to CuPy; importing them needs no device."""
    xp = importlib.import_module("array_api_compat.cupy")
    source = Path(backend.__file__).parent
    files = [*(source / "nn").glob("*.py"), *(source / "textbook").glob("*.py")]
    called = {name for file in files for name in re.findall(r"\bxp\.([a-z_0-9.]*[a-z_0-9])", file.read_text("utf-8"))}
    assert {"matmul", "stack", "tanh", "linalg.qr"} <= called
    assert [name for name in sorted(called) if not callable(operator.attrgetter(name)(xp))] == []


def test_nccl_can_be_loaded_or_names_the_package_to_install(cupy):
    nccl = importlib.import_module("bptt.distributed.nccl")
    if nccl.unavailable_reason():
        major = cupy.cuda.runtime.runtimeGetVersion() // 1000
        assert nccl.unavailable_reason() == f"NCCL cannot be loaded (remedy: pip install nvidia-nccl-cu{major})"
    else:  # without a device it gives a name, and no more
        assert len(nccl.nccl.get_unique_id()) == 128
        assert all(callable(getattr(nccl.nccl.NcclCommunicator, name)) for name in ("send", "recv", "allGather"))


def test_auto_selects_numpy_without_a_gpu():
    chosen = select("auto")  # any warning would be an error
    assert (chosen.name, chosen.requested) == ("numpy", "auto")


def test_the_fallback_is_one_warning_of_one_line(cupy):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chosen = select("cupy")
    assert [warning.category for warning in caught] == [BackendWarning]
    message = str(caught[0].message)
    assert len(message.splitlines()) == 1
    assert cause(cupy) in message
    assert message.endswith("; going on with numpy")
    assert str(chosen) == "numpy float32 (cupy was asked for)"


def test_requiring_a_missing_device_is_an_error(cupy):
    with pytest.raises(InputError, match="'cupy' is required but no CUDA device answers"):
        select("cupy", require=True)


def test_training_falls_back_to_numpy_and_records_it(cupy, tmp_path):
    done = bptt(*TINY, "--backend", "cupy", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("bptt: warning: backend 'cupy' is not usable: ")
    assert cause(cupy) in done.stderr
    record = json.loads((tmp_path / "model" / "checkpoints" / "best" / "config.json").read_text("utf-8"))["record"]
    assert record["backend"] == {"asked": "cupy", "ran": "numpy"}

    sampled = bptt("sample", "model", "--backend", "cupy", folder=tmp_path)
    assert sampled.returncode == 0
    assert len(sampled.stderr.splitlines()) == 1
    assert bptt("sample", "model", "--backend", "numpy", folder=tmp_path).stdout == sampled.stdout

    refused = bptt("sample", "model", "--backend", "cupy", "--require-backend", folder=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")


@pytest.mark.parametrize(
    ("flags", "environment"),
    [(["--require-backend"], {}), ([], {"BPTT_REQUIRE_BACKEND": "1"})],
    ids=["flag", "environment"],
)
def test_training_that_requires_a_missing_device_is_refused(cupy, tmp_path, flags, environment):
    done = bptt(*TINY, "--backend", "cupy", *flags, folder=tmp_path, **environment)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "backend 'cupy' is required but no CUDA device answers" in done.stderr
    assert cause(cupy) in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_info_says_why_cupy_is_unavailable(cupy, tmp_path):
    done = bptt("info", "--json", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["cupy"]["usable"] == "no"
    assert cause(cupy) in found["cupy"]["why"]
    assert found["extras"]["cupy"].startswith(cupy.__version__)


def test_the_environment_can_allow_the_fallback(tmp_path):
    done = bptt(*TINY, "--backend", "cupy", folder=tmp_path, BPTT_REQUIRE_BACKEND="0")
    assert done.returncode == 0, done.stderr


def test_naming_the_cupy_backend_fails_the_test_run(pytestconfig):
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--backend", "cupy", __file__]
    done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--backend cupy: backend 'cupy' is required but no CUDA device answers" in done.stderr


def test_single_launch_knows_which_sizes_are_too_large(monkeypatch):
    cuda = importlib.import_module("bptt.kernels.cuda.recurrence")
    monkeypatch.setattr(cuda, "_limits", lambda number: tiling.Limits(108, 163_000))
    monkeypatch.setattr(cuda.cupy.cuda, "Device", lambda: types.SimpleNamespace(id=0))
    assert cuda.single_launch("vanilla", 2000, 16, 4)
    assert not cuda.single_launch("vanilla", 2000, 16, 8)
    assert not cuda.single_launch("lstm", 2000, 16, 4)


def test_the_driver_structs_have_the_layout_of_the_cuda_header():
    clusters = importlib.import_module("bptt.kernels.cuda.occupancy")
    assert ctypes.sizeof(clusters.Attribute) == 72
    assert ctypes.sizeof(clusters.Config) == 56
    assert clusters.Config.attributes.offset == 40


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "newest"])
def test_the_cuda_kernels_compile(cupy, request, architecture):
    """NVRTC needs no device. Sizes that take one block, a cluster and more blocks, in both types."""
    give_up = pytest.fail if request.config.option.markexpr == "cupy_without_gpu" else pytest.skip
    try:
        nvrtc = cupy.cuda.nvrtc
        if architecture == "newest":
            architecture = f"sm_{max(nvrtc.getSupportedArchs())}"
    except ImportError as error:
        give_up(f"NVRTC is not importable ({error}): pip install nvidia-cuda-nvrtc")
    limits = tiling.Limits(
        processors=108, shared=163_000, clusters=() if architecture == "sm_80" else (48, 32, 24, 20, 16, 14, 12)
    )
    sizes = (50, 4), (200, 4), (200, 8), (640, 4), (5000, 4), (5000, 8)
    for cell, backward, (hidden, size) in itertools.product(range(3), (False, True), sizes):
        how = tiling.choose_tiling(cell, backward, hidden, 16, size, limits)
        assert (how is None) == (hidden == 5000)  # a kernel for each step, then
        code = tiling.source(cell, backward, hidden, size, how, limits.threads)
        program = nvrtc.createProgram(code, "recurrence.cu", (), ())
        nvrtc.compileProgram(program, ("-std=c++17", f"-arch={architecture}"))
        assert len(nvrtc.getCUBIN(program)) > 1000


TYPES = {"T": "float", "I": "long long", "P": "long long", "int64": "long long", "uint32": "unsigned", "int32": "int"}


def elementwise_source(inputs: str, outputs: str, operation: str) -> str:
    """A CUDA program with the operation of an ElementwiseKernel, whose parameters are as CuPy declares them."""
    arguments, elements = [], []
    for parameters, constant in ((inputs, "const "), (outputs, "")):
        for raw, kind, name in re.findall(r"(raw )?(\w+) (\w+)(?:, |$)", parameters):
            kind = TYPES.get(kind, kind)
            if raw:
                arguments.append(f"{constant if outputs != parameters else ''}{kind}* {name}")
            else:
                arguments.append(f"{constant}{kind}* array_of_{name}")
                elements.append(f"{constant}{kind}& {name} = array_of_{name}[i];")
    body = " ".join(elements) + "\n" + operation
    signature = ", ".join([*arguments, "long long size"])
    kinds = "typedef float T; typedef long long I; typedef long long P;"
    loop = "for (ptrdiff_t i = blockIdx.x * (ptrdiff_t)blockDim.x + threadIdx.x; i < size; i += gridDim.x)"
    return f'{kinds}\nextern "C" __global__ void kernel({signature}) {{ {loop} {{ {body}; }} }}'


def test_the_elementwise_kernels_compile(cupy, monkeypatch):
    """NVRTC compiles the operation of each kernel, in a loop as CuPy writes one around it."""
    made = []
    monkeypatch.setattr(cupy, "ElementwiseKernel", lambda *words, **_: made.append(words))
    for name in [name for name in sys.modules if name.startswith("bptt.kernels.cuda.elementwise")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(dispatch, "kernel_for", lambda *_: lambda function: function)
    elementwise = importlib.import_module("bptt.kernels.cuda.elementwise")
    for count in (1, 2, elementwise.MAX_GROUPS):
        elementwise._adam(count)
    elementwise._concatenate(3)
    assert len(made) > 10
    nvrtc = cupy.cuda.nvrtc
    for inputs, outputs, operation, name in made:
        program = nvrtc.createProgram(elementwise_source(inputs, outputs, operation), f"{name}.cu", (), ())
        nvrtc.compileProgram(program, ("-std=c++17", "-arch=sm_90"))
        assert len(nvrtc.getCUBIN(program)) > 500, name
