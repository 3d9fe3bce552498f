"""Machine code: libraries of functions that LLVM compiles when they are first called, and that are then kept on disk.

A file holds a checksum, the types of the arguments of each function, and an object file for this processor. Its name stands for
the source of all kernels, the version of LLVM and the processor.
"""

import contextlib
import ctypes
import functools
import hashlib
import json
import os
import re
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite
import numpy as np
from llvmlite import binding

from bptt import files, system
from bptt.errors import InputError, InvalidFile

_STORED = re.compile(r"kernels-\w+-[0-9a-f]{16}\.o|kernels-[0-9a-f]{32}\.tmp")
_LONGEST = 1 << 26  # bytes of a file
_PROBE = np.zeros(1)
_TYPES = {"int": ctypes.c_int64, "double": ctypes.c_double, "flag": ctypes.c_bool}  # of arguments that are no arrays
if ctypes.c_size_t.from_address(id(_PROBE) + object.__basicsize__).value != _PROBE.ctypes.data:
    raise ImportError("this NumPy keeps its arrays in another form")  # which the compiled functions read
_lock = threading.RLock()
_functions: dict[tuple[str, Any], Callable[..., None]] = {}  # that are loaded, by name and type
_engines: list[Any] = []  # which own the code


class Code(NamedTuple):
    """The code of a library."""

    arguments: dict[str, list[str]]  # of each function, the types
    data: bytes  # an object file


def source_key(folder: Path) -> str:
    """A key of the compiled code: it changes with LLVM, the processor and the Python files in a folder, and nothing else."""
    sources = [path.read_bytes() for path in sorted(folder.glob("*.py"))]
    machine = [llvmlite.__version__, str(object.__basicsize__), *processor()]
    return hashlib.sha256(b"\0".join([*(word.encode() for word in machine), *sources])).hexdigest()


@functools.cache
def processor() -> tuple[str, str]:
    """The name of this processor and its features, as LLVM has them."""
    return binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()


def function(library: str, name: str, dtype: Any) -> Callable[..., None]:
    """Return a function of a library, for numbers of a type; the library is loaded or compiled the first time.

    Where another library has the function, too, and is loaded, nothing is loaded. The function takes arrays, which must be
    contiguous, and numbers.

    Raises:
        MemoryError: when it is called and there is no memory left.
    """
    key = name, np.dtype(dtype)
    if key not in _functions:
        with _lock:
            if key not in _functions:
                for each, call in _load(library, key[1].name).items():
                    _functions.setdefault((each, key[1]), call)
    return _functions[key]


def stored_libraries() -> list[tuple[str, str]]:
    """List the libraries, each with the type of its numbers, whose code of this source is on disk."""
    names: list[list[str]] = []
    with contextlib.suppress(OSError, InputError):  # no folder that can be read
        names = [path.stem.split("-") for path in stored_files()]
    return [(name.partition("_")[0], name.partition("_")[2]) for _, name, *key in names if key == [_source()[:16]]]


def stored_files() -> list[Path]:
    """List the files of the cache with compiled code, of this source and of others."""
    return files.regular_files(system.cache_folder(), _STORED)


def _path(library: str, dtype: str) -> Path | None:
    """Where the code of a library is kept, if the user has a folder for it."""
    with contextlib.suppress(InputError):
        return system.cache_folder() / f"kernels-{library}_{dtype}-{_source()[:16]}.o"
    return None


@functools.cache
def _source() -> str:
    return source_key(Path(__file__).parent)


def _load(library: str, dtype: str) -> dict[str, Callable[..., None]]:
    path = _path(library, dtype)
    code = None if path is None else _read(path)
    if code is None:
        code = _compile(library, dtype)
        if path is not None:
            with contextlib.suppress(OSError):  # else the next process compiles again
                _write(path, code)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _target())
    engine.add_object_file(binding.ObjectFileRef.from_data(code.data))
    engine.finalize_object()
    _engines.append(engine)
    return {
        name: _callable(engine.get_function_address(f"bptt.{name}"), kinds, dtype) for name, kinds in code.arguments.items()
    }


