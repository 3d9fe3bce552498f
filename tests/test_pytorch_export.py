"""Models that go to PyTorch and come back: names, bits and logits; what is refused of files from strangers."""

import json
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import bptt
from bptt import backend as backends
from bptt import files
from bptt.checkpoint import format as checkpoint_format
from bptt.config.settings import from_flags
from bptt.data.vocabulary import BYTES, characters
from bptt.display import plots
from bptt.errors import InputError, ModelFileError, SaveError
from bptt.inference.language_model import LanguageModel
from bptt.nn import model, tree
from bptt.training import setup
from forging import tensor_file
from fuzzing import BYTE_MUTATIONS, mutate_json_value

V, H = 7, 5
GATES = {"vanilla": 1, "gru": 3, "lstm": 4}
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
LETTERS = characters("abcdef")
CELLS = pytest.mark.parametrize("cell", GATES)
LAYERS = pytest.mark.parametrize("layers", [1, 2, 3])
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)
posix = pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed: nox -s torch runs these")


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BPTT_REQUIRE_BACKEND", raising=False)
    return tmp_path


def make_model(
    cell="gru", layers=1, dtype="float64", *, initial="learned", mode="lines", vocabulary=LETTERS, hidden=H, **record
):
    """A model with no zero in it, unless it is a negative one."""
    backend = backends.select("numpy", dtype)
    config, rng = model.Config(cell, len(vocabulary), hidden, layers, initial), np.random.default_rng(1)
    params = tree.tree_map(lambda a: backend.put(a + 0.3 * rng.normal(size=a.shape)), model.init(config, rng))
    params.layers[0].b[:2] = -0.0
    return LanguageModel(config, vocabulary, mode, params, backend, record)


