"""Mistakes in `bptt.export`."""

from mutations.mutation import Mutation

MUTATIONS = [
    Mutation(
        "onnx: the blocks of a GRU in our order",
        "export.onnx",
        '"gru": (1, 0, 2)',
        '"gru": (0, 1, 2)',
        "test_onnx_export.py::test_logits",
    ),
    Mutation(
        "onnx: the bias inside of the reset product outside",
        "export.onnx._weights",
        "[ordered(params.b), ordered(second)]",
        "[ordered(params.b + second), ordered(0 * second)]",
        "test_onnx_export.py::test_logits",
    ),
    Mutation(
        "page: the script ended by a name",
        "export.web_page.to_page",
        '.replace("<", "\\\\u003c")',
        "",
        "test_web_page.py::test_nothing_in_a_model",
    ),
    Mutation(
        "exchange: a bias inside of the reset product is added outside of it",
        "export.pytorch._params",
        "np.concatenate([b[:n], first[n:]])",
        "b",
        "test_pytorch_export.py::test_two_biases",
    ),
    Mutation(
        "exchange: the bias inside of the reset product stays at home",
        "export.pytorch._torch_names",
        "second[-len(p.ban) :] = p.ban",
        "pass",
        "test_pytorch_export.py::test_what_is_exported_comes_back",
    ),
    Mutation(
        "exchange: symbols stay in the order of another program",
        "export.pytorch._params",
        ", key=symbols.__getitem__",
        "",
        "test_pytorch_export.py::test_a_network_with_two_biases",
    ),
    Mutation(
        "exchange: arrays in another order are scrambled",
        "export.pytorch.to_torch",
        'np.asarray(array, order="C")',
        "array",
        "test_pytorch_export.py::test_arrays_in_another_order",
    ),
    Mutation(
        "exchange: a file is written over",
        "export.common.new_file",
        "os.path.lexists(target)",
        "False",
        "test_pytorch_export.py::test_nothing_is_written_over",
    ),
    Mutation(
        "exchange: what a header claims is asked of the memory",
        "export.pytorch._read",
        "whole > system.physical_memory()",
        "False",
        "test_pytorch_export.py::test_no_memory",
    ),
]
