"""Random mutations of files: of their bytes, of values of JSON and TOML, of tensors and of the headers of their files."""

import copy
import json
import math
import random
from typing import Any

import numpy as np
import safetensors.numpy

from bptt import files
from bptt.config.settings import SETTING_NAMES

UNEXPECTED_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.0, 0.5, -0.0, 1e308, 10**9, 10**19, 10**30, 10**400, 2**62, 2**63, -(2**63)),
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        "",
        "1",
        "lines",
        "stream",
        "x" * 99,
        "a\nb",
        "\ud800",
        "\0",
        "\x1b[2J",
        "../x",
    ),
    *([], {}, [[]], [{}], {"a": {}}, [0] * 50, ["\n", "a"], {"step": 1}),
    *(1e299, -1e299, 5e-324, -(10**12), 10**12, 2**31, "/dev/zero", "/etc/passwd", "../outside/secret.txt", "names.txt"),
    *("x" * 100_000, "\x1b]0;owned\x07", "\u202egnp", "bptt: done", json.loads("[" * 400 + "]" * 400)),
]
ODD_SYMBOLS = [chr(code) for code in (0, 7, 9, 13, 27, 34, 38, 39, 60, 92, 0x7F, 0x85, 0x301, 0x2028, 0x202E)]
ODD_SYMBOLS += ["\ud800", "\udfff", "\ufeff", "\ufffd", "\uffff", "\U0001f600", "\U0010ffff"]
NUMBERS = [3.4e38, -3.4e38, 1.7e308, 1e30, -1e30, 1e-45, 0.0, -0.0, 1.0, float("nan"), float("inf"), float("-inf")]
SPECIAL_FILES = ["/dev/zero", "/dev/null", "../outside/secret.txt", "../outside", "nowhere", "pipe"]
TOML_KEYS = ["text", *SETTING_NAMES, "x", "a.b", '"\\u001b"']
DTYPES = ["F32", "F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "F4", "f32", ""]


# Mutations of bytes


def flip(rng: random.Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def change(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] = rng.randrange(256)


def insert(rng: random.Random, data: bytearray) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.randbytes(rng.choice([1, 2, 8, 100]))


def cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def remove(rng: random.Random, data: bytearray) -> None:
    place = rng.randrange(len(data))
    del data[place : place + rng.choice([1, 2, 8, 100])]


def zero(rng: random.Random, data: bytearray) -> None:
    place = rng.randrange(len(data))
    part = len(data[place : place + rng.choice([1, 4, 64, 512])])
    data[place : place + part] = bytes(part)


def swap(rng: random.Random, data: bytearray) -> None:
    size = rng.choice([1, 4, 8, 32])
    a, b = sorted(rng.randrange(len(data)) // size * size for _ in range(2))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


BYTE_MUTATIONS = [flip, change, insert, cut, remove, zero, swap]


# Mutations of what the bytes say


def json_places(value: Any) -> list[tuple[Any, Any]]:
    """Every list and object of a value of JSON with each key or index of it."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in [(value, key), *json_places(value[key])]]


def unexpected_value(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(UNEXPECTED_VALUES))


def mutate_json_value(rng: random.Random, value: Any) -> Any:
    """The value with something else in one place."""
    found = json_places(value)
    if not found or rng.random() < 0.02:
        return unexpected_value(rng)
    holder, key = rng.choice(found)
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(["", "x", "a\nb", "\x1b[2J", "__class__", "self", key.upper()])] = unexpected_value(rng)
        case 1:
            holder.insert(key, holder[key])
        case 2:
            other, there = rng.choice(found)
            holder[key] = copy.deepcopy(other[there])
        case 3 if isinstance(holder[key], int | float):
            holder[key] = rng.choice([str(holder[key]), holder[key] + 1, -holder[key], holder[key] * 2, bool(holder[key])])
        case _:
            holder[key] = unexpected_value(rng)
    return value


def mutate_json(rng: random.Random, data: bytearray) -> None:
    value = json.loads(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        value = mutate_json_value(rng, value)
    made = files.to_json(value)
    if rng.random() < 0.1:  # an object that says everything twice
        made = made.replace(b"{\n", b'{\n "step": [],\n "hidden": 1e9,\n', 1)
    data[:] = made


def mutate_tensor_header(rng: random.Random, data: bytearray) -> None:
    size = int.from_bytes(data[:8], "little")
    header, numbers = json.loads(data[8 : 8 + size]), data[8 + size :]
    names = [name for name in header if name != "__metadata__"]
    name = rng.choice(names)
    entry = header[name]
    match rng.randrange(7):
        case 0:
            entry["dtype"] = rng.choice(DTYPES)
        case 1:
            entry["shape"] = rng.choice([entry["shape"][::-1], [*entry["shape"], 1], [10**9] * 2, [], [0], [-1], [2**63], 5])
        case 2:
            entry["data_offsets"] = rng.choice([entry["data_offsets"][::-1], [0, 0], [0, 2**64 - 1], [-1, 4], [0], None])
        case 3:
            header[rng.choice(["", "x", "a\nb", "\x1b[2J", "__metadata__", "states.0.a", "t"])] = header.pop(name)
        case 4:
            end = len(numbers)
            header["extra"] = {"dtype": "F32", "shape": [0], "data_offsets": [end, end]}
        case 5:
            other = header[rng.choice(names)]
            entry["shape"], other["shape"] = other["shape"], entry["shape"]
        case _:
            header = mutate_json_value(rng, header)
    raw = json.dumps(header).encode()
    data[:] = rng.choice([len(raw)] * 9 + [2**63]).to_bytes(8, "little") + raw + numbers


def mutate_tensors(rng: random.Random, data: bytearray) -> None:
    """Other numbers, another shape or another type, in a file that is as it should be otherwise."""
    arrays = safetensors.numpy.load(bytes(data))
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    for name in rng.sample(sorted(arrays), rng.randint(1, len(arrays))):
        array = arrays[name]
        with np.errstate(all="ignore"):
            match rng.randrange(8):
                case 0:
                    arrays[name] = np.full(array.shape, rng.choice(NUMBERS), array.dtype)
                case 1 | 2 if array.size:
                    array = array.copy()
                    array.reshape(-1)[rng.randrange(array.size)] = rng.choice(NUMBERS)
                    arrays[name] = array
                case 3:
                    arrays[name] = array * array.dtype.type(rng.choice([1e3, -1e10, 1e20, 1e38]))
                case 4:
                    arrays[name] = array.astype(rng.choice([np.float64, np.float32, np.float16, np.int64, np.bool_]))
                case 5:
                    arrays[name] = np.resize(
                        array, rng.choice([(), (0,), (1,), (2, 3), (*array.shape, 1), (7,), array.shape[::-1]])
                    )
                case 6:
                    signs = np.array([rng.choice([-3.4e38, 3.4e38]) for _ in range(array.size)])
                    arrays[name] = signs.reshape(array.shape).astype(array.dtype)
                case _:
                    del arrays[name]
    if rng.random() < 0.1:
        arrays[rng.choice(["extra", "states.0.a", "average", "params", "a\nb"])] = np.zeros(3, np.float32)
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    data[:] = safetensors.numpy.save(arrays, header.get("__metadata__"))


def mutate_metadata(rng: random.Random, data: bytearray) -> None:
    """Something else in the JSON of the metadata of an exported file."""
    size = int.from_bytes(data[:8], "little")
    header, numbers = json.loads(data[8 : 8 + size]), data[8 + size :]
    about = header.get("__metadata__")
    if not about:
        return mutate_tensor_header(rng, data)
    name = rng.choice(sorted(about))
    try:
        about[name] = json.dumps(mutate_json_value(rng, json.loads(about[name])))
    except ValueError:
        about[name] = str(unexpected_value(rng))
    raw = json.dumps(header).encode()
    data[:] = len(raw).to_bytes(8, "little") + raw + numbers


def toml_value(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {toml_value(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value)


def mutate_toml(rng: random.Random, data: bytearray) -> None:
    lines = bytes(data).decode().splitlines()
    for _ in range(rng.choice([1, 1, 2])):
        i = rng.randrange(len(lines))
        key = lines[i].partition(" = ")[0]
        if rng.random() < 0.3:
            key = rng.choice(TOML_KEYS)
        lines.insert(i, f"{key} = {toml_value(unexpected_value(rng))}")
        if rng.random() < 0.9:  # else it stands there twice
            lines = [line for j, line in enumerate(lines) if j == i or line.partition(" = ")[0] != key]
    data[:] = "\n".join(lines).encode("utf-8", "surrogatepass")


def mutate_symbols(rng: random.Random, data: bytearray) -> None:
    """Other symbols in a vocabulary, as many and in order: control characters, halves of pairs, marks, quotes, the last one."""
    symbols = json.loads(data)
    odd = rng.sample(ODD_SYMBOLS, rng.randint(1, min(4, len(symbols) - 1)))
    kept = [symbol for symbol in symbols if symbol not in odd]
    data[:] = files.to_json(sorted({"\n", *odd, *kept[: len(symbols) - len({"\n", *odd})]})[: len(symbols)])


def forge_file(rng: random.Random, name: str, whole: bytes) -> bytes | str:
    """Other content for a file, whose reader may find it well formed; or where a link in its place leads, or "pipe"."""
    if rng.random() < 0.03:
        return rng.choice(SPECIAL_FILES)
    data = bytearray(whole)
    if rng.random() < 0.05:
        rng.choice(BYTE_MUTATIONS)(rng, data)
    elif name.endswith(".safetensors"):
        rng.choice([mutate_tensors, mutate_tensors, mutate_tensors, mutate_tensor_header, mutate_metadata])(rng, data)
    elif name.endswith(("vocabulary.json", "symbols.json")) and rng.random() < 0.6:
        mutate_symbols(rng, data)
    elif name.endswith(".json"):
        mutate_json(rng, data)
    elif name.endswith(".toml"):
        mutate_toml(rng, data)
    else:
        rows = whole.decode().splitlines()
        i = rng.randrange(len(rows))
        rows[i] = str(unexpected_value(rng)) if rng.random() < 0.5 else rows[i][: rng.randrange(len(rows[i]) + 1)]
        data[:] = "\n".join(rows).encode("utf-8", "surrogatepass")
    return bytes(data)


def mutate_file(rng: random.Random, name: str, whole: bytes, *, forged: bool) -> bytes:
    data = bytearray(whole)
    if forged and rng.random() < 0.7:
        (mutate_tensor_header if name.endswith(".safetensors") else mutate_json)(rng, data)
    else:
        rng.choice(BYTE_MUTATIONS)(rng, data)
    return bytes(data)
