"""PyTorch as a witness: its layers with our weights, its autograd through our forward, its optimizers."""

import dataclasses
import pickle

import numpy as np
import pytest

import bptt
from runs import NAMES, PROSE

torch = pytest.importorskip("torch", reason="torch is not installed: nox -s torch runs these")

from bptt.backend import select  # noqa: E402
from bptt.config.settings import from_flags  # noqa: E402
from bptt.errors import InputError  # noqa: E402
from bptt.nn import gru, loss, lstm, model, optimizers, tree, vanilla  # noqa: E402
from bptt.train_step import stepper  # noqa: E402
from bptt.training import setup  # noqa: E402

T, B, V, H = 6, 3, 7, 5
LAYERS = {"vanilla": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
MODULES = {"vanilla": vanilla, "gru": gru, "lstm": lstm}
CELLS = pytest.mark.parametrize("cell", LAYERS)
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)


def inputs(cell, layers, dtype, seed=0):
    rng = np.random.default_rng(seed)
    config = model.Config(cell, V, H, layers, "zero")
    params = tree.tree_map(lambda a: (a + 0.3 * rng.normal(size=a.shape)).astype(dtype), model.init(config, rng))
    State = MODULES[cell].State
    states = tuple(State(*[rng.normal(size=(B, H)).astype(dtype) for _ in State._fields]) for _ in range(layers))
    return config, params, rng.integers(0, V, (T, B)), rng.integers(0, V, (T, B)), states


def torch_layers(cell, params, dtype):
    """torch.nn's layers and output layer with our weights; our one bias goes to its input bias, `ban` to its hidden one."""
    rnn = LAYERS[cell](V, H, len(params.layers)).to(getattr(torch, dtype))
    decoder = torch.nn.Linear(H, V).to(getattr(torch, dtype))
    with torch.no_grad():
        for k, p in enumerate(params.layers):
            hidden_bias = np.zeros_like(p.b)
            if cell == "gru":
                hidden_bias[2 * H :] = p.ban
            for name, array in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), (p.Wax, p.Waa, p.b, hidden_bias)):
                getattr(rnn, f"{name}_l{k}").copy_(torch.from_numpy(array))
        decoder.weight.copy_(torch.from_numpy(params.Wya))
        decoder.bias.copy_(torch.from_numpy(params.by))
    return rnn, decoder


@CELLS
@DTYPES
@pytest.mark.parametrize("layers", [1, 2])
def test_outputs_and_gradients_equal_those_of_torch_layers(cell, dtype, layers):
    config, params, x, y, states = inputs(cell, layers, dtype)
    rnn, decoder = torch_layers(cell, params, dtype)
    start = [torch.from_numpy(np.stack(parts)).requires_grad_() for parts in zip(*states)]
    one_hot = torch.from_numpy(np.eye(V, dtype=dtype)[x])
    out, after = rnn(one_hot, tuple(start) if cell == "lstm" else start[0])
    logits = decoder(out)
    mean = torch.nn.functional.cross_entropy(logits.reshape(-1, V), torch.from_numpy(y.ravel()))
    mean.backward()

    ours, ours_after, cache = model.forward(config, params, x, states)
    ours_mean, loss_cache = loss.forward(ours, y, np.ones((T, B), dtype))
    gradient, _ = model.backward(config, params, cache, loss.backward(loss_cache))

    def close(got, expected, name):
        assert got.dtype == np.dtype(dtype), name
        np.testing.assert_allclose(got, expected.detach().numpy(), rtol=0, atol=TOLERANCE[dtype], err_msg=name)

    close(ours, logits, "logits")
    close(np.asarray(ours_mean), mean, "loss")
    torch_after = after if cell == "lstm" else (after,)
    for k in range(layers):
        for field, part in zip(ours_after[k]._fields, torch_after):
            close(getattr(ours_after[k], field), part[k], f"final {field}")
        d = gradient.layers[k]
        close(d.Wax, getattr(rnn, f"weight_ih_l{k}").grad, f"Wax {k}")
        close(d.Waa, getattr(rnn, f"weight_hh_l{k}").grad, f"Waa {k}")
        close(d.b, getattr(rnn, f"bias_ih_l{k}").grad, f"b {k}")
        if cell == "gru":
            close(d.ban, getattr(rnn, f"bias_hh_l{k}").grad[2 * H :], f"ban {k}")
    close(gradient.Wya, decoder.weight.grad, "Wya")
    close(gradient.by, decoder.bias.grad, "by")