def network(cell="gru", layers=1, dtype="float64", inputs=V, hidden=H):
    """The tensors of a PyTorch network, with two biases."""
    rng, rows, found = np.random.default_rng(2), GATES[cell] * hidden, {}
    for layer in range(layers):
        shapes = [(rows, hidden if layer else inputs), (rows, hidden), (rows,), (rows,)]
        names = [f"rnn.{part}_l{layer}" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        found |= {name: rng.uniform(-0.6, 0.6, shape).astype(dtype) for name, shape in zip(names, shapes)}
    shapes = {"decoder.weight": (inputs, hidden), "decoder.bias": (inputs,)}
    return found | {name: rng.uniform(-0.6, 0.6, shape).astype(dtype) for name, shape in shapes.items()}


def by_the_book(cell, arrays, ids, starts):
    """Logits (T, V) by the equations in PyTorch's documentation, a step at a time, from states (H,) a layer."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    h, c = ([np.array(s) for s in states] for states in starts)
    logits = []
    for token in ids:
        x = np.eye(len(arrays["decoder.bias"]))[token]
        for k in range(len(h)):
            w_ih, w_hh, b_ih, b_hh = (arrays[f"rnn.{p}_l{k}"] for p in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            i, s = (np.split(v, GATES[cell]) for v in (w_ih @ x + b_ih, w_hh @ h[k] + b_hh))
            if cell == "vanilla":
                h[k] = np.tanh(i[0] + s[0])
            elif cell == "gru":
                r, z = sigmoid(i[0] + s[0]), sigmoid(i[1] + s[1])
                h[k] = (1 - z) * np.tanh(i[2] + r * s[2]) + z * h[k]
            else:
                i_gate, f, o = (sigmoid(i[g] + s[g]) for g in (0, 1, 3))
                c[k] = f * c[k] + i_gate * np.tanh(i[2] + s[2])
                h[k] = o * np.tanh(c[k])
            x = h[k]
        logits.append(arrays["decoder.weight"] @ x + arrays["decoder.bias"])
    return np.array(logits)


def logits(trained, ids):
    """What a model says, (T, V), of tokens (T,)."""
    return model.forward(trained.config, trained.params, np.array(ids)[:, None])[0][:, 0, :]


def exported(trained, path="exported.safetensors"):
    """The tensors of an exported model, and what is said about them."""
    trained.export("torch", path)
    with safetensors.safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["bptt"])  # noqa: SIM118  # it has keys() alone


def write_tensors(path, arrays, about=None):
    """A file as somebody saves one: with any metadata, or with none."""
    Path(path).write_bytes(safetensors.numpy.save(arrays, None if about is None else {"bptt": json.dumps(about)}))
    return path


def same_model(first, second):
    """Whether two models are one, bit for bit."""
    leaves = [[(n, a.dtype, a.shape, a.tobytes()) for n, a in tree.named_leaves(m.params)] for m in (first, second)]
    return leaves[0] == leaves[1] and all(getattr(first, n) == getattr(second, n) for n in ("config", "vocabulary", "mode"))


def refusal(path="file", **how):
    """Why a file is not taken."""
    with pytest.raises(ModelFileError) as error:
        bptt.from_torch(path, **how)
    message = str(error.value).replace("\0", "")  # of a path that the user typed
    assert message.isprintable()
    assert len(message) < 700
    return message


# There and back


@CELLS
@LAYERS
def test_names_and_shapes_of_the_tensors(workdir, cell, layers):
    trained, rows = make_model(cell, layers, "float32"), GATES[cell] * H
    arrays, about = exported(trained)
    expected = {"decoder.weight": (V, H), "decoder.bias": (V,)}
    for k in range(layers):
        expected |= {f"rnn.weight_ih_l{k}": (rows, H if k else V), f"rnn.weight_hh_l{k}": (rows, H)}
        expected |= {f"rnn.bias_ih_l{k}": (rows,), f"rnn.bias_hh_l{k}": (rows,)}
    assert {name: array.shape for name, array in arrays.items()} == expected
    assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}
    for k, p in enumerate(trained.params.layers):
        np.testing.assert_array_equal(arrays[f"rnn.bias_ih_l{k}"], p.b)
        inside = p.ban if cell == "gru" else np.zeros(0)
        np.testing.assert_array_equal(arrays[f"rnn.bias_hh_l{k}"], [*np.zeros(rows - len(inside)), *inside])
    initial = trained.params.initial
    assert about == {
        "format": 1,
        "cell": cell,
        "hidden": H,
        "layers": layers,
        "mode": "lines",
        "symbols": ["\n", *"abcdef"],
        "states": {field: [getattr(state, field).tolist() for state in initial] for field in initial[0]._fields},
        "record": {},
    }


@CELLS
@LAYERS
@DTYPES
@pytest.mark.parametrize("initial", ["learned", "zero"])
def test_an_exported_model_is_imported_bit_for_bit(workdir, cell, layers, dtype, initial):
    trained = make_model(cell, layers, dtype, initial=initial)
    trained.export("torch", "file")
    back = bptt.from_torch("file")
    assert same_model(trained, back)
    assert back.sample(5, seed=3) == trained.sample(5, seed=3)
    assert back.score("abba\ncafe") == trained.score("abba\ncafe")
    back.export("torch", "again")
    assert Path("again").read_bytes() == Path("file").read_bytes()


@pytest.mark.parametrize("vocabulary", [BYTES, characters("é日\u0301 \t\ud800'\"\\\U0001f600\0")], ids=["bytes", "odd"])
def test_any_symbols_and_a_stream_are_imported(workdir, vocabulary):
    trained = make_model(mode="stream", vocabulary=vocabulary, text="a name", held_out=1.5, source="/home/me/secret.txt")
    trained.export("torch", "file")
    back = bptt.from_torch("file")
    assert same_model(trained, back)
    assert back.record == {"text": "a name", "held_out": 1.5}
    assert b"secret" not in Path("file").read_bytes()


def test_an_imported_model_can_be_saved_and_trained_from(workdir, monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)  # a second, the first time
    for initial in ("learned", "zero"):
        trained = make_model("lstm", 2, "float32", initial=initial)
        trained.export("torch", f"{initial}.safetensors")
        bptt.from_torch(f"{initial}.safetensors").save(initial)
        assert same_model(trained, bptt.load(initial, backend="numpy"))
        begun = bptt.train(["abba", "cafe"] * 20, from_=initial, steps=2, report=None, backend="numpy")
        assert (begun.config, begun.vocabulary) == (trained.config, trained.vocabulary)


def test_arrays_in_another_order_are_not_scrambled(workdir):
    trained = make_model()
    turned = tree.tree_map(lambda a: np.asarray(a, order="F"), trained.params)
    LanguageModel(trained.config, LETTERS, "lines", turned, trained.backend, {}).export("torch", "file")
    assert same_model(trained, bptt.from_torch("file"))


def test_a_handwritten_file_of_format_1_is_read(workdir):
    """Format 1, which has to be read for ever."""
    about = {"format": 1, "cell": "vanilla", "hidden": 1, "layers": 1, "mode": "stream", "symbols": ["\n", "a"]}
    about |= {"states": {"a": [[0.5]]}, "record": {"text": "t"}}
    sizes = {"rnn.weight_ih_l0": [1, 2], "rnn.weight_hh_l0": [1, 1], "rnn.bias_ih_l0": [1], "rnn.bias_hh_l0": [1]}
    header, numbers = {"__metadata__": {"bptt": json.dumps(about)}}, np.arange(1, 10, dtype="<f8")
    at = 0
    for name, shape in {**sizes, "decoder.weight": [2, 1], "decoder.bias": [2]}.items():
        end = at + 8 * int(np.prod(shape))
        header[name] = {"dtype": "F64", "shape": shape, "data_offsets": [at, end]}
        at = end
    Path("file").write_bytes(tensor_file(header, numbers.tobytes()))
    found = bptt.from_torch("file")
    assert (found.config, found.mode, found.record) == (model.Config("vanilla", 2, 1), "stream", {"text": "t"})
    assert [array.tolist() for _, array in tree.named_leaves(found.params)] == [
        [[1.0, 2.0]],
        [[3.0]],
        [9.0],
        [0.5],
        [[6.0], [7.0]],
        [8.0, 9.0],
    ]


# What somebody else saved


@CELLS
@LAYERS
def test_a_model_with_two_biases_follows_the_torch_equations(workdir, cell, layers):
    arrays, symbols = network(cell, layers), "dac\nfeb"
    found = bptt.from_torch(write_tensors("file", arrays), symbols=symbols, mode="stream")
    assert (found.config, found.mode) == (model.Config(cell, V, H, layers, "zero"), "stream")
    assert found.vocabulary == LETTERS
    text = "abacadabeef\nfad"
    zero = np.zeros((2, layers, H))
    expected = by_the_book(cell, arrays, [symbols.index(symbol) for symbol in text], zero)
    order = [symbols.index(symbol) for symbol in LETTERS.symbols]  # of the symbols: sorted here, as they came there
    np.testing.assert_allclose(logits(found, LETTERS.encode(text)), expected[:, order], rtol=0, atol=1e-13)


@CELLS
def test_an_exported_model_follows_the_torch_equations(workdir, cell):
    trained, ids = make_model(cell, 2), [0, 3, 1, 6, 6, 2]
    arrays, about = exported(trained)
    a, c = about["states"]["a"], about["states"].get("c", about["states"]["a"])
    np.testing.assert_allclose(by_the_book(cell, arrays, ids, (a, c)), logits(trained, ids), rtol=0, atol=1e-13)


@CELLS
def test_two_biases_are_merged_where_that_changes_nothing(workdir, cell):
    arrays = network(cell, 2)
    arrays["rnn.bias_ih_l1"][0], arrays["rnn.bias_hh_l1"][0] = -0.0, 0.0
    found = bptt.from_torch(write_tensors("file", arrays), symbols="\nabcdef", mode="lines")
    for k, p in enumerate(found.params.layers):
        first, second = arrays[f"rnn.bias_ih_l{k}"], arrays[f"rnn.bias_hh_l{k}"]
        added = first + second
        if cell == "gru":
            added[2 * H :] = first[2 * H :]
            np.testing.assert_array_equal(p.ban, second[2 * H :])
        np.testing.assert_array_equal(p.b, added)
    assert np.signbit(found.params.layers[1].b[0])


def test_a_model_retrained_elsewhere_keeps_its_symbols_and_states(workdir):
    """The metadata is handed on, both biases have been learnt."""
    trained, arrays = make_model("lstm"), network("lstm")
    _, about = exported(trained, "ours")
    found = bptt.from_torch(write_tensors("file", arrays, about))
    assert found.vocabulary == LETTERS
    states, ids = about["states"], [0, 3, 1, 6, 6, 2]
    np.testing.assert_allclose(logits(found, ids), by_the_book("lstm", arrays, ids, states.values()), rtol=0, atol=1e-13)


def test_symbols_are_given_as_text_as_a_file_or_as_bytes(workdir):
    write_tensors("file", network())
    Path("symbols.json").write_text(json.dumps(list("dac\nfeb")))
    make_model().save("m")
    found = bptt.from_torch("file", symbols="dac\nfeb", mode="lines")
    assert same_model(found, bptt.from_torch("file", symbols="symbols.json", mode="lines"))
    assert same_model(found, bptt.from_torch("file", symbols=Path("symbols.json"), mode="lines"))
    assert not same_model(found, bptt.from_torch("file", symbols="m/vocabulary.json", mode="lines"))
    write_tensors("bytes", network(inputs=256))
    for symbols in ("bytes", "null.json"):
        Path("null.json").write_text("null")
        assert bptt.from_torch("bytes", symbols=symbols, mode="stream").vocabulary == BYTES


@pytest.mark.parametrize(
    ("symbols", "words"),
    [
        ("abc", "symbols='abc': no such file: expected a JSON file with a list of them, bytes, or the symbols themselves"),
        (".", "symbols='.': is not a regular file: expected a JSON file"),
        ("a\0", "embedded null"),
        ("\nabcdea", "symbols: 'a' is there 2 times, expected each once, in the order of their ids"),
        (["a", "b"], "symbols='x.json': expected the newline, too, in the place of what texts or lines begin and end with"),
        (["\n", "ab"], "symbols='x.json': expected a list of single characters"),
        (["\n", 1], "expected a list of single characters"),
        ({"\n": 0}, "expected a list of single characters"),
        ([["\n"]], "holds 2 lists and objects, expected at most 1"),
        (b"\nabc", "is not JSON: expected a JSON file"),
        (b"[" * 99, "holds 99 lists and objects"),
        ("\nabcde", "'decoder.weight' is [7, 5], expected a row for each of 6 symbols"),
        ("bytes", "'decoder.weight' is [7, 5], expected a row for each of 256 symbols"),
    ],
)
def test_invalid_symbols_are_refused(workdir, symbols, words):
    write_tensors("file", network())
    if not isinstance(symbols, str):
        Path("x.json").write_bytes(symbols if isinstance(symbols, bytes) else json.dumps(symbols).encode())
        symbols = "x.json"
    assert words in refusal(symbols=symbols, mode="lines")


def test_symbols_come_from_the_file_or_the_caller_but_not_both(workdir):
    write_tensors("file", network())
    missing = "file: does not say its symbols and mode: give both, symbols in the order of their ids, mode lines or stream"
    for how in ({}, {"symbols": "\nabcdef"}, {"mode": "lines"}):
        assert refusal(**how) == missing
    assert "mode 'prose' is unknown" in refusal(symbols="\nabcdef", mode="prose")
    make_model().export("torch", "ours")
    for how in ({"symbols": "\nabcdef"}, {"mode": "lines"}):
        assert refusal("ours", **how) == "ours: says its symbols and mode itself: leave out symbols and mode"


# What is refused


def without(arrays, *names):
    return {name: array for name, array in arrays.items() if name not in names}


A = network("gru", 2)
REFUSED = [
    (
        without(A, "rnn.weight_hh_l0"),
        "'rnn.weight_hh_l0' is nothing, expected a matrix: expected a torch.nn.RNN (tanh), GRU or LSTM",
    ),
    (A | {"rnn.weight_hh_l0": np.zeros((2 * H, H))}, "'rnn.weight_hh_l0' is [10, 5], expected [H, H]"),
    (A | {"rnn.weight_hh_l0": np.zeros((0, 0))}, "'rnn.weight_hh_l0' is [0, 0], expected [H, H]"),
    (A | {"rnn.weight_hh_l0": np.zeros(H)}, "'rnn.weight_hh_l0' is [5], expected a matrix"),
    (without(A, "decoder.weight"), "has no torch.nn.Linear: expected"),
    (without(A, *[name for name in A if "rnn" in name]), "has no recurrent module: expected"),
    (A | {"gru.weight_hh_l0": np.zeros((3 * H, H))}, "has several recurrent modules: expected"),
    (without(A, "rnn.bias_hh_l1"), "has no rnn.bias_hh_l1: expected a torch.nn.RNN"),
    (without(A, "rnn.weight_hh_l1"), "has 'rnn.bias_hh_l1', too: expected a torch.nn.RNN"),
    (A | {"rnn.weight_ih_l0_reverse": np.zeros(1)}, "has 'rnn.weight_ih_l0_reverse': it is bidirectional: expected"),
    (
        A | {"rnn.weight_hr_l0": np.zeros((2, H))},
        "has 'rnn.weight_hr_l0': it is an LSTM with a projection (proj_size): expected",
    ),
    (A | {"encoder.weight": np.zeros((V + 1, V))}, "does not show what comes before and after the recurrent module: expected"),
    (A | {"norm.weight": np.zeros(H), "norm.bias": np.zeros(H)}, "does not show what comes before and after the recurrent"),
    (A | {"decoder.scale": np.zeros(H)}, "has 'decoder.scale', too: expected"),
    (A | {"a\nb\x1b[2J": np.zeros(1)}, "has 'a\\nb\\x1b[2J', too: expected"),
    (A | {"rnn.weight_ih_l0": np.zeros((3 * H, V + 1))}, "'rnn.weight_ih_l0' is [15, 8], expected [15, 7]"),
    (A | {"rnn.weight_ih_l1": np.zeros((3 * H, V))}, "'rnn.weight_ih_l1' is [15, 7], expected [15, 5]"),
    (A | {"decoder.bias": np.zeros((V, 1))}, "'decoder.bias' is [7, 1], expected [7]"),
    (network(dtype="float16"), "is F16, expected all F32 or all F64: call network.float() before it is saved"),
    (A | {"rnn.bias_ih_l1": A["rnn.bias_ih_l1"].astype("f4")}, "'rnn.bias_ih_l1' is F32, expected all F32 or all F64"),
    ({name: a.astype("i8") for name, a in A.items()}, "'decoder.bias' is I64, expected all F32 or all F64"),
    (A | {"rnn.weight_hh_l1": np.full((3 * H, H), np.nan)}, "rnn.weight_hh_l1 holds numbers that are not finite"),
    (A | {"rnn.bias_hh_l0": np.full(3 * H, np.inf)}, "rnn.bias_hh_l0 holds numbers that are not finite"),
    (A | {f"rnn.bias_{side}_l0": np.full(3 * H, 1e308) for side in ("ih", "hh")}, "holds numbers that are not finite"),
    (
        A | {"encoder.weight": np.full((V, V), 1e308), "rnn.weight_ih_l0": np.full((3 * H, V), 1e308)},
        "numbers that are not finite",
    ),
]


@pytest.mark.parametrize(("arrays", "words"), REFUSED, ids=[words[:40] for _, words in REFUSED])
def test_tensors_of_another_network_are_refused(workdir, arrays, words):
    write_tensors("file", arrays)
    assert words in refusal(symbols="\nabcdef", mode="lines")


def test_a_refusal_lists_the_tensors_of_the_file(workdir):
    write_tensors("file", {name.replace("rnn", "core\n"): array for name, array in network("lstm", hidden=2).items()})
    bptt.from_torch("file", symbols="\nabcdef", mode="lines")
    write_tensors("file", network("lstm", hidden=2) | {"extra": np.zeros(3)})
    message = refusal(symbols="\nabcdef", mode="lines")
    assert "the file has decoder.bias [7], decoder.weight [7, 2], extra [3], rnn.bias_hh_l0 [8], " in message
    assert message.endswith("rnn.weight_ih_l0 [8, 7]")
    write_tensors("file", network("lstm", 50) | {"x" * 500: np.zeros(3)})
    assert refusal(symbols="\nabcdef", mode="lines").endswith("...")


def test_metadata_that_says_relu_is_refused(workdir):
    for value in ("relu", "ReLU"):
        Path("file").write_bytes(safetensors.numpy.save(network("vanilla"), {"nonlinearity": value}))
        assert refusal(symbols="\nabcdef", mode="lines") == (
            "file: says that its nonlinearity is relu: expected a torch.nn.RNN with tanh, a GRU or an LSTM"
        )
    Path("file").write_bytes(safetensors.numpy.save(network("vanilla"), {"nonlinearity": "tanh"}))
    assert bptt.from_torch("file", symbols="\nabcdef", mode="lines").config.cell == "vanilla"


# Other names, no biases, an embedding


def renamed(arrays, **modules):
    """The tensors with other names of their modules."""
    return {f"{modules[name.partition('.')[0]]}{name.partition('.')[2]}": array for name, array in arrays.items()}


@CELLS
@pytest.mark.parametrize(
    ("rnn", "decoder"),
    [("lstm.", "fc."), ("gru.", "linear."), ("module.rnn.", "module.decoder."), ("net.0.core.", "net.1."), ("", "head.")],
)
def test_modules_may_have_any_names(workdir, cell, rnn, decoder):
    arrays = network(cell, 2)
    expected = bptt.from_torch(write_tensors("expected", arrays), symbols="\nabcdef", mode="lines")
    found = bptt.from_torch(write_tensors("file", renamed(arrays, rnn=rnn, decoder=decoder)), symbols="\nabcdef", mode="lines")
    assert same_model(found, expected)


@CELLS
@pytest.mark.parametrize("which", ["rnn.bias", "decoder.bias", "bias"])
def test_missing_biases_are_zeros(workdir, cell, which):
    arrays = network(cell, 2)
    zeros = {name: np.zeros_like(array) if which in name else array for name, array in arrays.items()}
    expected = bptt.from_torch(write_tensors("expected", zeros), symbols="\nabcdef", mode="lines")
    some = {name: array for name, array in arrays.items() if which not in name}
    assert same_model(bptt.from_torch(write_tensors("file", some), symbols="\nabcdef", mode="lines"), expected)


@CELLS
@pytest.mark.parametrize("size", [1, 3, H, V, 20])
@pytest.mark.parametrize("biases", [True, False])
def test_an_embedding_is_folded_into_the_input_weights(workdir, cell, size, biases):
    """Against a network that sees one-hot symbols through the product, by the equations in PyTorch's documentation."""
    arrays = network(cell, 2, inputs=V)
    rng, symbols = np.random.default_rng(5), "dac\nfeb"
    E, W = rng.uniform(-1, 1, (V, size)), rng.uniform(-1, 1, (GATES[cell] * H, size))
    if not biases:
        arrays = {name: np.zeros_like(array) if "bias" in name else array for name, array in arrays.items()}
    same = arrays | {"rnn.weight_ih_l0": W @ E.T}
    saved = arrays | {"rnn.weight_ih_l0": W, "encoder.weight": E}
    saved = {name: array for name, array in saved.items() if biases or "bias" not in name}
    saved = renamed(saved, rnn="module.gru.", decoder="module.head.", encoder="module.emb.")
    found = bptt.from_torch(write_tensors("file", saved), symbols=symbols, mode="lines")
    ids = [3, 0, 1, 6, 6, 2]
    expected = by_the_book(cell, same, ids, np.zeros((2, 2, H)))
    order = [symbols.index(symbol) for symbol in LETTERS.symbols]
    ours = logits(found, [order.index(i) for i in ids])
    np.testing.assert_allclose(ours, expected[:, order], rtol=0, atol=1e-13)


def test_the_name_tells_equal_matrices_apart(workdir):
    arrays = {name: array for name, array in network(inputs=V).items() if name != "decoder.bias"}
    arrays["rnn.weight_ih_l0"] = np.ones((3 * H, H))
    E = np.random.default_rng(0).normal(size=(V, H))
    for before, after in (("a.embed", "a.x"), ("token_encoder", "z"), ("x", "out"), ("b", "fc"), ("encoder", "decoder")):
        saved = renamed(arrays | {"encoder.weight": E}, rnn="rnn.", decoder=f"{after}.", encoder=f"{before}.")
        found = bptt.from_torch(write_tensors("file", saved), symbols="\nabcdef", mode="lines")
        np.testing.assert_array_equal(found.params.Wya, arrays["decoder.weight"])
    saved = renamed(arrays | {"encoder.weight": E}, rnn="rnn.", decoder="x.", encoder="y.")
    write_tensors("file", saved)
    assert "does not show what comes before and after" in refusal(symbols="\nabcdef", mode="lines")


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("format", 2, "its metadata: has format 2, expected 1: use the bptt version that wrote it"),
        ("symbols", ["a", "\n"], "its metadata: vocabulary is out of order"),
        ("symbols", [1], "its metadata: vocabulary holds 1"),
        ("symbols", 5, "its metadata: vocabulary is int"),
        ("symbols", ["\n", "a"], "'decoder.weight' is [7, 5], expected a row for each of 2 symbols"),
        ("symbols", None, "expected a row for each of 256 symbols"),
        ("mode", "prose", "mode 'prose' is unknown"),
        ("mode", ["lines"], "mode ['lines'] is unknown"),
        ("cell", "lstm", "its metadata is of another model than its tensors"),
        ("hidden", 6, "its metadata is of another model than its tensors"),
        ("layers", 2, "its metadata is of another model than its tensors"),
        ("record", [], "its metadata: is not what bptt export says"),
        ("record", {"held_out": "x"}, "held_out 'x': expected a number"),
        ("states", {}, "states are not as expected: a, each 1 lists of 5 finite numbers"),
        ("states", 0, "states are not as expected"),
        ("states", {"a": [[0.0] * 4]}, "states are not as expected"),
        ("states", {"a": [[0.0] * 5] * 2}, "states are not as expected"),
        ("states", {"a": [["0"] * 5]}, "states are not as expected"),
        ("states", {"a": [[True] * 5]}, "states are not as expected"),
        ("states", {"a": [[float("nan")] * 5]}, "states are not as expected"),
        ("states", {"a": [[1e200] * 5]}, "initial.0.a holds numbers that are not finite"),
    ],
)
def test_metadata_must_agree_with_the_tensors(workdir, part, value, words):
    arrays, about = exported(make_model(dtype="float32"), "ours")
    assert words in refusal(write_tensors("file", arrays, {**about, part: value}))
    del about[part]
    assert "its metadata" in refusal(write_tensors("file", arrays, about))


