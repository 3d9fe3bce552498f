"""The training step of bench/train_step.py and bench/devices.py by all who take part, each in its best honest setting.

That is one for one core of a CPU, or for a GPU. A contender is made from float32 host weights and a batch. Tokens come in the
form that suits it best, made before the clock runs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bptt import acceleration, dispatch, textbook
from bptt import backend as backends
from bptt.backend import Backend, HostArray
from bptt.nn import gradient as gradients
from bptt.nn import model, optimizers, tree


class Contender(NamedTuple):
    """Functions without arguments that wait until all is computed and return the loss before the update."""

    gradient: Callable[[], float]  # loss and gradient
    step: Callable[[], float]  # loss, gradient, norm clip at 1, Adam at 0.001
    before: Callable[[], Any] = lambda: None  # called before either of them, outside of its time
    begin: Callable[[], Any] = lambda: None  # a step that nobody waits for, where there is a device to do it
    wait: Callable[[], Any] = lambda: None  # for all steps that were begun


def ours(config: model.Config, params: model.Params, x: HostArray, y: HostArray, where: Backend | None = None) -> Contender:
    """This package on a backend, by default NumPy: with its kernels or without, as they are when it is called."""
    where = where or backends.select("numpy")
    theta = tree.ravel(tree.tree_map(where.put, params))
    memory = optimizers.init_adam(theta)
    x, y, mask = where.put(x), where.put(y), where.put(np.ones(x.shape))

    def gradient() -> float:
        loss, _, _ = gradients.loss_and_grad(theta, config, x, y, mask, None, (), None)
        where.synchronize()
        return float(where.get(loss))

    def begin() -> Any:
        nonlocal theta, memory
        loss, d, _ = gradients.loss_and_grad(theta, config, x, y, mask, None, (), None)
        clipped, _ = optimizers.clip_by_norm(d, 1.0)
        theta, memory = optimizers.adam(theta, clipped, memory, 1e-3)
        return loss

    def step() -> float:
        loss = begin()
        where.synchronize()
        return float(where.get(loss))

    return Contender(gradient, step, begin=begin, wait=where.synchronize)


def replayed(config: model.Config, params: model.Params, x: HostArray, y: HostArray, where: Backend) -> Contender:
    """This package on a GPU as it trains there: a step is captured once as a CUDA graph, and replayed."""
    theta = tree.ravel(tree.tree_map(where.put, params))
    memory = optimizers.AdamState(*(where.xp.asarray(array, copy=True) for array in optimizers.init_adam(theta)))
    x, y, mask, first = where.put(x), where.put(y), where.put(np.ones(x.shape)), where.put(np.zeros(()))
    actions: list[Callable[[], None]] = []

    def update() -> None:
        loss, d, _ = gradients.loss_and_grad(theta, config, x, y, mask, None, (), None)
        clipped, _ = optimizers.clip_by_norm(d, 1.0)
        now = optimizers.adam(theta, clipped, memory, 1e-3)
        for to, array in zip((first, theta, *memory), (loss, now[0], *now[1])):
            to[...] = array

    def begin() -> Any:
        if len(actions) == 1:  # it has been called once
            record = acceleration.graph_recorder()
            actions.append(record(update) if record else update)
        elif not actions:
            actions.append(update)
        actions[-1]()
        return first

    def step() -> float:
        return float(where.get(begin()))

    return Contender(step, step, begin=begin, wait=where.synchronize)


def pure(*arguments: Any) -> Contender:
    """The pure functions on NumPy."""
    return ours(*arguments)._replace(before=dispatch.disable)


def with_kernels(*arguments: Any) -> Contender:
    """The kernels on NumPy."""
    return ours(*arguments)._replace(before=acceleration.enable)


def course(config: model.Config, params: model.Params, x: HostArray, y: HostArray) -> Contender:
    """The textbook's functions, one sequence after the other, with its own clip and update."""
    layer = params.layers[0]
    columns = {"Wax": layer.Wax, "Waa": layer.Waa, "Wya": params.Wya, "b": layer.b[:, None], "by": params.by[:, None]}
    start = np.zeros((config.hidden, 1))
    pairs = [(X.tolist(), Y.tolist()) for X, Y in zip(x.T, y.T)]
    parameters = {name: array.astype(np.float64) for name, array in columns.items()}

    def gradient() -> float:
        total = 0.0
        for X, Y in pairs:
            loss, cache = textbook.rnn_forward(X, Y, start, parameters, vocab_size=config.vocabulary)
            textbook.rnn_backward(X, Y, parameters, cache)
            total += float(loss)
        return total / x.size

    def step() -> float:
        losses = [textbook.optimize(X, Y, start, parameters, learning_rate=1e-3)[0] for X, Y in pairs]
        return float(sum(losses)) / x.size

    return Contender(gradient, step)


