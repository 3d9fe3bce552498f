"""What a file of a checkpoint may say; how whole checkpoints are refused is in test_store.py."""

import json

import numpy as np
import pytest

from bptt.checkpoint import format as checkpoint_format
from bptt.errors import InvalidFile
from bptt.files import to_json
from bptt.nn import cells, model, tree
from forging import tensor_file

CONFIG = model.Config("lstm", vocabulary=9, hidden=4, layers=2)
DIGEST = "0123456789abcdef" * 4


def unusable(function, *arguments):
    with pytest.raises(InvalidFile) as error:
        function(*arguments)
    return str(error.value)


@pytest.mark.parametrize("value", [0, 1, -1.5, 1e299, 10**299])
def test_is_number_accepts_numbers(value):
    assert checkpoint_format.is_number(value)


@pytest.mark.parametrize("value", [True, False, None, "1", [], 1e301, -(10**400), float("inf"), float("-inf"), float("nan")])
def test_is_number_rejects_everything_else(value):
    assert not checkpoint_format.is_number(value)


def test_a_manifest_must_equal_its_serialization_byte_for_byte():
    raw = checkpoint_format.make_manifest({name: name.encode() for name in checkpoint_format.MODEL + checkpoint_format.RUN})
    listed = checkpoint_format.manifest(json.loads(raw), raw)
    assert list(listed) == sorted(checkpoint_format.MODEL + checkpoint_format.RUN)
    assert listed["config.json"]["bytes"] == 11
    for other in (raw + b" ", raw.replace(b": 2", b":2"), raw[:-1], raw.replace(b'"files"', b'"more": 1,\n "files"')):
        assert "is not as it was written" in unusable(checkpoint_format.manifest, json.loads(other), other)
    for version in (b"1.0", b"true"):
        other = raw.replace(b'"format": 2', b'"format": ' + version)
        assert "use the bptt version that wrote it" in unusable(checkpoint_format.manifest, json.loads(other), other)


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "manifest.json", "", "config.json\0", "a\nb", "CONFIG.JSON"])
def test_a_manifest_lists_no_other_files(name):
    value = {"format": 1, "files": {file: {"sha256": DIGEST, "bytes": 1} for file in (*checkpoint_format.MODEL, name)}}
    assert unusable(checkpoint_format.manifest, value, to_json(value)) == f"lists {name!r}, which is no file of a checkpoint"


def test_check_size_bounds_the_size_of_a_tensor_file():
    header = checkpoint_format.MAX_HEADER_BYTES
    for size in (408, 808, 408 + header, 808 + header, 8 + 4 * 110 + header):
        checkpoint_format.check_size(size, 100, 10)
    for size in (0, 407, 8 * 110 + header + 9, 10**30):
        assert "expected those of 100 numbers" in unusable(checkpoint_format.check_size, size, 100, 10)
    with pytest.raises(InvalidFile):
        checkpoint_format.check_size(408 + header, 10**6)


def test_shapes_of_a_huge_model_take_no_memory():
    for cell in cells.CELLS:
        largest = model.Config(cell, checkpoint_format.MAX_SYMBOLS, checkpoint_format.MAX_UNITS, layers=1000)
        assert tree.num_elements(model.shapes(largest)) > 10**15


def test_weights_must_have_the_names_and_shapes_of_the_model():
    params = model.init(CONFIG, np.random.default_rng(0))
    arrays = {name: array.astype(np.float32) for name, array in tree.named_leaves(params)}
    checkpoint_format.check_weights(arrays, CONFIG)
    for name in arrays:
        for wrong in (arrays[name].astype(np.float64), arrays[name][None], arrays[name] * np.float32("nan")):
            with pytest.raises(InvalidFile):
                checkpoint_format.check_weights({**arrays, name: wrong}, CONFIG)
        with pytest.raises(InvalidFile, match=rf"^{name} is missing, expected floats \["):
            checkpoint_format.check_weights({other: arrays[other] for other in arrays if other != name}, CONFIG)


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_optimizer_arrays_may_include_carried_states(rows):
    P = tree.num_elements(model.shapes(CONFIG))
    memory = {"t": np.asarray(3.0), "m": np.zeros(P), "v": np.zeros(P)}
    states = {name: np.zeros(shape) for name, shape in checkpoint_format.state_shapes(CONFIG, rows).items()}
    assert list(states) == ["states.0.a", "states.0.c", "states.1.a", "states.1.c"]
    checkpoint_format.check_optimizer_state(memory, P, CONFIG, np.dtype(np.float64))
    checkpoint_format.check_optimizer_state(memory | states, P, CONFIG, np.dtype(np.float64))
    with pytest.raises(InvalidFile, match=r"^'states.2.a' is not expected"):
        checkpoint_format.check_optimizer_state(
            memory | states | {"states.2.a": np.zeros((1, 4))}, P, CONFIG, np.dtype(np.float64)
        )
    del states["states.1.c"]
    with pytest.raises(InvalidFile, match=r"^states.1.c is missing"):
        checkpoint_format.check_optimizer_state(memory | states, P, CONFIG, np.dtype(np.float64))
    with pytest.raises(InvalidFile, match=r"all of one type"):
        checkpoint_format.check_optimizer_state(memory, P, CONFIG, np.dtype(np.float32))


def test_tensor_headers_are_checked_before_the_data():
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    whole = tensor_file({"a": entry}, np.arange(2, dtype=np.float32).tobytes())
    assert checkpoint_format.tensors(whole)["a"].tolist() == [0.0, 1.0]
    for wrong in ({"shape": [3]}, {"shape": [-1]}, {"dtype": "F99"}, {"data_offsets": [8, 0]}, {"data_offsets": [4, 12]}):
        assert "is not a safetensors file" in unusable(checkpoint_format.tensors, tensor_file({"a": entry | wrong}, bytes(8)))
    header = (checkpoint_format.MAX_HEADER_BYTES + 1).to_bytes(8, "little")
    assert unusable(checkpoint_format.tensors, header) == "its header is larger than 1,048,576 bytes"


def test_a_history_is_checked_row_by_row():
    row = dict.fromkeys(checkpoint_format.ROW_FIELDS, 1)
    found = checkpoint_format.progress(
        dict(checkpoint_format.Progress(1, 0, 0, 5, 0.5, None, 0, (), (), ())._asdict(), history=[row, row])
    )
    assert found.history == (row, row)
    assert found.best is None
    for name in checkpoint_format.ROW_FIELDS:
        for value in (None, True, "1", float("nan")):
            with pytest.raises(InvalidFile, match="is no entry of a history"):
                checkpoint_format.progress({**found._asdict(), "history": [row, {**row, name: value}]})
        with pytest.raises(InvalidFile, match="is no entry of a history"):
            checkpoint_format.progress({**found._asdict(), "history": [{key: row[key] for key in row if key != name}]})