@pytest.mark.parametrize("text", ["", "[]", "nonsense", "[" * 10**5, '{"format": 1}', '"\\ud800"', "\ud800"])
def test_invalid_metadata_is_refused(workdir, text):
    make_model().export("torch", "ours")
    whole = Path("ours").read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:end])
    header["__metadata__"]["bptt"] = text
    Path("file").write_bytes(tensor_file(header, whole[end:]))
    assert refusal().startswith("file: its metadata: ")


def test_invalid_headers_are_refused(workdir, monkeypatch):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (Path("executed"),))

    for data in (
        b"",
        b"1234567",
        (2**63).to_bytes(8, "little"),
        (checkpoint_format.MAX_HEADER_BYTES + 1).to_bytes(8, "little"),
    ):
        Path("file").write_bytes(data)
        assert "does not begin like a safetensors file, or has too large a header" in refusal()
    Path("file").write_bytes(pickle.dumps(Trap()))  # what torch.save would make
    assert "does not begin like a safetensors file" in refusal()
    assert not Path("executed").exists()
    for header, words in [
        (b"", "its header is not JSON"),
        (b"[" * 10**5, "its header holds 100,000 lists and objects"),
        (b"[" * 10**4, "its header is not JSON"),
        ([], "its header is no object"),
        ({"rnn.weight_hh_l0": {"dtype": "F32"}}, "its header says nothing usable of 'rnn.weight_hh_l0'"),
        ({"x": {"dtype": "F32", "shape": [-1]}}, "its header says nothing usable of 'x'"),
        ({"x": {"dtype": 1, "shape": [1]}}, "its header says nothing usable of 'x'"),
        ({"__metadata__": 5}, "does not say its symbols"),
        ({}, "does not say its symbols"),
    ]:
        Path("file").write_bytes(tensor_file(header))
        assert words in refusal()


