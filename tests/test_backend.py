"""The choice of an array library: what is selected, what is refused and in which words, and the way to the device and back."""

import copy
import dataclasses
import os
import pickle
import sys
import types
import warnings
from typing import get_args

import numpy as np
import pytest

from bptt import backend as backends
from bptt.backend import BACKENDS, BackendName, InputError, select
from bptt.errors import BackendWarning

CAUSE = "cudaErrorNoDevice: no CUDA-capable device is detected"


@pytest.fixture(autouse=True)
def no_wish_of_the_environment(monkeypatch):
    monkeypatch.delenv("BPTT_REQUIRE_BACKEND", raising=False)


@pytest.fixture
def without_cupy(monkeypatch):
    """A machine on which CuPy is not installed."""
    monkeypatch.setitem(sys.modules, "cupy", None)


@pytest.fixture
def cupy(monkeypatch):
    """A pretended CuPy whose `devices` a test sets: a number, or an exception to raise when asked."""
    fake = types.ModuleType("cupy")
    fake.devices = 1
    fake.waited = 0

    def count():
        if isinstance(fake.devices, Exception):
            raise fake.devices
        return fake.devices

    def synchronize():
        fake.waited += 1

    stream = types.SimpleNamespace(synchronize=synchronize)
    runtime = types.SimpleNamespace(getDeviceCount=count, memGetInfo=lambda: (400, 1000))
    fake.cuda = types.SimpleNamespace(runtime=runtime, get_current_stream=lambda: stream)
    fake.ones = np.ones
    fake.asarray = lambda host, *, device: DeviceArray(host)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", fake)
    return fake


class DeviceArray:
    """An array that comes to the host by `get` alone, as CuPy's do."""

    def __init__(self, host):
        self.host = host

    def get(self):
        return self.host.copy()

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")


# select


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["numpy", "strict", "torch", "jax"])
def test_a_backend_is_selected_by_name(name, dtype):
    if name in ("torch", "jax"):
        pytest.importorskip(name, reason=f"{name} is not installed: nox -s {name} runs this")
    chosen = select(name, dtype)
    assert (chosen.name, chosen.requested, chosen.dtype) == (name, name, dtype)
    assert str(chosen) == f"{name} {dtype}"
    array = chosen.put(np.zeros(2))
    assert str(array.dtype).endswith(dtype)
    assert backends.namespace(array) is chosen.xp


def test_the_numpy_backend_is_plain_numpy():
    assert select("numpy").xp is np
    assert select("numpy").dtype == "float32"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nunpy",), ["'nunpy'", "auto, numpy, cupy, torch, jax, strict"]),
        (("",), ["''", "auto, numpy"]),
        (("numpy", "float16"), ["'float16'", "float32, float64"]),
        (("cupy", "double"), ["'double'", "float32, float64"]),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(arguments, words):
    with pytest.raises(InputError) as caught:
        select(*arguments)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("torch", "array_api_compat.torch", "torch"),
        ("jax", "jax.numpy", "jax"),
        ("strict", "array_api_strict", "array-api-strict"),
    ],
)
def test_a_missing_library_is_an_error_with_a_remedy(monkeypatch, name, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"'{name}'.* pip install {package}$"):
        select(name)


def test_selecting_jax_allows_64_bits_in_the_whole_process(monkeypatch):
    updates = []
    config = types.SimpleNamespace(update=lambda name, value: updates.append((name, value)))
    monkeypatch.setitem(sys.modules, "jax", types.SimpleNamespace(config=config, numpy=np))
    monkeypatch.setitem(sys.modules, "jax.numpy", np)
    assert select("jax", "float32").name == "jax"
    assert updates == [("jax_enable_x64", True)]


def test_the_type_of_names_lists_the_table():
    assert get_args(BackendName) == backends.NAMES == ("auto", *BACKENDS)


def test_a_subclass_in_the_table_is_a_new_backend(monkeypatch):
    class Mine(backends.Backend):
        name, module, package = "mine", "numpy", "numpy"

    monkeypatch.setitem(BACKENDS, "mine", Mine)
    monkeypatch.setattr(backends, "NAMES", ("auto", *BACKENDS))
    mine = select("mine")
    assert (str(mine), mine.is_gpu, mine.is_host, mine.kernel_compiler) == ("mine float32", False, False, "")
    buffer = mine.pinned_buffer((3,))
    mine.copy_to_host(mine.put(np.arange(3.0)), buffer)
    np.testing.assert_array_equal(mine.get(mine.copy_to_device(buffer)), [0, 1, 2])


@pytest.mark.parametrize("again", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["deepcopy", "pickle"])
def test_a_backend_can_be_copied_and_pickled(lab, again):
    if lab.name != "strict-f32":  # a device that no selection gives
        assert again(lab.backend) == lab.backend
    chosen = dataclasses.replace(select("numpy"), requested="cupy")
    assert again(chosen) == chosen


