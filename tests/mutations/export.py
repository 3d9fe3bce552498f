"""Mistakes in `bptt.export`."""

from mutations.mutation import Mutation

MUTATIONS = [
    Mutation(
        "onnx: the blocks of a GRU in our order",
        "export.onnx",
        '"gru": Operator("GRU", (1, 0, 2))',
        '"gru": Operator("GRU", (0, 1, 2))',
        "test_onnx_export.py::test_an_onnx_graph_gives_the_logits_and_states_of_the_model",
    ),
    Mutation(
        "onnx: the bias inside of the reset product outside",
        "export.onnx._weights",
        "[ordered(params.b), ordered(second)]",
        "[ordered(params.b + second), ordered(0 * second)]",
        "test_onnx_export.py::test_an_onnx_graph_gives_the_logits_and_states_of_the_model",
    ),
    Mutation(
        "page: the script ended by a name",
        "export.web_page.to_page",
        '.replace("<", "\\\\u003c")',
        "",
        "test_web_page.py::test_nothing_in_a_model_closes_the_script_element",
    ),
    Mutation(
        "exchange: a bias inside of the reset product is added outside of it",
        "export.pytorch._params",
        "np.concatenate([b[:n], first[n:]])",
        "b",
        "test_pytorch_export.py::test_two_biases_are_merged_where_that_changes_nothing",
    ),
    Mutation(
        "exchange: the bias inside of the reset product stays at home",
        "export.pytorch._torch_names",
        "second[-len(p.ban) :] = p.ban",
        "pass",
        "test_pytorch_export.py::test_an_exported_model_is_imported_bit_for_bit",
    ),
    Mutation(
        "exchange: symbols stay in the order of another program",
        "export.pytorch._params",
        ", key=symbols.__getitem__",
        "",
        "test_pytorch_export.py::test_a_model_with_two_biases_follows_the_torch_equations",
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
        "test_pytorch_export.py::test_export_does_not_overwrite",
    ),
    Mutation(
        "exchange: what a header claims is asked of the memory",
        "export.pytorch._read",
        "size > system.physical_memory()",
        "False",
        "test_pytorch_export.py::test_claims_of_a_header_take_no_memory",
    ),
    Mutation(
        "import: the output layer taken for the embedding",
        "export.pytorch_names._around",
        "before not in biased",
        "before in biased",
        "test_pytorch_export.py::test_an_embedding_is_folded_into_the_input_weights",
    ),
    Mutation(
        "import: rows of the embedding in another order",
        "export.pytorch._folded",
        ".astype(np.float64).T",
        "[::-1].astype(np.float64).T",
        "test_pytorch_export.py::test_an_embedding_is_folded_into_the_input_weights",
    ),
    Mutation(
        "import: a bidirectional network taken as one in one direction",
        "export.pytorch_names._recurrent_tensors",
        "if reverse:",
        "if False:",
        "test_pytorch_export.py::test_tensors_of_another_network_are_refused",
    ),
    Mutation(
        "import: relu taken for tanh",
        "export.pytorch_header.read_header",
        'if "relu" in',
        'if "never" in',
        "test_pytorch_export.py::test_metadata_that_says_relu_is_refused",
    ),
    Mutation(
        "page: a link to what is no address",
        "export.web_page.home",
        'if ", https://" in address',
        'if ", " in address',
        "test_web_page.py::test_the_address_is_that_of_the_installed_package",
    ),
]
