"""Array libraries: which one computes, on which device, and how arrays get there and back.

No other module selects a library or compares the name of one; they ask a `Backend` what it can do. A new library takes one
subclass of `Backend`, its line in `BACKENDS` and its name in `BackendName`.
"""

import dataclasses
import importlib
import os
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import array_api_compat
import numpy as np

from bptt import devices, errors
from bptt.devices import Device, cupy_unavailable_reason
from bptt.errors import BackendWarning, InputError

Array = Any  # an array of any library that array-api-compat knows
HostArray = np.ndarray[Any, np.dtype[Any]]
DtypeName = Literal["float32", "float64"]
BackendName = Literal["auto", "numpy", "cupy", "torch", "jax", "strict"]  # auto, and the names of BACKENDS

DTYPES: tuple[DtypeName, ...] = get_args(DtypeName)
NO_MEMORY = 2  # cudaErrorMemoryAllocation

# NumPy is a namespace of the standard itself; array-api-compat's copy of it takes 0.4 s to import, as long as all the rest
_namespaces: dict[type, Any] = dict.fromkeys((np.ndarray, np.float32, np.float64, np.bool_, np.int64), np)


@dataclass(frozen=True)
class Backend:
    """An array library on one device with one floating-point type."""

    name: ClassVar[str]  # on the command line
    module: ClassVar[str]  # whose namespace follows the array API standard
    package: ClassVar[str]  # what pip installs
    is_gpu: ClassVar[bool] = False  # a CUDA device computes, asynchronously, and one sequence takes as long as many
    is_host: ClassVar[bool] = False  # arrays are NumPy's: threads can share them, and to read one number costs nothing
    kernel_compiler: ClassVar[str] = ""  # what compiles the kernels for these arrays (bptt.kernels); empty: there are none

    requested: str  # the name that was asked for: auto, or another library that cannot be used
    xp: Any  # the namespace
    device: Any  # None: the library's default
    dtype: str
    requested_device: Device = None  # in the words of the library; None: its default

    @classmethod
    def open(cls, requested: str, dtype: str, device: Device = None) -> Self:
        """Import the library and find the device.

        Raises:
            InputError: it is not installed, or there is no such device.
        """
        try:
            xp = importlib.import_module(cls.module)
        except ImportError:
            raise InputError(f"backend {cls.name!r} needs a package that is not installed: pip install {cls.package}") from None
        return cls(requested, xp, None if device is None else cls.find_device(device, dtype), dtype, device)

    @classmethod
    def find_device(cls, device: str, dtype: str) -> Any:
        """The device of that name as the library's functions take it; None for the one that they use anyway."""
        if device == "cpu" and cls.is_host:
            return None
        expected = "expected cpu, or " if cls.is_host else ""
        raise InputError(f"device {device!r}: backend {cls.name!r} has no such device: {expected}leave it out")

    def put(self, host: HostArray, integers: str = "int64") -> Array:
        """Copy a host array to the device: floats as `dtype`, integers as `integers`."""
        dtype = self.dtype if host.dtype.kind == "f" else integers
        return self.xp.asarray(np.array(host, dtype=dtype, order="C"), device=self.device)

    def get(self, array: Array) -> HostArray:
        """Copy an array to the host; waits for the device."""
        return np.array(array)

    def pinned_buffer(self, shape: tuple[int, ...]) -> HostArray:
        """Zeros on the host, in pinned memory if the device copies faster to and from that."""
        return np.zeros(shape, self.dtype)

    def copy_to_host(self, array: Array, buffer: HostArray) -> None:
        """Copy an array to a part (n,) of a `pinned_buffer` with the same type; waits for the device."""
        buffer[...] = self.get(array).reshape(-1)

    def copy_to_device(self, buffer: HostArray) -> Array:
        """Copy a `pinned_buffer`, or a part of one, to the device; waits until the copy is done."""
        return self.put(buffer)

    def text_capacity(self) -> int:
        """Bytes that a text may occupy on the device during a run: 1 GiB, or a quarter of a GPU's free memory."""
        return 1 << 30

    def synchronize(self) -> None:
        """Wait until the device has finished all its work."""

    def __str__(self) -> str:
        """The library, its type and, after a fall-back, what was asked for."""
        requested = "" if self.requested in ("auto", self.name) else f" ({self.requested} was asked for)"
        device = "" if self.requested_device is None else f" on {self.requested_device}"
        return f"{self.name} {self.dtype}{device}{requested}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the names alone, since a namespace cannot be pickled: unpickling selects the library again."""
        return _select_again, (self.name, self.dtype, self.requested, self.requested_device)


