"""A language model: a stack of recurrent layers of one cell, tokens in, logits of the next token out."""

import functools
import pickle
import sys
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

from bptt.backend import Array, device, namespace
from bptt.nn import initializers, linear, loss, tree
from bptt.nn.cells import CELLS, Cell
from bptt.nn.ops import spectral_radius

InitialState = Literal["learned", "zero"]


@dataclass(frozen=True)
class Config:
    """What fixes the shapes of a model."""

    cell: str  # name of the cell
    vocabulary: int  # V
    hidden: int  # H
    layers: int = 1  # number of recurrent layers
    initial: InitialState = "learned"  # the state that every text begins with
    user_cell: Cell | None = None  # the module of the cell, if it is not a built-in one

    @property
    def definition(self) -> Cell:
        """The module of the cell."""
        return CELLS[self.cell] if self.user_cell is None else self.user_cell

    def __reduce__(self) -> Any:
        """Pickle a user-defined cell by reference to its module, which must be one that `import` finds."""
        fields = self.cell, self.vocabulary, self.hidden, self.layers, self.initial
        if self.user_cell is None:
            return Config, fields
        cell: Any = self.definition
        importable = sys.modules.get(cell.init.__module__) is cell
        if not importable:
            remedy = "import its module and pass that as cell="
            raise pickle.PicklingError(f"the cell {self.cell} was read from a file and cannot be pickled: {remedy}")
        return _with_cell, (cell.init, *fields)

    def __deepcopy__(self, memo: Any) -> "Config":
        """The same one: nothing in it changes."""
        return self

    @property
    def recurrent_weights(self) -> int:
        """The numbers in the recurrent weights of all layers."""
        return self.layers * len(self.definition.GATES) * self.hidden**2


class Params(NamedTuple):
    """What is learned."""

    layers: tuple[Any, ...]  # one Params of the cell per layer
    initial: tuple[Any, ...]  # one State of the cell per layer, its arrays (H,); empty where the initial state is zero
    Wya: Array  # (V, H)
    by: Array  # (V,)


class Cache(NamedTuple):
    """What backward needs from forward."""

    layers: tuple[Any, ...]  # one Cache of the cell per layer
    keep: tuple[Array, ...]  # the dropout masks (B, H), none or one per layer
    a: Array  # (T, B, H): what the output layer saw
    fresh: bool  # whether the texts began here, from the initial states


def _with_cell(function: Any, *fields: Any) -> Config:
    """The configuration with the cell that a function belongs to."""
    config: Any = Config
    return cast(Config, config(*fields, sys.modules[function.__module__]))


def init(config: Config, rng: Any, kind: initializers.Kind = "uniform") -> Params:
    """Host arrays in float64 drawn from a `numpy.random.Generator`; the learned initial state begins at zero."""
    cell, H, V = config.definition, config.hidden, config.vocabulary
    layers = tuple(cell.init(rng, H if layer else V, H, kind) for layer in range(config.layers))
    Wya = initializers.uniform(rng, (V, H), H)
    xp = namespace(Wya)
    zero = xp.zeros_like(Wya[0, :])
    state = cell.State(*[zero] * len(cell.State._fields))
    return Params(layers, (state,) * config.layers if config.initial == "learned" else (), Wya, xp.zeros_like(Wya[:, 0]))


@functools.lru_cache(8)
def shapes(config: Config) -> Params:
    """The tree of `init` with the shape of each array, a list, in its place: names and sizes without memory."""
    cell, H, V = config.definition, config.hidden, config.vocabulary
    layers = [cell.shapes(H if layer else V, H) for layer in range(config.layers)]
    state = cell.State(*[[H] for _ in cell.State._fields])
    return Params(tuple(layers), (state,) * config.layers if config.initial == "learned" else (), [V, H], [V])


def spectral_radii(config: Config, params: Params) -> Array:
    """The spectral radius of each block (H, H) of each layer's recurrent weights, (L, G)."""
    xp, H = namespace(params.Wya), config.hidden
    if not hasattr(params.layers[0], "Waa"):  # a cell with other names
        return xp.zeros_like(params.Wya[:0, :0])
    blocks = [layer.Waa[k : k + H, ...] for layer in params.layers for k in range(0, layer.Waa.shape[0], H)]
    return xp.reshape(xp.stack([spectral_radius(block) for block in blocks]), (config.layers, -1))