def test_claims_of_a_header_take_no_memory(workdir, monkeypatch):
    arrays, hidden = network(), 10**6
    shapes = {n: [hidden * s // H if s in (H, 3 * H) else s for s in a.shape] for n, a in arrays.items()}
    header = {n: {"dtype": "F64", "shape": shape, "data_offsets": [0, 0]} for n, shape in shapes.items()}
    Path("file").write_bytes(tensor_file(header))
    monkeypatch.setattr(files, "read", None)  # it is not even tried
    assert "bytes, more than this machine has memory" in refusal(symbols="\nabcdef", mode="lines")


def test_what_is_not_a_file_is_refused(workdir):
    Path("folder").mkdir()
    assert "missing: no such file: expected a file of bptt export" in refusal("missing")
    assert "is not a regular file" in refusal("folder")
    assert "embedded null" in refusal("a\0")
    with pytest.raises(InputError, match="path 5: expected a path"):
        bptt.from_torch(5)


@posix
def test_a_link_is_followed_and_a_pipe_is_refused(workdir):
    make_model().export("torch", "ours")
    Path("link").symlink_to("ours")
    assert same_model(make_model(), bptt.from_torch("link"))
    os.mkfifo("pipe")
    assert "is not a regular file" in refusal("pipe")


def test_a_truncated_or_extended_file_is_refused(workdir):
    make_model(hidden=2, vocabulary=characters("a")).export("torch", "ours")
    whole = Path("ours").read_bytes()
    Path("file").write_bytes(whole)
    for size in reversed(range(len(whole))):
        os.truncate("file", size)
        refusal()
    Path("file").write_bytes(whole + b"\0")
    assert "bytes, expected" in refusal()


@pytest.mark.parametrize("kind", ["bytes", "header", "metadata"])
def test_a_damaged_file_is_refused_with_a_message_or_works(workdir, kind):
    make_model("lstm", 2, "float32", hidden=2, text="t", held_out=1.0).export("torch", "ours")
    whole = Path("ours").read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    rng, taken = random.Random(kind), 0
    for _ in range(int(os.environ.get("BPTT_MUTATIONS", "10000")) // 20):
        data = bytearray(whole)
        header = json.loads(whole[8:end])
        if kind == "bytes":
            rng.choice(BYTE_MUTATIONS)(rng, data)
        elif kind == "header":
            data = tensor_file(mutate_json_value(rng, header), whole[end:])
        else:
            header["__metadata__"]["bptt"] = json.dumps(mutate_json_value(rng, json.loads(header["__metadata__"]["bptt"])))
            data = tensor_file(header, whole[end:])
        Path("file").write_bytes(data)
        try:
            found = bptt.from_torch("file")
        except ModelFileError:
            refusal()
        else:
            taken += 1
            assert repr(found)
            with np.errstate(all="ignore"):  # a number with another exponent
                found.sample(1, length=3)
    assert taken


# Writing


def test_export_does_not_overwrite(workdir):
    Path("file").write_bytes(b"mine")
    Path("folder").mkdir()
    for path in ("file", "folder"):
        with pytest.raises(InputError, match=f"^{path}: already exists: name a new file, or move the old one away$"):
            make_model().export("torch", path)
    assert Path("file").read_bytes() == b"mine"
    assert sorted(path.name for path in workdir.iterdir()) == ["file", "folder"]


def test_an_export_that_cannot_be_written_is_an_error(workdir):
    Path("file").write_bytes(b"mine")
    for path in ("file/new", "new\0"):
        with pytest.raises(SaveError, match="bytes cannot be written: "):
            make_model().export("torch", path)
    make_model().export("torch", "new/folder/file")
    assert same_model(make_model(), bptt.from_torch("new/folder/file"))
    assert sorted(path.name for path in workdir.iterdir()) == ["file", "new"]


def test_a_file_that_could_not_be_read_again_is_not_written(workdir, monkeypatch):
    make_model().export("torch", "file")
    header = int.from_bytes(Path("file").read_bytes()[:8], "little")
    monkeypatch.setattr(checkpoint_format, "MAX_HEADER_BYTES", header)
    make_model().export("torch", "just")
    assert same_model(make_model(), bptt.from_torch("just"))
    monkeypatch.setattr(checkpoint_format, "MAX_HEADER_BYTES", header - 1)
    with pytest.raises(InputError, match=r"symbols and initial states take .* can be read again: export a smaller model"):
        make_model().export("torch", "more")
    assert not Path("more").exists()
    refusal("just")


# The commands


def test_the_commands_export_and_import_a_model(run, monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)  # a second, the first time
    trained = make_model()
    trained.save("runs/m")
    assert run("export", "runs/m", "--to", "torch") == (0, "saved in m.safetensors\n", "")
    assert run("import", "m.safetensors", "--out", "back") == (0, "saved in back\nmore: bptt sample back --count 10\n", "")
    assert same_model(trained, bptt.load("back", backend="numpy"))
    Path("names.txt").write_text("abba\ncafe\n")
    for command in (["sample", "--count", 5], ["next"], ["score", "names.txt"], ["evaluate", "names.txt"]):
        there, back = (run(command[0], folder, *command[1:]) for folder in ("runs/m", "back"))
        assert there == back
        assert there[0] == 0
    assert run("train", "names.txt", "--from", "back", "--steps", 2, "--quiet", "--out", "new", "--backend", "numpy")[0] == 0
    code, out, err = run("train", "--resume", "back")
    assert (code, out) == (2, "")
    assert "start a new run with --from" in err


def test_the_command_imports_a_file_of_another_origin(run):
    write_tensors("theirs.safetensors", network("lstm", 2, "float32"))
    code, out, _ = run("import", "theirs.safetensors", "--symbols", "dac\nfeb", "--mode", "stream", "--out", "mine")
    first = "saved in mine", "texts begin from states of zero, since the file says no others"
    assert (code, *out.splitlines()[:2]) == (0, *first)
    assert bptt.load("mine", backend="numpy").config == model.Config("lstm", V, H, 2, "zero")
    assert run("sample", "mine", "--length", 5)[0] == 0


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["export", "m"], "--to"),
        (["export", "m", "--to", "onnx"], "onnx"),
        (["export", "missing", "--to", "torch"], "missing: no such folder"),
        (["export", "m", "--to", "torch", "--out", "names.txt"], "names.txt: already exists: name a new file"),
        (["export", "m", "--to", "torch"], "m.safetensors: already exists: name a new file"),
        (["import", "m.safetensors"], "--out"),
        (["import", "missing", "--out", "x"], "missing: no such file"),
        (["import", "m", "--out", "x"], "m: is not a regular file: expected a file of bptt export"),
        (["import", "names.txt", "--out", "x"], "names.txt: does not begin like a safetensors file"),
        (["import", "m.safetensors", "--out", "m"], "m: already exists: name a new folder"),
        (["import", "m.safetensors", "--out", "x", "--mode", "lines"], "leave out --symbols and --mode"),
        (["import", "m.safetensors", "--out", "x", "--mode", "prose"], "prose"),
    ],
)
def test_mistakes_are_one_line_errors(run, command, words):
    make_model().save("m")
    make_model().export("torch", "m.safetensors")
    Path("names.txt").write_text("abba\ncafe\n")
    before = sorted(Path().rglob("*"))
    code, out, err = run(*command)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert sorted(Path().rglob("*")) == before