@CELLS
@DTYPES
def test_the_gradient_of_the_incoming_state_equals_torch(cell, dtype):
    """One layer on vectors: dx and the gradients of a0 (and c0) against torch's."""
    rng = np.random.default_rng(4)
    module = MODULES[cell]
    params = tree.tree_map(lambda a: (a + 0.3 * rng.normal(size=a.shape)).astype(dtype), module.init(rng, V, H))
    x, weight = rng.normal(size=(T, B, V)).astype(dtype), rng.normal(size=(T, B, H)).astype(dtype)
    state = module.State(*[rng.normal(size=(B, H)).astype(dtype) for _ in module.State._fields])
    by = np.zeros(V, dtype)
    rnn, _ = torch_layers(cell, model.Params((params,), (), np.zeros((V, H), dtype), by), dtype)
    start = [torch.from_numpy(part[None]).requires_grad_() for part in state]
    vectors = torch.from_numpy(x).requires_grad_()
    out, _ = rnn(vectors, tuple(start) if cell == "lstm" else start[0])
    (out * torch.from_numpy(weight)).sum().backward()
    _, _, cache = module.forward(params, x, state)
    dx, dstate, _ = module.backward(params, cache, weight)
    np.testing.assert_allclose(dx, vectors.grad.numpy(), rtol=0, atol=10 * TOLERANCE[dtype])
    for name, got, expected in zip(dstate._fields, dstate, start):
        np.testing.assert_allclose(got, expected.grad[0].numpy(), rtol=0, atol=10 * TOLERANCE[dtype], err_msg=name)


@CELLS
@pytest.mark.parametrize("layers", [1, 2])
def test_torch_autograd_through_forward_equals_backward(cell, layers):
    """Our forward on torch tensors, differentiated by torch, gives what our backward gives; learned initial state included."""
    rng = np.random.default_rng(1)
    config = model.Config(cell, V, H, layers)
    put = select("torch", "float64").put
    params = tree.tree_map(lambda a: put(a + 0.3 * rng.normal(size=a.shape)).requires_grad_(), model.init(config, rng))
    x, y, mask = put(rng.integers(0, V, (T, B))), put(rng.integers(0, V, (T, B))), put((rng.random((T, B)) < 0.8).astype(float))
    keep = tree.tree_map(put, model.dropout_masks(config, rng, 0.3, B))
    leaves = tree.named_leaves(params)
    mean, _ = loss.forward(model.forward(config, params, x, None, keep)[0], y, mask)
    expected = torch.autograd.grad(mean, [leaf for _, leaf in leaves])
    with torch.no_grad():
        _, gradient, _ = model.loss_and_grad(config, params, x, y, mask, None, keep)
    for (name, d), e in zip(tree.named_leaves(gradient), expected):
        np.testing.assert_allclose(d.numpy(), e.numpy(), rtol=0, atol=1e-12, err_msg=name)