class NumPy(Backend):
    """NumPy: the host."""

    name, module, package = "numpy", "numpy", "numpy"
    is_host = True
    kernel_compiler = "llvmlite"


class CuPy(Backend):
    """CuPy: a CUDA device."""

    name, module, package = "cupy", "array_api_compat.cupy", "cupy"
    is_gpu = True
    kernel_compiler = "CuPy"

    @classmethod
    def find_device(cls, device: str, dtype: str) -> Any:
        """Make the CUDA device the current one, where CuPy puts all arrays from then on."""
        devices.use_cuda_device(device)

    def get(self, array: Array) -> HostArray:
        """Copy an array to the host; waits for the device."""
        return np.asarray(array.get())  # CuPy refuses implicit transfers

    def pinned_buffer(self, shape: tuple[int, ...]) -> HostArray:
        """Zeros in pinned memory of the host."""
        from cupyx import empty_pinned

        try:
            pinned: HostArray = empty_pinned(shape, self.dtype)
        except RuntimeError as error:
            if getattr(error, "status", None) == NO_MEMORY:
                raise MemoryError(f"no pinned memory for {shape}") from error
            raise
        pinned[...] = 0
        return pinned

    def copy_to_host(self, array: Array, buffer: HostArray) -> None:
        """Copy an array to a part (n,) of a `pinned_buffer` with the same type; waits for the device."""
        array.reshape(-1).get(out=buffer)

    def copy_to_device(self, buffer: HostArray) -> Array:
        """Copy a `pinned_buffer`, or a part of one, to the device; waits until the copy is done."""
        array = self.xp.empty(buffer.shape, dtype=buffer.dtype)
        array.set(buffer)  # starts the copy
        self.synchronize()
        return array

    def text_capacity(self) -> int:
        """Bytes that a text may occupy on the device during a run: a quarter of its free memory."""
        free, _ = self.xp.cuda.runtime.memGetInfo()
        return int(free) // 4

    def synchronize(self) -> None:
        """Wait until the device has finished all its work."""
        self.xp.cuda.get_current_stream().synchronize()


class Torch(Backend):
    """PyTorch without its autograd, by default on the CPU."""

    name, module, package = "torch", "array_api_compat.torch", "torch"

    @classmethod
    def find_device(cls, device: str, dtype: str) -> Any:
        """The `torch.device`."""
        return devices.torch_device(device, dtype)

    def get(self, array: Array) -> HostArray:
        """Copy an array to the host."""
        return np.array(array.detach().cpu().numpy())


class Jax(Backend):
    """JAX, by default on its default device."""

    name, module, package = "jax", "jax.numpy", "jax"

    @classmethod
    def find_device(cls, device: str, dtype: str) -> Any:
        """The `jax.Device`."""
        return devices.jax_device(device)

    @classmethod
    def open(cls, requested: str, dtype: str, device: Device = None) -> Self:
        """Import JAX and allow 64-bit types: token ids are int64, and floats keep the type of their arrays.

        The switch, `jax_enable_x64`, stays on for the process: new arrays of other code are float64 unless they ask for less.
        """
        backend = super().open(requested, dtype, device)
        importlib.import_module("jax").config.update("jax_enable_x64", True)
        return backend