# PyTorch itself


def modules(torch, cell, layers, dtype):
    kind = {"vanilla": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell]
    parts = {"rnn": kind(V, H, layers), "decoder": torch.nn.Linear(H, V)}
    return torch.nn.ModuleDict(parts).to(getattr(torch, dtype))


def torch_logits(torch, parts, ids, start):
    """Logits (T, B, V) of tokens (T, B)."""
    with torch.no_grad():
        one_hot = torch.eye(V, dtype=parts["decoder"].weight.dtype)[torch.from_numpy(ids)]
        return parts["decoder"](parts["rnn"](one_hot, start)[0]).numpy()


@CELLS
@LAYERS
@DTYPES
@pytest.mark.parametrize("initial", ["learned", "zero"])
def test_torch_loads_what_is_exported_and_gives_our_logits(workdir, torch, cell, layers, dtype, initial):
    from safetensors.torch import load_file

    trained, ids = make_model(cell, layers, dtype, initial=initial), np.random.default_rng(0).integers(0, V, (20, 3))
    about = exported(trained, "file")[1]
    parts, start = modules(torch, cell, layers, dtype), None
    parts.load_state_dict(load_file("file"), strict=True)
    if initial == "learned":
        states = [torch.tensor(s, dtype=getattr(torch, dtype))[:, None].repeat(1, 3, 1) for s in about["states"].values()]
        start = tuple(states) if cell == "lstm" else states[0]
    ours = model.forward(trained.config, trained.params, ids)[0]
    assert ours.dtype == np.dtype(dtype)
    np.testing.assert_allclose(torch_logits(torch, parts, ids, start), ours, rtol=0, atol=TOLERANCE[dtype])


