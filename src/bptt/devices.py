"""Devices of the array libraries: which of them answer, and which one a name means."""

import contextlib
from typing import Any

from bptt.errors import InputError

INSTALL_CUPY = "pip install 'cupy-cuda13x[ctk]', or 'cupy-cuda12x[ctk]' for an older driver"

Device = str | None  # in the words of a library: "cuda:1", "mps", "cpu:0", or an index, "1"; None: its default


def torch_device(name: str, dtype: str) -> Any:
    """The device of PyTorch with a name such as cuda:1 or mps, or an index of an accelerator.

    Raises:
        InputError: PyTorch cannot make and read an array of that type there.
    """
    import torch

    try:
        place = torch.device(int(name) if name.isdecimal() else name)
        array = torch.zeros(1, dtype=getattr(torch, dtype), device=place)
        array.cpu()  # a meta device has no numbers
    except Exception as error:  # half a dozen types, by device
        raise InputError(f"device {name!r}: PyTorch cannot use it: {reason(error)}") from None
    return array.device  # with its index


def jax_device(name: str) -> Any:
    """The device of JAX with a name such as cuda:1, gpu or cpu:0, or an index of the default platform.

    Raises:
        InputError: JAX has no such device.
    """
    import jax

    platform, _, number = ("", "", name) if name.isdecimal() else name.partition(":")
    try:
        return jax.devices(platform or None)[int(number or 0)]
    except Exception as error:  # of an unknown platform, a number that is none, or too high
        devices = ", ".join(f"{device.platform}:{device.id}" for device in jax.devices())
        raise InputError(f"device {name!r}: JAX cannot use it ({reason(error)}): by default it has {devices}") from None


def use_cuda_device(name: str) -> None:
    """Make the CUDA device with an index, or a name such as cuda:1, the current one.

    Raises:
        InputError: CuPy has no such device.
    """
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
    number = name.removeprefix("cuda:").replace("cuda", "0")
    if not number.isdecimal() or int(number) >= count:
        has = "one device, 0" if count == 1 else f"devices 0 to {count - 1}"
        raise InputError(f"device {name!r}: CuPy cannot use it: it has {has}")
    cupy.cuda.Device(int(number)).use()


def use_cuda_device_of_process(number: int) -> None:
    """Make a CUDA device the current one, modulo their number."""
    with contextlib.suppress(Exception):  # the error that `backend.select` reports
        import cupy

        cupy.cuda.Device(number % cupy.cuda.runtime.getDeviceCount()).use()


def cupy_is_rocm() -> bool:
    """Whether CuPy is installed and was built for AMD's ROCm."""
    with contextlib.suppress(ImportError):
        import cupy

        return bool(getattr(cupy.cuda.runtime, "is_hip", False))
    return False


def cupy_unavailable_reason() -> str:
    """Why CuPy cannot be used on this machine, and the remedy; empty if it can."""
    try:
        import cupy
    except ImportError as error:
        if error.name == "cupy":
            return f"CuPy is not installed (remedy: {INSTALL_CUPY})"
        return f"CuPy cannot be imported: {reason(error.__cause__ or error)} (remedy: reinstall it)"  # CuPy frames the cause
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CUDARuntimeError without a driver
        return f"no CUDA device answers: {reason(error)} (remedy: check the driver with nvidia-smi)"
    if not count:
        return "CuPy finds no CUDA device (remedy: check CUDA_VISIBLE_DEVICES and nvidia-smi)"
    try:
        float((cupy.ones((2, 2)) @ cupy.ones((2, 2))).sum())  # loads the compiler and cuBLAS, which CuPy does late, and waits
    except Exception as error:
        return f"CuPy cannot compute: {reason(error)} (remedy: {INSTALL_CUPY}, with CUDA's libraries)"
    return ""


def cuda_device_info() -> dict[str, str]:
    """The name and memory of the CUDA device that CuPy uses, and the versions of CuPy and the driver."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    device, memory = properties["name"].decode(), f"{properties['totalGlobalMem'] / 1e9:.1f} GB"
    driver, version = str(cupy.cuda.runtime.driverGetVersion()), str(cupy.__version__)
    return {"device": device, "memory": memory, "driver": driver, "cupy": version}


def reason(error: BaseException) -> str:
    """The first line of an exception's message."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