OPTIMIZERS = {
    "sgd": (optimizers.sgd, torch.optim.SGD, {}),
    "momentum": (optimizers.momentum, torch.optim.SGD, {"momentum": 0.9}),
    "adagrad": (optimizers.adagrad, torch.optim.Adagrad, {}),
    "rmsprop": (optimizers.rmsprop, torch.optim.RMSprop, {}),
    "adam": (optimizers.adam, torch.optim.AdamW, {"weight_decay": 0.0}),
    "adamw": (lambda *a: optimizers.adam(*a, weight_decay=0.2), torch.optim.AdamW, {"weight_decay": 0.2}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_equal_those_of_torch_optim(name):
    ours, kind, options = OPTIMIZERS[name]
    rng = np.random.default_rng(0)
    theta = rng.normal(size=6)
    tensor = torch.tensor(theta, requires_grad=True)
    theirs, state = kind([tensor], lr=0.05, **options), optimizers.OPTIMIZERS[name.replace("adamw", "adam")].init(theta)
    for _ in range(20):
        d = rng.normal(size=6)
        tensor.grad = torch.tensor(d)
        theirs.step()
        theta, state = ours(theta, d, state, 0.05)
    np.testing.assert_allclose(theta, tensor.detach().numpy(), rtol=0, atol=1e-12)


def test_clip_by_norm_equals_that_of_torch():
    d = np.random.default_rng(0).normal(size=9)
    tensor = torch.zeros(9, dtype=torch.float64, requires_grad=True)
    tensor.grad = torch.tensor(d)
    norm = torch.nn.utils.clip_grad_norm_([tensor], 0.5)
    clipped, ours = optimizers.clip_by_norm(d, 0.5)
    assert float(ours) == pytest.approx(float(norm), rel=1e-12)
    np.testing.assert_allclose(clipped, tensor.grad.numpy(), rtol=1e-5)  # torch adds 1e-6 to the norm


# Devices


@CELLS
@pytest.mark.parametrize("text", [NAMES, PROSE], ids=["lines", "stream"])
@pytest.mark.parametrize("flags", [{}, {"micro_batches": 2}, {"recompute_every": 2}, {"optimizer": "sgd", "average": 0}])
def test_updates_on_torch_leave_nothing_on_another_device(monkeypatch, cell, text, flags):
    """On the device meta, which has shapes and no numbers: PyTorch refuses operations that mix it with the CPU."""
    meta = dataclasses.replace(select("torch", "float32"), device=torch.device("meta"))
    monkeypatch.setattr(setup, "select_backend", lambda settings: meta)
    small = {"hidden": 5, "layers": 2, "steps": 6, "batch": 6, "length": 3, "backend": "torch", "dropout": 0.2, "cell": cell}
    run = setup.from_scratch(text, from_flags({**small, **flags}))
    arrays = []
    for state, metrics in stepper.run_updates(run.task, run.now.state, lambda _: 3):
        of_updates = [(one.loss, one.grad_norm) for one in metrics]
        average = () if state.average is None else (state.average,)
        states = () if state.states is None else (state.states,)
        arrays += [state.params_vector, state.finite, *state.opt_state, *average, *states, *sum(of_updates, ())]
    assert state.step == 6
    arrays = [array for array in arrays if isinstance(array, torch.Tensor)]
    assert len(arrays) >= 12
    assert {array.device.type for array in arrays} == {"meta"}


def test_a_device_of_torch_is_chosen_by_its_name():
    named = select("torch", "float32", device="cpu")
    assert (named.device, str(named)) == (torch.device("cpu"), "torch float32 on cpu")
    assert named.put(np.ones(3)).device == torch.device("cpu")
    assert str(pickle.loads(pickle.dumps(named))) == str(named)


@pytest.mark.parametrize("device", ["meta", "gpu", "cuda:99", "", "cpu:x", "99"])
def test_a_device_that_torch_cannot_use_is_one_line(device):
    with pytest.raises(InputError) as caught:
        select("torch", device=device)
    assert str(caught.value).startswith(f"device {device!r}: PyTorch cannot use it: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_run_on_a_device_of_torch_can_move_on_resume(tmp_path):
    small = {"hidden": 4, "steps": 4, "batch": 6, "report": None}
    bptt.train(NAMES, out=tmp_path / "run", backend="torch", device="cpu", stop_after=1, **small)
    trained = bptt.train(NAMES, resume=tmp_path / "run", stop_after=1, report=None)
    assert str(trained.backend) == "torch float32 on cpu"
    with pytest.raises(InputError, match="device 'cuda:99': PyTorch cannot use it"):
        bptt.train(NAMES, resume=tmp_path / "run", device="cuda:99", report=None)
    trained = bptt.train(NAMES, resume=tmp_path / "run", backend="numpy", stop_after=1, report=None)
    assert str(trained.backend) == "numpy float32"
    assert str(bptt.load(tmp_path / "run", backend="torch", device="cpu").backend) == "torch float32 on cpu"