def products(config: model.Config, params: model.Params, x: HostArray, y: HostArray) -> Contender:
    """The matrix products of a step alone, through NumPy, each in the layout that its BLAS likes best."""
    (T, B), H, V, rng = x.shape, config.hidden, config.vocabulary, np.random.default_rng(0)
    N = params.layers[0].Waa.shape[0]
    a, h, dz, dlogits = (rng.random(shape, np.float32) for shape in [(B, H), (T * B, H), (T * B, N), (T * B, V)])
    Waa, Wya = rng.random((N, H), np.float32), rng.random((V, H), np.float32)
    WaaT, WyaT = np.ascontiguousarray(Waa.T), np.ascontiguousarray(Wya.T)
    z, da = np.empty((B, N), np.float32), np.empty((B, H), np.float32)
    logits, dh = np.empty((T * B, V), np.float32), np.empty((T * B, H), np.float32)
    dWaa, dWya = np.empty((N, H), np.float32), np.empty((V, H), np.float32)

    def multiply() -> float:
        for _ in range(T):
            np.matmul(a, WaaT, out=z)
        np.matmul(h, WyaT, out=logits)
        np.matmul(dlogits, Wya, out=dh)
        np.matmul(dlogits.T, h, out=dWya)
        for t in range(T):
            np.matmul(dz[t * B : (t + 1) * B], Waa, out=da)
        np.matmul(dz.T, h, out=dWaa)
        return 0.0

    return Contender(multiply, multiply)


def torch(
    config: model.Config, params: model.Params, x: HostArray, y: HostArray, device: str = "cpu", *, graph: bool = False
) -> Contender:
    """`torch.nn.RNN`, `GRU` or `LSTM` on one-hot vectors, its fused Adam; cuDNN on "cuda", oneDNN on a CPU where it can (LSTM).

    With `graph` a whole step is captured once as a CUDA graph and replayed.
    """
    import torch
    from torch.nn.utils import clip_grad_norm_

    torch.set_num_threads(1)
    kind = {"vanilla": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[config.cell]
    rnn = kind(config.vocabulary, config.hidden, device=device)
    output_layer = torch.nn.Linear(config.hidden, config.vocabulary, device=device)
    layer = params.layers[0]
    hidden_bias = np.zeros_like(layer.b)
    if config.cell == "gru":
        hidden_bias[2 * config.hidden :] = layer.ban
    weights = (rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0, rnn.bias_hh_l0, output_layer.weight, output_layer.bias)
    with torch.no_grad():
        for to, array in zip(weights, (layer.Wax, layer.Waa, layer.b, hidden_bias, params.Wya, params.by)):
            to.copy_(torch.from_numpy(array))
    adam = torch.optim.Adam(weights, lr=1e-3, fused=True, capturable=graph)
    inputs = torch.eye(config.vocabulary)[torch.from_numpy(x)].to(device)
    targets = torch.from_numpy(y).reshape(-1).to(device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def loss_and_gradient() -> Any:
        adam.zero_grad()
        logits = output_layer(rnn(inputs)[0])
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, config.vocabulary), targets)
        loss.backward()
        return loss.detach()

    def begin() -> Any:
        loss = loss_and_gradient()
        clip_grad_norm_(weights, 1.0)
        adam.step()
        return loss

    def step() -> float:
        loss = begin()
        wait()
        return float(loss)

    if graph:
        begin = _captured(begin, weights, adam)
    return Contender(lambda: float(loss_and_gradient()), step, begin=begin, wait=wait)