@CELLS
@LAYERS
@DTYPES
def test_what_torch_saved_gives_its_logits(workdir, torch, cell, layers, dtype):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    parts, ids = modules(torch, cell, layers, dtype), np.random.default_rng(0).integers(0, V, (20, 3))
    save_file(parts.state_dict(), "file", metadata={"format": "pt"})
    found = bptt.from_torch("file", symbols="dac\nfeb", mode="lines")
    assert found.backend.dtype == dtype
    order = np.array(["dac\nfeb".index(symbol) for symbol in LETTERS.symbols])
    ours = model.forward(found.config, found.params, np.argsort(order)[ids])[0]
    expected = torch_logits(torch, parts, ids, None)[:, :, order]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=TOLERANCE[dtype])


def test_torch_in_half_precision_is_refused_in_words(workdir, torch):
    from safetensors.torch import save_file

    for dtype, kind in (("float16", "F16"), ("bfloat16", "BF16")):
        save_file(modules(torch, "gru", 1, dtype).state_dict(), "file")
        assert f"is {kind}, expected all F32 or all F64" in refusal(symbols="\nabcdef", mode="lines")


def test_torch_runs_the_lines_in_the_docs(workdir, torch):
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "export.md").read_text("utf-8")
    code = next(block for block in page.split("```python\n") if "strict=True" in block).partition("```")[0]
    hidden = setup.from_scratch("dinosaurs", from_flags({"backend": "numpy"})).task.plan.hidden
    trained = make_model(dtype="float32", vocabulary=characters("abcdefghijklmnopqrstuvwxyz"), hidden=hidden)
    trained.export("torch", "dinosaurs.safetensors")
    found = {}
    exec(code, found)
    ours = logits(trained, trained.vocabulary.encode("\nvelo"))
    np.testing.assert_allclose(found["logits"].detach().numpy(), ours, rtol=0, atol=1e-5)  # many units add up