def dropout_masks(config: Config, rng: Any, probability: float, batch: int) -> tuple[Array, ...]:
    """One host mask (B, H) a layer, 0 with the given probability p, else 1 / (1 - p); empty for p = 0.

    A mask is that of all steps of a window (locked dropout: Gal and Ghahramani 2016, arXiv 1512.05287).
    """
    if not probability:
        return ()
    return tuple((rng.random((batch, config.hidden)) >= probability) / (1.0 - probability) for _ in range(config.layers))


def initial_states(config: Config, params: Params, batch: int) -> tuple[Any, ...]:
    """The states, one per layer, that a batch of new texts begins with; arrays (B, H)."""
    xp, shape = namespace(params.Wya), (batch, config.hidden)
    if params.initial:
        return tuple(tree.tree_map(lambda a: xp.broadcast_to(a, shape), state) for state in params.initial)
    zero = xp.zeros(shape, dtype=params.Wya.dtype, device=device(params.Wya))
    State = config.definition.State
    return (State(*[zero] * len(State._fields)),) * config.layers


def forward(
    config: Config, params: Params, x: Array, states: tuple[Any, ...] | None = None, keep: tuple[Array, ...] = ()
) -> tuple[Array, tuple[Any, ...], Cache]:
    """Logits (T, B, V) for tokens x (T, B), the next states, and the Cache.

    `states` None begins a text. `keep` holds the dropout masks (B, H), one per layer, applied to what leaves the layer.
    """
    a, after, cache = run_layers(config, params, x, states, keep)
    return linear.forward(params.Wya, a, params.by), after, cache


def run_layers(
    config: Config, params: Params, x: Array, states: tuple[Any, ...] | None, keep: tuple[Array, ...]
) -> tuple[Array, tuple[Any, ...], Cache]:
    """The layers without the output layer: what it sees (T, B, H), the next states, and the Cache."""
    cell = config.definition
    fresh = states is None
    states = initial_states(config, params, x.shape[1]) if states is None else states
    a, caches, after = x, [], []
    for layer, layer_params in enumerate(params.layers):
        a, state, cache = cell.forward(layer_params, a, states[layer])
        a = a * keep[layer] if keep else a
        caches.append(cache)
        after.append(state)
    return a, tuple(after), Cache(tuple(caches), keep, a, fresh)


def backward(
    config: Config, params: Params, cache: Cache, dlogits: Array, dafter: tuple[Any, ...] | None = None
) -> tuple[Params, tuple[Any, ...]]:
    """The gradients with respect to every parameter and to the states before the first step, given dlogits (T, B, V).

    `dafter` is the one with respect to the states after the last step. Without it the loss is taken not to depend on them:
    that is where truncation cuts.
    """
    cell = config.definition
    da, dWya, dby = linear.backward(params.Wya, cache.a, dlogits)
    xp = namespace(dlogits)
    layers, dbefore = [], []
    for layer in reversed(range(config.layers)):
        da = da * cache.keep[layer] if cache.keep else da
        da, dstate, dparams = cell.backward(params.layers[layer], cache.layers[layer], da, dafter and dafter[layer])
        layers.append(dparams)
        dbefore.append(dstate)
    dstates = tuple(dbefore[::-1])
    dinitial = tree.tree_map(lambda d: xp.sum(d, axis=0), dstates) if params.initial else ()
    if not cache.fresh:  # the states came from the steps before
        dinitial = tree.tree_map(xp.zeros_like, dinitial)
    return Params(tuple(layers[::-1]), dinitial, dWya, dby), dstates


def loss_and_grad(
    config: Config,
    params: Params,
    x: Array,
    y: Array,
    mask: Array,
    states: tuple[Any, ...] | None = None,
    keep: tuple[Array, ...] = (),
    *,
    count: Array | None = None,
) -> tuple[Array, Params, tuple[Any, ...]]:
    """The mean of -log p(y) in nats, its gradient with respect to every parameter, and the next states.

    x and y are ids (T, B), `mask` (T, B) is 1 where a target counts; `states` and `keep` are those of `forward`.
    `count` () is the number of all targets, where these are some of them: loss and gradient are then their share.
    """
    logits, after, cache = forward(config, params, x, states, keep)
    mean, loss_cache = loss.forward(logits, y, mask, count)
    gradient, _ = backward(config, params, cache, loss.backward(loss_cache))
    return mean, gradient, after
