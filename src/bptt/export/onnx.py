"""Export to ONNX: a graph from tokens and states to logits and states.

In: tokens (steps, batch) int64, and states.0.a (1, batch, H) and so on, of an LSTM states.0.c, too. Out: logits (steps, batch,
V), and next.0.a and so on. The operators are those of the ONNX standard, opset 17; both sizes are free. Symbols, mode and the
states that texts begin with are JSON in the metadata, under "bptt".
"""

import os
from typing import Any, NamedTuple

import numpy as np

from bptt.backend import HostArray
from bptt.checkpoint.format import Checkpoint
from bptt.errors import InputError
from bptt.export import common
from bptt.export.common import METADATA_KEY
from bptt.nn import tree

OPSET, IR = 17, 8  # of 2022: what runs graphs today knows them


class Operator(NamedTuple):
    """The operator of a cell."""

    name: str
    order: tuple[int, ...]  # our blocks in the operator's order: z (our u), r, h; i, o, f, c


OPERATORS = {
    "vanilla": Operator("RNN", (0,)),
    "gru": Operator("GRU", (1, 0, 2)),
    "lstm": Operator("LSTM", (0, 3, 1, 2)),
}
MOST = 2_000_000_000  # bytes of weights: protobuf ends at 2 GiB


def to_onnx(saved: Checkpoint, path: str | os.PathLike[str]) -> None:
    """Write a model into a new file as an ONNX graph in float32; the same model gives the same bytes with one version of onnx.

    Raises:
        InputError: the file already exists, or the model is too large.
        SaveError: the file cannot be written; nothing of it is left.
    """
    target = common.new_file(path)
    common.write_file(target, _graph(saved, OPERATORS[saved.config.cell]).SerializeToString(deterministic=True))


def _graph(saved: Checkpoint, operator: Operator) -> Any:
    import onnx
    from onnx import helper

    config = saved.config
    host = tree.tree_map(lambda a: np.asarray(a, np.float32), common.host_params(saved))
    fields, kind = config.definition.State._fields, onnx.TensorProto.FLOAT
    constants: dict[str, HostArray] = {
        "direction": np.array([1], np.int64),
        "Wya": np.ascontiguousarray(host.Wya.T),
        "by": host.by,
    }
    nodes = [helper.make_node("Gather", ["rows", "tokens"], ["x.0"], axis=0)]
    for layer, params in enumerate(host.layers):
        names = {name: f"layers.{layer}.{name}" for name in ("W", "R", "B")}
        W, *others = _weights(operator.order, params)
        if layer == 0:
            constants["rows"], W = _looked_up(W[0])
        constants |= dict(zip(names.values(), (W, *others)))
        before, after = ([f"{when}.{layer}.{field}" for field in fields] for when in ("states", "next"))
        more = {"linear_before_reset": 1} if operator.name == "GRU" else {}
        inputs = [f"x.{layer}", *names.values(), "", *before]
        nodes += [
            helper.make_node(operator.name, inputs, [f"a.{layer}", *after], hidden_size=config.hidden, **more),
            helper.make_node("Squeeze", [f"a.{layer}", "direction"], [f"x.{layer + 1}"]),
        ]
    if (size := sum(array.nbytes for array in constants.values())) > MOST:
        raise InputError(f"{size:,} bytes of weights: an ONNX file holds at most {MOST:,}: export it for PyTorch instead")
    nodes += [
        helper.make_node("MatMul", [f"x.{config.layers}", "Wya"], ["products"]),
        helper.make_node("Add", ["products", "by"], ["logits"]),
    ]
    shape = [1, "batch", config.hidden]
    states = [f"{layer}.{field}" for layer in range(config.layers) for field in fields]
    graph = helper.make_graph(
        nodes,
        "bptt",
        [
            helper.make_tensor_value_info("tokens", onnx.TensorProto.INT64, ["steps", "batch"]),
            *(helper.make_tensor_value_info(f"states.{name}", kind, shape) for name in states),
        ],
        [
            helper.make_tensor_value_info("logits", kind, ["steps", "batch", config.vocabulary]),
            *(helper.make_tensor_value_info(f"next.{name}", kind, shape) for name in states),
        ],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    made = helper.make_model(graph, producer_name="bptt", ir_version=IR, opset_imports=[helper.make_opsetid("", OPSET)])
    helper.set_model_props(made, {METADATA_KEY: common.metadata_json(saved)})
    onnx.checker.check_model(made, full_check=True)
    return made


def _looked_up(W: HostArray) -> tuple[HostArray, HostArray]:
    """Factor W (G H, V) into an embedding table and a matrix, one of which is an identity matrix.

    The smaller one: with ten thousand symbols it is not theirs.
    """
    N, V = W.shape
    if V <= N:
        return np.eye(V, dtype=W.dtype), W[None]
    return np.ascontiguousarray(W.T), np.eye(N, dtype=W.dtype)[None]


def _weights(order: tuple[int, ...], params: Any) -> tuple[HostArray, HostArray, HostArray]:
    """Return W (1, G H, I), R (1, G H, H) and B (1, 2 G H) of a layer, a bias for each product as in PyTorch."""

    def ordered(array: HostArray) -> HostArray:
        blocks = np.split(array, len(order))
        return np.concatenate([blocks[block] for block in order])

    second = np.zeros_like(params.b)
    if hasattr(params, "ban"):
        second[-len(params.ban) :] = params.ban
    biases = np.concatenate([ordered(params.b), ordered(second)])
    return ordered(params.Wax)[None], ordered(params.Waa)[None], biases[None]