# auto and cupy


def test_cupy_is_unavailable_if_its_libraries_cannot_be_loaded(cupy):
    def fails(shape):
        raise OSError("libnvrtc.so.13: cannot open shared object file")

    assert backends.cupy_unavailable_reason() == ""
    cupy.ones = fails
    assert backends.cupy_unavailable_reason().startswith(
        "CuPy cannot compute: libnvrtc.so.13: cannot open shared object file (remedy: pip"
    )


def test_auto_selects_numpy_silently_without_cupy(without_cupy):
    chosen = select()
    assert (chosen.name, chosen.requested, str(chosen)) == ("numpy", "auto", "numpy float32")


@pytest.mark.parametrize("devices", [0, RuntimeError(CAUSE)])
def test_auto_selects_numpy_silently_without_a_device(cupy, devices):
    cupy.devices = devices
    assert select("auto", require=True).name == "numpy"  # auto asks for the best there is: nothing is missing


def fall_back(**arguments):
    """The backend that takes CuPy's place, and the one warning that says so."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chosen = select("cupy", **arguments)
    (warning,) = caught
    assert warning.category is BackendWarning
    assert warning.filename == __file__  # it points at the caller
    message = str(warning.message)
    assert len(message.splitlines()) == 1
    assert message.startswith("backend 'cupy' is not usable: ")
    assert message.endswith("; going on with numpy")
    return chosen, message


def test_the_fallback_warning_says_that_cupy_is_not_installed(without_cupy):
    chosen, message = fall_back()
    assert (chosen.name, chosen.requested) == ("numpy", "cupy")
    assert str(chosen) == "numpy float32 (cupy was asked for)"
    assert chosen.xp is np
    assert "not installed" in message
    assert "pip install 'cupy-cuda13x[ctk]'" in message


@pytest.mark.parametrize(
    ("devices", "cause"),
    [
        (0, "no CUDA device"),
        (RuntimeError(CAUSE), CAUSE),
        (RuntimeError(f"{CAUSE}\nand a second line"), CAUSE),
        (RuntimeError(), "RuntimeError"),
        (ImportError("libcudart.so.13: cannot open shared object file"), "libcudart.so.13"),
        (OSError("libcuda.so.1: cannot open shared object file"), "libcuda.so.1"),
    ],
    ids=repr,
)
def test_the_fallback_warning_names_cause_and_remedy(cupy, devices, cause):
    cupy.devices = devices
    chosen, message = fall_back()
    assert chosen.name == "numpy"
    assert cause in message
    assert "nvidia-smi" in message
    assert "not installed" not in message


@pytest.mark.parametrize(
    "statement",
    ["raise {}", "try:\n    raise {}\nexcept ImportError as error:\n    raise ImportError('\\n=====\\nframed') from error"],
    ids=["plain", "framed"],
)
def test_the_fallback_warning_says_what_is_broken_in_cupy(monkeypatch, tmp_path, statement):
    error = "ImportError('libnvrtc.so.13: cannot open shared object file')"
    (tmp_path / "cupy.py").write_text(statement.format(error))
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    chosen, message = fall_back()
    assert chosen.name == "numpy"
    assert "CuPy cannot be imported: libnvrtc.so.13: cannot open" in message


@pytest.mark.parametrize("wish", [None, "", "0"])
def test_the_environment_may_allow_the_fallback(monkeypatch, without_cupy, wish):
    if wish is not None:
        monkeypatch.setenv("BPTT_REQUIRE_BACKEND", wish)
    assert fall_back()[0].name == "numpy"


def test_an_argument_can_require_the_backend(without_cupy):
    with pytest.raises(InputError, match="'cupy' is required but CuPy is not installed") as caught:
        select("cupy", require=True)
    assert "\n" not in str(caught.value)


def test_the_environment_can_require_the_backend(monkeypatch, cupy):
    monkeypatch.setenv("BPTT_REQUIRE_BACKEND", "1")
    cupy.devices = RuntimeError(CAUSE)
    with pytest.raises(InputError, match=CAUSE):
        select("cupy")
    assert select("numpy").name == "numpy"


def test_the_argument_overrides_the_environment(monkeypatch, without_cupy):
    monkeypatch.setenv("BPTT_REQUIRE_BACKEND", "1")
    assert fall_back(require=False)[0].name == "numpy"
    monkeypatch.setenv("BPTT_REQUIRE_BACKEND", "0")
    with pytest.raises(InputError):
        select("cupy", require=True)


@pytest.mark.parametrize("name", ["auto", "cupy"])
@pytest.mark.parametrize("require", [False, True])
def test_cupy_is_selected_if_there_is_a_device(cupy, name, require):
    chosen = select(name, "float64", require=require)  # any warning would be an error
    assert (chosen.name, chosen.requested, chosen.xp) == ("cupy", name, cupy)
    assert str(chosen) == "cupy float64"
    array = chosen.put(np.arange(3, dtype=np.float32))
    assert isinstance(array, DeviceArray)
    host = chosen.get(array)
    assert host.dtype == np.float64
    np.testing.assert_array_equal(host, [0, 1, 2])
    chosen.synchronize()
    assert cupy.waited == 1


# to the device and back


def dtype_of(array):
    return str(array.dtype).rpartition(".")[2]


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_put_converts_floats_to_the_backends_dtype(lab, kind):
    host = np.array([[0.5, -2.0, 1024.0]], kind)
    array = lab.put(host)
    assert dtype_of(array) == lab.backend.dtype
    np.testing.assert_array_equal(lab.backend.get(array), host)


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "int64"])
def test_put_converts_integers_to_int64(lab, kind):
    host = np.array([0, 1, np.iinfo(kind).max], kind)
    array = lab.put(host)
    assert dtype_of(array) == "int64"
    got = lab.backend.get(array)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, host.astype(np.int64))


@pytest.mark.parametrize("kind", ["uint8", "int32"])
def test_put_converts_integers_to_the_dtype_asked_for(lab, kind):
    host = np.array([0, 1, 255], "<u4")
    array = lab.backend.put(host, kind)
    assert dtype_of(array) == kind
    np.testing.assert_array_equal(lab.backend.get(array), host)


def test_a_text_may_take_a_quarter_of_the_free_memory_of_a_gpu(cupy):
    assert select("cupy").text_capacity() == 100
    assert select("numpy").text_capacity() == select("strict").text_capacity() == 2**30


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[:, ::2],
        lambda a: a[::-1],
        lambda a: np.asfortranarray(a),
        lambda a: np.broadcast_to(a[0], (3, 4)),
        lambda a: a[1:1],
        lambda a: a[0, 0:1].reshape(()),
    ],
    ids=["transposed", "strided", "reversed", "fortran", "broadcast", "empty", "zero-dimensional"],
)
@pytest.mark.parametrize("writeable", [True, False])
def test_put_and_get_round_trip_arrays_of_any_layout(lab, view, writeable):
    base = np.arange(12.0).reshape(3, 4)
    host = view(base)
    if not writeable:
        host.flags.writeable = False
    array = lab.put(host)
    assert tuple(array.shape) == host.shape
    assert backends.namespace(array) is lab.backend.xp
    got = lab.backend.get(array)
    assert type(got) is np.ndarray
    assert got.shape == host.shape
    np.testing.assert_array_equal(got, host)


def test_put_copies_its_input(lab):
    host = np.arange(3.0).astype(lab.backend.dtype)
    array = lab.put(host)
    host[...] = 7
    np.testing.assert_array_equal(lab.backend.get(array), [0, 1, 2])


def test_get_returns_a_writable_copy(lab):
    array = lab.put(np.arange(3.0))
    first = lab.backend.get(array)
    first[...] = 7
    np.testing.assert_array_equal(lab.backend.get(array), [0, 1, 2])


def test_get_returns_the_result_of_a_computation(lab):
    array = lab.put(np.arange(3.0))
    lab.backend.synchronize()
    np.testing.assert_array_equal(lab.backend.get(array + array), [0, 2, 4])


def test_put_places_arrays_on_the_backends_device(lab):
    array = lab.put(np.zeros(2))
    if lab.backend.device is not None:
        assert backends.device(array) == lab.backend.device
    like = lab.backend.xp.zeros(2, dtype=array.dtype, device=backends.device(array))
    assert backends.device(like) == backends.device(array)
    assert backends.namespace(like) is lab.backend.xp


def test_namespace_distinguishes_array_libraries():
    strict = select("strict")
    assert backends.namespace(strict.put(np.zeros(2))) is strict.xp
    assert backends.namespace(np.zeros(2)) is np
    assert backends.namespace(np.float64(0)) is np
    with pytest.raises(TypeError):
        backends.namespace([0.0])


def test_the_strict_backend_has_nothing_beyond_the_standard():
    chosen = select("strict")
    array = chosen.put(np.arange(3.0))
    assert backends.device(array) != chosen.xp.Device("CPU_DEVICE")
    assert chosen.xp.__array_api_version__ == "2025.12"
    with pytest.raises(RuntimeError):
        array[array > 1]
    with pytest.raises(RuntimeError):
        chosen.xp.nonzero(array)
    assert not hasattr(chosen.xp, "linalg")


def test_select_does_not_change_the_environment(without_cupy):
    before = dict(os.environ)
    select("auto")
    assert dict(os.environ) == before
