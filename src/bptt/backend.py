"""The only module that chooses an array library: a namespace, a device, transfer both ways, synchronise."""

import contextlib
import importlib
import os
import warnings
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np

from bptt.errors import BackendWarning, InputError

Array = Any  # an array of any library that array-api-compat knows
HostArray = np.ndarray[Any, np.dtype[Any]]

NAMES = ("auto", "numpy", "cupy", "torch", "jax", "strict")
DTYPES = ("float32", "float64")
NO_MEMORY = 2  # cudaErrorMemoryAllocation
CUDA = "pip install 'cupy-cuda13x[ctk]', or 'cupy-cuda12x[ctk]' for an older driver"

# NumPy is a namespace of the standard itself; array-api-compat's copy of it takes 0.4 s to import, as long as all the rest
_namespaces: dict[type, Any] = dict.fromkeys((np.ndarray, np.float32, np.float64, np.bool_, np.int64), np)


@dataclass(frozen=True)
class Backend:
    """An array library on one device with one floating-point type."""

    name: str  # the library that runs
    asked: str  # the library that was asked for
    xp: Any  # its namespace, as array-api-compat presents it, or NumPy
    device: Any  # None: the library's default
    dtype: str

    def put(self, host: HostArray, integers: str = "int64") -> Array:
        """A copy of a host array on the device: floats as `dtype`, integers as int64 or what is told."""
        dtype = self.dtype if host.dtype.kind == "f" else integers
        return self.xp.asarray(np.array(host, dtype=dtype, order="C"), device=self.device)

    def get(self, array: Array) -> HostArray:
        """A copy of a device array on the host; waits for the device."""
        if self.name == "cupy":
            copy: HostArray = array.get()  # CuPy refuses implicit transfers
            return copy
        if self.name == "strict":
            array = array.to_device(self.xp.Device("CPU_DEVICE"))
        elif self.name == "torch":
            array = array.detach().cpu().numpy()
        return np.array(array)

    def exchanged(self, shape: tuple[int, ...]) -> HostArray:
        """Zeros in memory of the host that the device reads and writes by itself, where it can (pinned)."""
        if self.name != "cupy":
            return np.zeros(shape, self.dtype)
        from cupyx import empty_pinned  # of CuPy alone

        try:
            pinned: HostArray = empty_pinned(shape, self.dtype)
        except RuntimeError as error:
            if getattr(error, "status", None) == NO_MEMORY:
                raise MemoryError(f"no pinned memory for {shape}") from error
            raise
        pinned[...] = 0
        return pinned

    def fetch(self, array: Array, into: HostArray) -> None:
        """Copy an array into a part (n,) of one of `exchanged`, of its type; waits for the device."""
        if self.name == "cupy":
            array.reshape(-1).get(out=into)
        else:
            into[...] = self.get(array).reshape(-1)

    def send(self, host: HostArray) -> Array:
        """A copy on the device of one of `exchanged`, or a part; waits for it."""
        if self.name != "cupy":
            return self.put(host)
        array = self.xp.empty(host.shape, dtype=host.dtype)
        array.set(host)  # asks for the copy, and does not wait for it
        self.synchronise()
        return array

    def room(self) -> int:
        """Bytes of the device that a text may take for the length of a run: a quarter of what is free on a GPU, else 1 GiB."""
        if self.name == "cupy":
            free, _ = self.xp.cuda.runtime.memGetInfo()
            return int(free) // 4
        return 1 << 30

    def synchronise(self) -> None:
        """Wait until the device has done all that was asked of it."""
        if self.name == "cupy":
            self.xp.cuda.get_current_stream().synchronize()

    def __str__(self) -> str:
        """The library that runs, its type and, after a fall-back, what was asked for."""
        asked = "" if self.asked in ("auto", self.name) else f" ({self.asked} was asked for)"
        return f"{self.name} {self.dtype}{asked}"


def namespace(array: Array) -> Any:
    """The array-API namespace that an array belongs to (remembered by type: 0.1 µs instead of 1.7)."""
    kind = type(array)
    if kind not in _namespaces:
        _namespaces[kind] = array_api_compat.array_namespace(array)
    return _namespaces[kind]


def device(array: Array) -> Any:
    """The device that an array lives on; None while JAX traces."""
    return array_api_compat.device(array)