class Strict(Backend):
    """array-api-strict on a pretended device, for tests: everything beyond the 2025.12 standard is switched off."""

    name, module, package = "strict", "array_api_strict", "array-api-strict"

    @classmethod
    def open(cls, requested: str, dtype: str, device: Device = None) -> Self:
        """Import the library and switch off what the standard does not demand."""
        xp = super().open(requested, dtype, device).xp
        flags = {"api_version": "2025.12", "boolean_indexing": False, "data_dependent_shapes": False, "enabled_extensions": ()}
        xp.set_array_api_strict_flags(**flags)
        return cls(requested, xp, xp.Device("device1"), dtype)

    def get(self, array: Array) -> HostArray:
        """Copy an array to the host."""
        return np.array(array.to_device(self.xp.Device("CPU_DEVICE")))


BACKENDS: dict[str, type[Backend]] = {cls.name: cls for cls in (NumPy, CuPy, Torch, Jax, Strict)}
NAMES = ("auto", *BACKENDS)


def namespace(array: Array) -> Any:
    """The array-API namespace of an array, cached by type: 0.1 µs instead of 1.7."""
    kind = type(array)
    if kind not in _namespaces:
        _namespaces[kind] = array_api_compat.array_namespace(array)
    return _namespaces[kind]


def device(array: Array) -> Any:
    """The device that an array lives on; None while JAX traces."""
    return array_api_compat.device(array)


def widest_float(xp: Any, where: Any) -> Any:
    """The widest floating-point type of a namespace on a device: float64 on most."""
    if xp is np:
        return np.float64
    kinds = xp.__array_namespace_info__().dtypes(device=where, kind="real floating")
    return kinds.get("float64", xp.float32)


def to_host(array: Array) -> HostArray:
    """View or copy an array of any library on the host, read-only, without a Backend; waits for the device."""
    return np.from_dlpack(array, device="cpu")


def select(name: str = "auto", dtype: str = "float32", *, require: bool | None = None, device: Device = None) -> Backend:
    """Select a backend by name, and a device of it in the words of its library: "cuda:1" or "1" of PyTorch, "cpu:0" of JAX.

    `auto` is CuPy if a CUDA device answers, else NumPy. `cupy` without a usable device falls back to NumPy with one
    `BackendWarning`, unless `require` (by default the environment variable BPTT_REQUIRE_BACKEND) forbids it.

    Raises:
        InputError: an unknown name or dtype, a library that is not installed, a device that does not exist, or a required one
            that is missing.
    """
    if name not in NAMES:
        raise InputError(f"backend {name!r} is unknown: use one of {', '.join(NAMES)}")
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown: use one of {', '.join(DTYPES)}")
    if require is None:
        require = os.environ.get("BPTT_REQUIRE_BACKEND", "0") not in ("", "0")
    library = name
    if name == "auto" and device == "cpu":
        library = NumPy.name
    elif name in ("auto", CuPy.name):
        problem = cupy_unavailable_reason()
        if problem and device is not None:
            raise InputError(f"device {device!r} cannot be used: {problem}; or name another backend, such as torch")
        if problem and name == CuPy.name:
            if require:
                raise InputError(f"backend 'cupy' is required but {problem}")
            errors.warn(f"backend 'cupy' is not usable: {problem}; going on with numpy", BackendWarning)
        library = NumPy.name if problem else CuPy.name
    return BACKENDS[library].open(name, dtype, device)


def _select_again(name: str, dtype: str, requested: str, device: Device = None) -> Backend:
    """The backend that was pickled; on a machine without its device its default or NumPy, with a warning."""
    try:
        backend = select(name, dtype, device=device)
    except InputError as error:
        if device is None:
            raise
        errors.warn(f"{error}; going on without it", BackendWarning)
        backend = select(name, dtype)
    return dataclasses.replace(backend, requested=requested)


def use_device(name: str, number: int) -> None:
    """Choose the CUDA device, modulo their number, that a later `select` of this name finds; do nothing for other libraries."""
    if name in ("auto", CuPy.name):
        devices.use_cuda_device_of_process(number)
