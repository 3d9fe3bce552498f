"""Devices of the array libraries: chosen by name, refused in one line, kept and changed on resume; ROCm has no kernels."""

import os
import pickle
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest

import bptt
from bptt import acceleration, cli, devices, dispatch
from bptt import backend as backends
from bptt.backend import CuPy, select
from bptt.config.settings import from_flags
from bptt.errors import BackendWarning, InputError, KernelWarning
from bptt.training import launch
from runs import NAMES

SMALL = {"hidden": 4, "steps": 4, "batch": 6, "report": None}


@pytest.fixture
def cupy(monkeypatch):
    """A pretended CuPy with two devices, and the list of those that were made the current one."""
    fake = types.ModuleType("cupy")
    fake.used = []
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 2, memGetInfo=lambda: (400, 1000), is_hip=False)
    device = lambda number=0: types.SimpleNamespace(id=number, use=lambda: fake.used.append(number))  # noqa: E731
    fake.cuda = types.SimpleNamespace(runtime=runtime, Device=device)
    fake.ones, fake.asarray = np.ones, np.asarray
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", fake)
    return fake


@pytest.fixture
def without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delenv("BPTT_REQUIRE_BACKEND", raising=False)


def refusal(*arguments, **options):
    with pytest.raises(InputError) as caught:
        select(*arguments, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# Which device a name means


@pytest.mark.parametrize(("device", "number"), [("1", 1), ("cuda:1", 1), ("cuda", 0), ("0", 0)])
@pytest.mark.parametrize("name", ["cupy", "auto"])
def test_a_device_of_cupy_becomes_the_current_one(cupy, name, device, number):
    chosen = select(name, device=device)
    assert (chosen.name, chosen.device, cupy.used) == ("cupy", None, [number])
    assert str(chosen) == f"cupy float32 on {device}"
    select(name)
    assert cupy.used == [number]  # without a name the current one stays


@pytest.mark.parametrize("device", ["2", "cuda:2", "gpu", "-1", "cuda:", "cpu"])
def test_a_device_that_cupy_lacks_is_refused(cupy, device):
    words = refusal("cupy", device=device)
    assert words == f"device {device!r}: CuPy cannot use it: it has devices 0 to 1"
    assert cupy.used == []


def test_numpy_has_the_cpu_only():
    assert str(select("numpy", device="cpu")) == "numpy float32 on cpu"
    words = "device 'cuda:1': backend 'numpy' has no such device: expected cpu, or leave it out"
    assert refusal("numpy", device="cuda:1") == words
    assert "leave it out" in refusal("strict", device="cpu")


def test_auto_on_the_cpu_is_numpy_and_asks_no_gpu(monkeypatch):
    monkeypatch.setattr(backends, "cupy_unavailable_reason", lambda: pytest.fail("asked"))
    assert select("auto", device="cpu").name == "numpy"


@pytest.mark.parametrize("name", ["auto", "cupy"])
def test_a_device_is_not_replaced_by_the_cpu(without_cupy, name):
    words = refusal(name, device="cuda:1")
    assert words.startswith("device 'cuda:1' cannot be used: CuPy is not installed")


def test_an_unpickled_backend_goes_on_without_a_missing_device(cupy):
    one = select("cupy", "float64", device="1")
    pickled = pickle.dumps(one)
    assert str(pickle.loads(pickled)) == str(one)
    cupy.cuda.runtime.getDeviceCount = lambda: 1
    with pytest.warns(BackendWarning, match="device '1': CuPy cannot use it: it has one device, 0; going on without it"):
        assert str(pickle.loads(pickled)) == "cupy float64"


def test_jax_devices_are_chosen_by_name():
    pytest.importorskip("jax", reason="jax is not installed: nox -s jax runs this")
    code = """
import numpy as np, bptt
from bptt.backend import device, select
for name in ("cpu:1", "1"):
    chosen = select("jax", device=name)
    assert device(chosen.put(np.ones(3))).id == 1, name
    assert str(chosen) == f"jax float32 on {name}"
assert device(select("jax", device="cpu").put(np.ones(3))).id == 0
for name in ("cpu:2", "nonsense", "cpu:x", ""):
    try:
        select("jax", device=name)
    except bptt.InputError as error:
        words = str(error)
        assert words.startswith(f"device {name!r}: JAX cannot use it (") and "cpu:0, cpu:1" in words, words
    else:
        assert name == "", name
model = bptt.train(["anna", "bob"] * 5, backend="jax", device="cpu:1", hidden=3, steps=2, batch=3, report=None)
assert {device(array).id for array in model.params.layers[0]} == {1}
print("done")
"""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


# The setting


@pytest.mark.parametrize("value", [1, 0, "cuda:1", "mps"])
def test_a_device_is_a_name_or_an_index(value):
    assert from_flags({"device": value}).device == str(value)


def test_the_flag_refuses_a_device_in_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--backend", "numpy", "--device", "cuda:1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bptt: device 'cuda:1': backend 'numpy' has no such device: expected cpu")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [True, 1.5, "", ["cpu"], -1])
def test_another_device_is_refused(value):
    with pytest.raises(InputError, match=r"^device .*: expected a device"):
        from_flags({"device": value})


@pytest.mark.parametrize("saved", [True, False], ids=["checkpoint", "no-checkpoint"])
def test_another_backend_resets_the_device_of_a_run(tmp_path, saved):
    bptt.train(NAMES, out=tmp_path / "run", backend="numpy", device="cpu", stop_after=1, **SMALL)
    if not saved:
        shutil.rmtree(tmp_path / "run" / "checkpoints")
    for changes, device in (({}, "cpu"), ({"backend": "numpy"}, None), ({"backend": "numpy", "device": "cpu"}, "cpu")):
        shutil.copytree(tmp_path / "run", tmp_path / "copy", symlinks=True)
        resumed = bptt.train(NAMES, resume=tmp_path / "copy", report=None, **changes)
        assert resumed.backend.requested_device == device
        shutil.rmtree(tmp_path / "copy")


def test_a_device_of_a_run_that_does_not_exist_here_is_one_line(tmp_path, monkeypatch):
    bptt.train(NAMES, out=tmp_path / "run", backend="numpy", device="cpu", stop_after=1, **SMALL)
    monkeypatch.setattr(backends.NumPy, "is_host", False)  # refuses any device
    with pytest.raises(InputError) as caught:
        bptt.train(NAMES, resume=tmp_path / "run", report=None)
    place = tmp_path / "run" / "checkpoints" / "step-00000001"
    assert str(caught.value).startswith(f"{place}: device 'cpu': backend 'numpy' has no such device")
    assert str(caught.value).endswith("the run was on that device: give another device or backend")
    with pytest.raises(InputError, match=r"^device 'cuda:3'"):
        bptt.train(NAMES, resume=tmp_path / "run", device="cuda:3", report=None)


def test_processes_may_have_different_devices(cupy):
    assert "device" in launch.LOCAL_SETTINGS
    assert backends.use_device("cupy", 3) is None
    assert cupy.used == [1]


# ROCm


def test_cupy_on_rocm_uses_the_pure_functions_and_says_so(cupy, monkeypatch):
    cupy.cuda.runtime.is_hip = True
    monkeypatch.delenv("BPTT_KERNELS", raising=False)
    monkeypatch.setattr(acceleration, "_kernel_module", lambda library: pytest.fail("kernels for CUDA are imported"))
    backend = CuPy("cupy", np, None, "float32")
    with pytest.warns(KernelWarning, match=r"^CuPy computes with ROCm, and the kernels are for CUDA: the pure functions run"):
        acceleration.enable_for(backend)
    assert dispatch.enabled() == frozenset()
    assert acceleration.compiled_by(backend) == ""
    with acceleration.gpu_kernels(backend):
        assert dispatch.enabled() == frozenset()
    assert acceleration.unavailable_reason("cupy") == acceleration.ROCM


def test_cupy_on_cuda_does_not_mention_rocm(cupy):
    assert not devices.cupy_is_rocm()
    del cupy.cuda.runtime.is_hip  # of an older CuPy
    assert not devices.cupy_is_rocm()


@pytest.mark.parametrize("command", ["sample run", "next run a", "score run names.txt", "evaluate run names.txt"])
def test_the_device_of_a_saved_model_is_chosen_by_name(capsys, monkeypatch, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("anna\n")
    bptt.train(["anna", "bob"] * 5, hidden=3, steps=2, out="run", backend="numpy", report=None)
    assert cli.main([*command.split(), "--backend", "numpy", "--device", "cpu"]) == 0
    capsys.readouterr()
    assert cli.main([*command.split(), "--backend", "numpy", "--device", "cuda:1"]) == 2
    assert capsys.readouterr().err.startswith("bptt: device 'cuda:1': backend 'numpy' has no such device")
