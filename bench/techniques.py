"""Techniques that the package does not have, as prototypes for what_helps.py.

A prototype changes functions of the package as long as its context lasts; its own settings come on top. `check` compares its
gradient with a central difference.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np

from bptt import acceleration, dispatch
from bptt.config.settings import from_flags
from bptt.data.dataset import epochs, make_rng
from bptt.nn import gradient, linear, model, tree
from bptt.train_step import stepper, update
from bptt.train_step.state import TrainTask, initial_state
from bptt.training import setup

PURPOSE = 100  # of the random numbers, see `make_rng`
NO_TOKEN = -1e4  # the bias of a symbol that never comes: exp of it is 0

Context = Callable[[], contextlib.AbstractContextManager[None]]
Masks = Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]  # of some tensors, by name
LossAndGrad = Callable[..., tuple[Any, Any, Any]]


class Prototype(NamedTuple):
    """A technique: what replaces functions of the package, and settings."""

    context: Context
    settings: Mapping[str, Any] = MappingProxyType({})
    timed_as: Mapping[str, Any] | None = None  # settings whose updates are timed instead; with none, it gets as many updates
    kernels: bool = True  # without: its updates are timed against default ones that use no kernels either


def dropout_mask(rng: np.random.Generator, shape: tuple[int, ...], probability: float) -> Any:
    """0 with a probability, rounded to 1/256, else 1 over the rest; bytes are the cheapest random numbers."""
    limit = round(256 * probability)
    kept = np.frombuffer(rng.bytes(int(np.prod(shape))), np.uint8).reshape(shape) >= limit
    return kept * np.float32(256 / (256 - limit))


def leaves(config: model.Config, vector: Any) -> dict[str, Any]:
    """The tensors of a parameter vector by name, views of it."""
    return dict(tree.named_leaves(tree.unravel(vector, model.shapes(config))))


@contextlib.contextmanager
def replaced(wrap: Callable[[LossAndGrad], LossAndGrad]) -> Iterator[None]:
    """Each update takes its gradient from a wrapper of `update.loss_and_grad`, which has the same parameters."""
    alone = patch.object(stepper, "fits_group", lambda task, window: False)
    with alone, patch.object(update, "loss_and_grad", wrap(update.loss_and_grad)):
        yield


def masked_weights(masks: Masks) -> contextlib.AbstractContextManager[None]:
    """Some tensors of each update are multiplied by a mask."""

    def wrap(plain: LossAndGrad) -> LossAndGrad:
        def loss_and_grad(task: TrainTask, params_vector: Any, window: Any, states: Any, step: int, *rest: Any) -> Any:
            masked = params_vector.copy()
            tensors = leaves(task.config, masked)
            factors = masks(tensors, make_rng(task.settings.seed, PURPOSE, step))
            for name, mask in factors.items():
                tensors[name] *= mask
            loss, grad, after = plain(task, masked, window, states, step, *rest)
            for name, mask in factors.items():
                leaves(task.config, grad)[name] *= mask
            return loss, grad, after

        return loss_and_grad

    return replaced(wrap)


def weight_dropout(probability: float) -> contextlib.AbstractContextManager[None]:
    """Single weights of each Waa are 0 in a batch: DropConnect, as in the AWD-LSTM (Merity et al. 2017, arXiv 1708.02182)."""

    def masks(tensors: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        Waa = {name: tensor for name, tensor in tensors.items() if name.endswith(".Waa")}
        return {name: dropout_mask(rng, tensor.shape, probability) for name, tensor in Waa.items()}

    return masked_weights(masks)


def symbol_dropout(probability: float) -> contextlib.AbstractContextManager[None]:
    """Some symbols have no input weights in a batch: embedding dropout (Gal and Ghahramani 2016, arXiv 1512.05287)."""

    def masks(tensors: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return {"layers.0.Wax": dropout_mask(rng, tensors["layers.0.Wax"].shape[1:], probability)}

    return masked_weights(masks)


def step_dropout(probability: float) -> contextlib.AbstractContextManager[None]:
    """The input of single steps is a zero vector: word dropout (Bowman et al. 2016, arXiv 1511.06349) with rescaling.

    The zero vector is a further symbol, V, without input weights, that never comes next.
    """
    scale = 256 / (256 - round(256 * probability))

    def wrap(plain: LossAndGrad) -> LossAndGrad:
        def loss_and_grad(task: TrainTask, params_vector: Any, window: Any, states: Any, step: int, *rest: Any) -> Any:
            params, V = tree.unravel(params_vector, model.shapes(task.config)), task.config.vocabulary
            rng = make_rng(task.settings.seed, PURPOSE, step)

            def read(window: Any) -> Any:
                batch = task.read(window)
                return batch._replace(x=np.where(dropout_mask(rng, batch.x.shape, probability) > 0, batch.x, V))

            first = params.layers[0]._replace(Wax=np.pad(scale * params.layers[0].Wax, ((0, 0), (0, 1))))
            by = np.append(params.by, params.by.dtype.type(NO_TOKEN))
            wider = params._replace(layers=(first, *params.layers[1:]), Wya=np.pad(params.Wya, ((0, 1), (0, 0))), by=by)
            wide_task = task._replace(config=model.Config(**{**vars(task.config), "vocabulary": V + 1}), read=read)
            loss, wide_grad, after = plain(wide_task, tree.ravel(wider), window, states, step, *rest)
            grad = tree.unravel(wide_grad, model.shapes(wide_task.config))
            first = grad.layers[0]._replace(Wax=scale * grad.layers[0].Wax[:, :V])
            grad = grad._replace(layers=(first, *grad.layers[1:]), Wya=grad.Wya[:V], by=grad.by[:V])
            return loss, tree.ravel(grad), after

        return loss_and_grad

    return replaced(wrap)


@contextlib.contextmanager
def residual_layers() -> Iterator[None]:
    """Each layer but the first adds its input to its output, which goes to the next layer or to the output layer.

    With two layers, the output layer then sees the sum of both (residual connections, He et al. 2015, arXiv 1512.03385).
    """

    def run_layers(config: model.Config, params: model.Params, x: Any, states: Any, keep: tuple[Any, ...]) -> Any:
        starts = model.initial_states(config, params, x.shape[1]) if states is None else states
        h, caches, after = x, [], []  # h: (T, B) tokens, then (T, B, H)
        for layer, layer_params in enumerate(params.layers):
            a, state, cache = config.definition.forward(layer_params, h, starts[layer])
            a = a * keep[layer] if keep else a
            h = a + h if layer else a
            caches.append(cache)
            after.append(state)
        return h, tuple(after), model.Cache(tuple(caches), keep, h, states is None)

    def backward(config: model.Config, params: model.Params, cache: model.Cache, dlogits: Any, dafter: Any = None) -> Any:
        dh, dWya, dby = linear.backward(params.Wya, cache.a, dlogits)
        layers, dstates = [], []
        for layer in reversed(range(config.layers)):
            da = dh * cache.keep[layer] if cache.keep else dh
            following = dafter and dafter[layer]
            dx, dstate, dparams = config.definition.backward(params.layers[layer], cache.layers[layer], da, following)
            dh = dh if dx is None else dh + dx
            layers.append(dparams)
            dstates.append(dstate)
        dbefore = tuple(dstates[::-1])
        dinitial = tree.tree_map(lambda d: np.sum(d, axis=0) * cache.fresh, dbefore) if params.initial else ()
        return model.Params(tuple(layers[::-1]), dinitial, dWya, dby), dbefore

    kernels = contextlib.ExitStack()
    for function in (gradient.loss_and_grad, gradient.segment_loss_and_grad):
        kernels.enter_context(patch.dict(function.kernels, clear=True))  # they know the layers of the package only
    with kernels, patch.object(model, "run_layers", run_layers), patch.object(model, "backward", backward):
        yield


LAYER_NORM = {"cell": Path(__file__).with_name("layer_norm_gru.py")}

# A mask of weights costs what the prototype takes. Input dropout would cost next to nothing in the package: it gets as many
# updates as the default settings. Layer normalisation has no kernels: it costs what it takes beside a GRU without them.
PROTOTYPES: dict[str, Prototype] = {
    **{f"weight dropout {p}": Prototype(partial(weight_dropout, p)) for p in (0.1, 0.2, 0.3)},
    **{f"input dropout {p}, by symbol": Prototype(partial(symbol_dropout, p), {}, {}) for p in (0.05, 0.1, 0.2)},
    **{f"input dropout {p}, by step": Prototype(partial(step_dropout, p), {}, {}) for p in (0.05, 0.1, 0.2)},
    "two layers, residual": Prototype(residual_layers, {"layers": 2}, {"layers": 2}),
    "layer normalisation": Prototype(contextlib.nullcontext, LAYER_NORM, kernels=False),
    "layer normalisation, twice the learning rate": Prototype(
        contextlib.nullcontext, {**LAYER_NORM, "learning_rate": 2.0}, kernels=False
    ),
}


def check(prototype: Prototype, directions: int = 4) -> float:
    """The largest relative error of the gradient of a prototype along random directions, in float64."""
    flags = {"hidden": 12, "batch": 5, "dtype": "float64", "dropout": 0.3, "backend": "numpy", **prototype.settings}
    with patch.object(acceleration, "enable_for"):  # kernels for float64 would be compiled for this alone
        prepared = setup.from_scratch("dinosaurs", from_flags(flags))
    task, rng, errors = prepared.task, make_rng(0), []
    start = initial_state(task, tree.unravel(prepared.now.state.params_vector, model.shapes(task.config))).params_vector
    vector = start + 0.1 * rng.normal(size=start.shape)
    _, window = next(epochs(task.data, task.plan.batch, task.plan.length, 0))
    with dispatch.restored(), prototype.context():
        dispatch.disable()
        grad = update.loss_and_grad(task, vector, window, None, 0)[1]
        for _ in range(directions):
            direction = rng.normal(size=vector.shape)
            more, less = (update.loss_and_grad(task, vector + sign * 1e-5 * direction, window, None, 0)[0] for sign in (1, -1))
            expected = float(more - less) / 2e-5
            errors.append(abs(float(grad @ direction) - expected) / abs(expected))
    return max(errors)