def _captured(begin: Callable[[], Any], weights: Any, adam: Any) -> Callable[[], Any]:
    """The step of PyTorch as a CUDA graph, from the same weights on: those that warming up has moved are put back."""
    import torch

    before = [one.detach().clone() for one in weights]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            begin()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = begin()
    with torch.no_grad():
        for one, start in zip(weights, before):
            one.copy_(start)
            for memory in adam.state[one].values():
                memory.zero_()

    def replay() -> Any:
        graph.replay()
        return loss

    return replay


def jax(config: model.Config, params: model.Params, x: HostArray, y: HostArray) -> Contender:
    """One program of `jit`: a `scan` over time of what depends on the state, all else before and after it; buffers donated."""
    import jax
    import jax.numpy as jnp

    H = config.hidden

    def vanilla(layer: Any, state: Any, z: Any) -> Any:
        a = jnp.tanh(z + state[0] @ layer.Waa.T)
        return (a,), a

    def gru(layer: Any, state: Any, z: Any) -> Any:
        q = state[0] @ layer.Waa.T
        ru = jax.nn.sigmoid(z[:, : 2 * H] + q[:, : 2 * H])
        n = jnp.tanh(z[:, 2 * H :] + ru[:, :H] * (q[:, 2 * H :] + layer.ban))
        a = n + ru[:, H:] * (state[0] - n)
        return (a,), a

    def lstm(layer: Any, state: Any, z: Any) -> Any:
        q = z + state[0] @ layer.Waa.T
        i, f, o = jax.nn.sigmoid(q[:, :H]), jax.nn.sigmoid(q[:, H : 2 * H]), jax.nn.sigmoid(q[:, 3 * H :])
        c = f * state[1] + i * jnp.tanh(q[:, 2 * H : 3 * H])
        a = o * jnp.tanh(c)
        return (a, c), a

    cell = {"vanilla": vanilla, "gru": gru, "lstm": lstm}[config.cell]

    def mean(params: Any, x: Any, y: Any) -> Any:
        layer = params.layers[0]
        start = (jnp.zeros((x.shape[1], H), jnp.float32),) * (2 if config.cell == "lstm" else 1)
        _, a = jax.lax.scan(lambda state, z: cell(layer, state, z), start, layer.Wax.T[x] + layer.b)
        logits = jax.nn.log_softmax(a @ params.Wya.T + params.by)
        return -jnp.mean(jnp.take_along_axis(logits, y[:, :, None], axis=2))

    def update(state: Any, x: Any, y: Any) -> Any:
        params, m, v, t = state
        loss, d = jax.value_and_grad(mean)(params, x, y)
        norm = jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(d)))
        t = t + 1
        scale, fix_m, fix_v = 1.0 / jnp.maximum(norm, 1.0), 1 / (1 - 0.9**t), 1 / (1 - 0.999**t)
        m = jax.tree.map(lambda m, d: 0.9 * m + 0.1 * scale * d, m, d)
        v = jax.tree.map(lambda v, d: 0.999 * v + 0.001 * (scale * d) ** 2, v, d)
        params = jax.tree.map(lambda p, m, v: p - 1e-3 * fix_m * m / (jnp.sqrt(fix_v * v) + 1e-8), params, m, v)
        return (params, m, v, t), loss

    compiled, compiled_gradient = jax.jit(update, donate_argnums=0), jax.jit(jax.value_and_grad(mean))
    params = jax.tree.map(lambda a: jnp.array(a, jnp.float32), params)
    tokens, targets = jnp.array(x, jnp.int32), jnp.array(y, jnp.int32)
    state = (jax.tree.map(jnp.copy, params), *(jax.tree.map(jnp.zeros_like, params) for _ in range(2)), jnp.float32(0))

    def gradient() -> float:
        return float(jax.block_until_ready(compiled_gradient(params, tokens, targets))[0])

    def begin() -> Any:
        nonlocal state
        state, loss = compiled(state, tokens, targets)
        return loss

    def step() -> float:
        loss = begin()
        jax.block_until_ready(state)
        return float(loss)

    return Contender(gradient, step, begin=begin, wait=lambda: jax.block_until_ready(state))