def widest_float(xp: Any, where: Any) -> Any:
    """The longest floating-point type of a namespace on a device: float64, nearly everywhere."""
    if xp is np:
        return np.float64
    kinds = xp.__array_namespace_info__().dtypes(device=where, kind="real floating")
    return kinds.get("float64", xp.float32)


def to_host(array: Array) -> HostArray:
    """An array of any library on the host, where no Backend is at hand; waits for the device, to be read only."""
    return np.from_dlpack(array, device="cpu")


def select(name: str = "auto", dtype: str = "float32", *, require: bool | None = None) -> Backend:
    """The backend of that name.

    `auto` is CuPy where a CUDA device answers, else NumPy. `cupy` without a usable device falls back to NumPy with one
    `BackendWarning`, unless `require` (by default the environment variable BPTT_REQUIRE_BACKEND) forbids it.

    Raises:
        InputError: an unknown name or dtype, a library that is not installed, or a required device that is missing.
    """
    if name not in NAMES:
        raise InputError(f"backend {name!r} is unknown: use one of {', '.join(NAMES)}")
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown: use one of {', '.join(DTYPES)}")
    if require is None:
        require = os.environ.get("BPTT_REQUIRE_BACKEND", "0") not in ("", "0")
    asked = name
    if name in ("auto", "cupy"):
        obstacle = cupy_unavailable_reason()
        if obstacle and name == "cupy":
            if require:
                raise InputError(f"backend 'cupy' is required but {obstacle}")
            warnings.warn(f"backend 'cupy' is not usable: {obstacle}; going on with numpy", BackendWarning, stacklevel=2)
        name = "numpy" if obstacle else "cupy"
    if name == "strict":
        return _strict(dtype)
    if name in ("torch", "jax"):
        library = _import(name)
        if name == "jax":
            library.config.update("jax_enable_x64", True)  # token ids are int64; floats keep the type they are given
    module = {"jax": "jax.numpy", "numpy": "numpy"}.get(name, f"array_api_compat.{name}")
    return Backend(name, asked, importlib.import_module(module), None, dtype)


def cupy_unavailable_reason() -> str:
    """Why CuPy cannot be used here, with the remedy; empty where a CUDA device answers."""
    try:
        import cupy
    except ImportError as error:
        if error.name == "cupy":
            return f"CuPy is not installed (remedy: {CUDA})"
        return f"CuPy cannot be imported: {_reason(error.__cause__ or error)} (remedy: reinstall it)"  # CuPy frames the cause
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CUDARuntimeError without a driver
        return f"no CUDA device answers: {_reason(error)} (remedy: check the driver with nvidia-smi)"
    if not count:
        return "CuPy finds no CUDA device (remedy: check CUDA_VISIBLE_DEVICES and nvidia-smi)"
    try:
        float((cupy.ones((2, 2)) @ cupy.ones((2, 2))).sum())  # loads the compiler and cuBLAS, which CuPy does late, and waits
    except Exception as error:
        return f"CuPy cannot compute: {_reason(error)} (remedy: {CUDA}, with CUDA's libraries)"
    return ""


def use_device(number: int) -> None:
    """Let CuPy use the CUDA device of that number, counted around where there are fewer, before anything is asked of one."""
    with contextlib.suppress(Exception):  # whatever is in the way here is in the way of `select`, which says so
        import cupy

        cupy.cuda.Device(number % cupy.cuda.runtime.getDeviceCount()).use()


def cuda() -> dict[str, str]:
    """The CUDA device that CuPy uses, where one answers, and its versions."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return {
        "device": properties["name"].decode(),
        "memory": f"{properties['totalGlobalMem'] / 1e9:.1f} GB",
        "driver": str(cupy.cuda.runtime.driverGetVersion()),
        "cupy": str(cupy.__version__),
    }


def _reason(error: BaseException) -> str:
    """The first line of what an exception says."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"backend {name!r} needs a package that is not installed: pip install {name}") from None


def _strict(dtype: str) -> Backend:
    """array-api-strict on a pretended device, everything beyond the 2024.12 standard switched off."""
    try:
        import array_api_strict as xp
    except ImportError:
        raise InputError("backend 'strict' needs a package that is not installed: pip install array-api-strict") from None
    xp.set_array_api_strict_flags(
        api_version="2024.12", boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=()
    )
    return Backend("strict", "strict", xp, xp.Device("device1"), dtype)