@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
def test_the_averaged_weights_are_exported(workdir, cell):
    names = [a + b for a in "bdk" for b in "aeiou"]
    flags = {"hidden": 4, "steps": 9, "average": 0.9, "schedule": "wsd", "validation": 0, "backend": "numpy", "report": None}
    trained = bptt.train(names, cell=cell, out="run", **flags)
    trained.export("torch", "model.safetensors")
    averaged = tree.ravel(bptt.load("run").params)
    np.testing.assert_array_equal(tree.ravel(bptt.from_torch("model.safetensors").params), averaged)
    last = safetensors.numpy.load_file("run/checkpoints/latest/optimizer.safetensors")["params"]
    assert np.abs(last - averaged).max() > 1e-3


def test_a_file_of_ours_is_not_taken_for_one_of_pytorch(tmp_path):
    bptt.train(["anna", "bob"] * 5, report=None, hidden=4, steps=1, backend="numpy").save(tmp_path / "model")
    for given in ({}, {"symbols": "\nabno", "mode": "lines"}):
        with pytest.raises(
            InputError, match="holds weights by the names of bptt, not of PyTorch: load the folder that it is in"
        ):
            bptt.from_torch(tmp_path / "model" / "model.safetensors", **given)


@CELLS
@DTYPES
@pytest.mark.parametrize("biases", [True, False])
def test_torch_networks_with_an_embedding_give_our_logits(workdir, torch, cell, dtype, biases):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    kind = {"vanilla": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell]
    parts = {
        "embedding": torch.nn.Embedding(V, 3),
        "lstm": kind(3, H, 2, bias=biases),
        "fc": torch.nn.Linear(H, V, bias=biases),
    }
    network = torch.nn.DataParallel(torch.nn.ModuleDict(parts).to(getattr(torch, dtype)))
    save_file(network.state_dict(), "file")
    found = bptt.from_torch("file", symbols="\nabcdef", mode="lines")
    ids = np.random.default_rng(0).integers(0, V, (20, 3))
    with torch.no_grad():
        expected = parts["fc"](parts["lstm"](parts["embedding"](torch.from_numpy(ids)))[0]).numpy()
    np.testing.assert_allclose(model.forward(found.config, found.params, ids)[0], expected, rtol=0, atol=TOLERANCE[dtype])


def test_torch_networks_of_other_kinds_are_refused(workdir, torch):
    from safetensors.torch import save_file

    for how, words in (({"bidirectional": True}, "it is bidirectional"), ({"proj_size": 2}, "with a projection (proj_size)")):
        parts = {"rnn": torch.nn.LSTM(V, H, **how), "decoder": torch.nn.Linear(H, V)}
        save_file(torch.nn.ModuleDict(parts).state_dict(), "file")
        assert words in refusal(symbols="\nabcdef", mode="lines")