def _callable(address: int, kinds: list[str], dtype: str) -> Callable[..., None]:
    """Let Python call a function."""
    types: dict[str, Any] = _TYPES | {"number": ctypes.c_float if dtype == "float32" else ctypes.c_double}
    call = ctypes.CFUNCTYPE(ctypes.c_bool, *[types.get(kind, ctypes.c_int64) for kind in kinds])(address)
    arrays = {"numbers": np.dtype(dtype), "doubles": np.dtype("float64"), "ints": np.dtype("int64")}
    expected = [arrays.get(kind) for kind in kinds]

    def compiled(*arguments: Any) -> None:
        values = []
        for one, kind in zip(arguments, expected, strict=True):
            if kind is not None and one.dtype != kind:
                raise TypeError(f"an array of {one.dtype}, expected {kind}")
            values.append(one if kind is None else id(one))
        if call(*values):
            raise MemoryError("no memory left for a compiled function")

    return compiled


@functools.cache
def _target() -> Any:
    """The machine to compile for, and what the code calls."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    for name, called in (("bptt_allocate", ctypes.pythonapi.PyMem_RawMalloc), ("bptt_free", ctypes.pythonapi.PyMem_RawFree)):
        binding.add_symbol(name, ctypes.cast(called, ctypes.c_void_p).value)
    cpu, features = processor()
    wide = features + (",-prefer-256-bit" if vector_bytes() == 64 else "")
    target = binding.Target.from_default_triple()
    return target.create_target_machine(cpu=cpu, features=wide, opt=3, reloc="pic", codemodel="default")


def vector_bytes() -> int:
    """Bytes of a vector: 32 registers of 64 bytes, or 16 of 32; elsewhere LLVM makes several of one."""
    return 64 if "+avx512f" in processor()[1].split(",") else 32


def _compile(library: str, dtype: str) -> Code:
    from llvmlite import ir

    from bptt.kernels.cpu.libraries import LIBRARIES
    from bptt.kernels.cpu.llvm import Library

    made = Library(library, ir.FloatType() if dtype == "float32" else ir.DoubleType(), vector_bytes())
    for written in LIBRARIES[library]:
        made.export(written)
    arguments = {written.name: [kind.word for kind in written.kinds] for written in LIBRARIES[library]}
    target = _target()
    module = binding.parse_assembly(str(made.module))
    options = binding.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = options.slp_vectorization = False  # the kernels are vectors and blocks already
    binding.create_pass_builder(target, options).getModulePassManager().run(
        module, binding.create_pass_builder(target, options)
    )
    return Code(arguments, target.emit_object(module))


def _read(path: Path) -> Code | None:
    """Read code; None where there is none, a damaged one, or one that another user could have put there."""
    with contextlib.suppress(OSError, InvalidFile, ValueError):
        if not files.only_this_user_writes(os.stat(path.parent)):
            return None
        with files.open_regular(path) as file:
            if not files.only_this_user_writes(os.fstat(file.fileno())):
                return None
            content = file.read(_LONGEST)
        checksum, content = content[:32], content[32:]
        if hashlib.sha256(content).digest() == checksum:
            head, _, data = content.partition(b"\n")
            return Code(json.loads(head), data)
    return None


def _write(path: Path, code: Code) -> None:
    """Keep code, and none of what other versions of the source left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(code.arguments).encode() + b"\n" + code.data
    temporary = path.parent / f"kernels-{uuid.uuid4().hex}.tmp"
    try:
        temporary.write_bytes(hashlib.sha256(content).digest() + content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    for other in stored_files():
        if other.name.rpartition("-")[0] == path.name.rpartition("-")[0] and other != path:
            other.unlink(missing_ok=True)
