"""Inspection of a model while it reads a text: activations, gradient flow through time, Jacobian spectrum.

The numbers are those of the model's own equations, forward and backward, computed on the host in float64. The text is read as
one sequence after the start symbol, a line with its end; a text of several lines is for a model of streams.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np  # on the host, in float64, whatever the model is on

from bptt.backend import HostArray
from bptt.config import rules
from bptt.display import html
from bptt.errors import InputError
from bptt.inference import generate
from bptt.inference.language_model import LanguageModel
from bptt.nn import linear, loss, model, tree

HORIZON = rules.SEED  # a whole number, at least 0
LOGITS_TOGETHER = 1 << 20  # numbers: those of all steps would take a gigabyte where there are tens of thousands of symbols
TOGETHER = 64  # losses whose gradients are followed side by side: bounds the memory, does not change the numbers


class Activations(NamedTuple):
    """The activations of a model at each of T steps, in L layers of H units."""

    inputs: list[str]  # (T): the symbol that was read at each step, the start symbol first
    targets: list[str]  # (T): the symbol that came next
    a: HostArray  # (T, L, H): the states
    cells: HostArray | None  # (T, L, H): the cell states of an LSTM
    gates: HostArray | None  # (T, L, G, H): the gates in the order of the cell's GATES; None for a cell without them
    p: HostArray  # (T, V): the probability of each symbol to come next; of the first steps only with `predicted`
    nats: HostArray  # (T,): -log p of the target


class Flow(NamedTuple):
    """The dependence of each loss on each earlier state."""

    norms: HostArray  # (L, T, K+1): [l, t, k] is the norm of dL_t / da_(t-k) in layer l; NaN before the first step
    decay: HostArray  # (L, K+1): its mean over all t

    def _repr_html_(self) -> str:
        """The decay of each layer as a chart, for notebooks."""
        steps = range(self.decay.shape[1])
        lines = [html.Line(f"layer {layer}", steps, decay.tolist()) for layer, decay in enumerate(self.decay, 1)]
        chart = html.line_chart(lines, "steps back", "norm of the gradient of a loss", logarithmic=True)
        return html.card(f"Gradient flow over {self.norms.shape[1]} steps", (), chart)


class Read(NamedTuple):
    """A forward pass of a model over a text, on the host in float64."""

    config: model.Config
    params: model.Params
    x: HostArray  # (T, 1)
    y: HostArray  # (T, 1)
    cache: model.Cache  # what the output layer saw is its field a, (T, 1, H)

    def logits(self) -> Iterator[tuple[slice, HostArray]]:
        """The logits (n, 1, V) of n steps at a time, and which these are."""
        T, n = len(self.x), max(1, LOGITS_TOGETHER // self.config.vocabulary)
        for steps in (slice(first, first + n) for first in range(0, T, n)):
            yield steps, linear.forward(self.params.Wya, self.cache.a[steps, ...], self.params.by)


def activations(trained: LanguageModel, text: str, predicted: int | None = None) -> Activations:
    """Compute the states, gates and predictions of a model at every step of a text.

    Args:
        trained: What `bptt.load` or `bptt.train` returned.
        text: At least one character; one line for a model of lines, without its end.
        predicted: Number of first steps to return probabilities of, to save memory if there are many symbols. By default all.

    Raises:
        InputError: a text with characters that the model does not know, or an empty one, or several lines for a model of lines;
            something else than a model; a number of steps below 0.
    """
    predicted = None if predicted is None else rules.check_number("predicted", HORIZON, predicted)
    read = _read(trained, text)
    p = np.empty((len(read.x) if predicted is None else min(predicted, len(read.x)), read.config.vocabulary))
    nats = np.empty(len(read.x))
    for steps, logits in read.logits():
        y = read.y[steps, ...]
        nats[steps] = loss.nats(logits, y)[:, 0]
        if len(rows := p[steps, ...]):
            rows[...] = loss.forward(logits, y, np.ones(y.shape))[1].p[: len(rows), 0, :]
    names, layers, H = generate.symbol_names(trained.vocabulary), read.cache.layers, read.config.hidden
    optional: dict[str, HostArray | None] = {"cells": None, "gates": None}
    cell = read.config.definition
    if gate_activations := getattr(cell, "gate_activations", None):
        gates = [np.reshape(gate_activations(layer)[:, 0, :], (-1, len(cell.GATES), H)) for layer in layers]
        optional["gates"] = np.stack(gates, axis=1)
    if "c" in cell.State._fields and "c" in cell.Cache._fields:
        optional["cells"] = np.stack([layer.c[1:, 0, :] for layer in layers], axis=1)
    return Activations(
        inputs=[names[i] for i in read.x[:, 0]],
        targets=[names[i] for i in read.y[:, 0]],
        a=np.stack([layer.a[1:, 0, :] for layer in layers], axis=1),
        p=p,
        nats=nats,
        **optional,
    )


def gradient_flow(trained: LanguageModel, text: str, horizon: int = 50) -> Flow:
    """Compute how far back each loss reaches: the norms of dL_t / da_(t-k) for k = 0 .. `horizon`.

    L_t is -log p of the target of step t, in nats. If the norms shrink with k by a factor, the model does not learn from what
    is further back. If they grow, training is unstable. These are the vanishing and exploding gradients of Pascanu et al.
    (2013, arXiv 1211.5063). `horizon` is the maximum number of steps back, at least 0.

    Raises:
        InputError: as `activations`; a horizon below 0.
    """
    vectors = gradients_of_losses(trained, text, horizon)
    norms = np.sqrt(np.sum(vectors * vectors, axis=3))
    t, k = np.indices(norms.shape[1:])
    norms[:, k > t] = np.nan
    return Flow(norms, np.nanmean(norms, axis=1))


def gradients_of_losses(trained: LanguageModel, text: str, horizon: int = 50) -> HostArray:
    """Compute dL_t / da_(t-k) for t and k = 0 .. K, (L, T, K+1, H); zeros where t - k is before the first step.

    A state has an effect on a loss through the layers above and through all states after it. Over all t, with a horizon as long
    as the text, they add up to the gradient of the whole loss with respect to that state.

    Raises:
        InputError: as `gradient_flow`.
    """
    horizon = rules.check_number("horizon", HORIZON, horizon)
    read = _read(trained, text)
    T, K = len(read.x), min(horizon, len(read.x) - 1)
    da = np.empty((T, 1, read.config.hidden))
    for steps, logits in read.logits():
        y = read.y[steps, ...]
        _, loss_cache = loss.forward(logits, y, np.ones(y.shape), np.ones(()))  # the sum, not the mean
        da[steps, ...] = linear.backward(read.params.Wya, read.cache.a[steps, ...], loss.backward(loss_cache))[0]
    result = np.zeros((read.config.layers, T, K + 1, read.config.hidden))
    for first in range(0, T, TOGETHER):
        at = np.arange(first, min(T, first + TOGETHER))
        result[:, at, :, :] = _followed(read, da[at, 0, :], at, K)
    return result


def jacobian_spectrum(trained: LanguageModel, text: str) -> HostArray:
    """Compute the eigenvalues of d state_t / d state_(t-1) by layer and step, (T, L, S H) complex, largest first.

    The state of a layer is a (S = 1), or of an LSTM a and c (S = 2). The output of the layers below is constant. Moduli below 1
    suggest that gradients vanish, moduli above 1 that they grow; but a gradient passes through the product of the matrices of
    several steps, which can do either. Takes about (S H)^3 operations for each step and layer.

    Raises:
        InputError: as `activations`.
    """
    read = _read(trained, text)
    cell, H = read.config.definition, read.config.hidden
    size = len(cell.State._fields) * H
    result = np.empty((len(read.x), read.config.layers, size), np.complex128)
    dafter = cell.State(*np.split(np.eye(size), len(cell.State._fields), axis=1))  # one row for each element of the state after
    nothing = np.zeros((1, size, H))
    for layer, (params, cache) in enumerate(zip(read.params.layers, read.cache.layers)):
        for t in range(len(read.x)):
            _, before, _ = cell.backward(params, _steps(cache, np.full(size, t)), nothing, dafter)
            values = np.linalg.eigvals(np.concatenate(before, axis=1))
            result[t, layer, :] = values[np.argsort(-np.abs(values), kind="stable")]
    return result


def _read(trained: LanguageModel, text: str) -> Read:
    """Run the forward pass of a model over a text."""
    if not isinstance(trained, LanguageModel):
        raise InputError(f"model {trained!r:.80}: expected what bptt.load or bptt.train gives")
    if not isinstance(text, str) or not text:
        raise InputError(f"text {text!r}: expected at least one character, as str")
    start, ends = [trained.vocabulary.start], trained.mode != "stream"
    if ends and trained.vocabulary.boundary in text:
        unit = "line" if trained.mode == "lines" else "record"
        raise InputError(f"text {text!r}: expected one {unit} without its end, for the model reads {unit}s")
    ids = np.concatenate([start, trained.vocabulary.encode(text), start if ends else []]).astype(np.int64)
    get = trained.backend.get
    params = tree.tree_map(lambda a: np.asarray(get(a), np.float64), trained.params)
    x, y = ids[:-1, None], ids[1:, None]
    _, _, cache = model.run_layers(trained.config, params, x, None, ())
    return Read(trained.config, params, x, y, cache)


def _steps(cache: Any, t: HostArray) -> Any:
    """Gather a Cache of one step with B columns: column j is step t[j] of a sequence, or step 0 for a negative t[j]."""
    at = np.maximum(t, 0)
    parts = [  # states have T+1 entries, the state before step 0 first
        np.stack([array[at, 0], array[at + 1, 0]] if len(array) == len(cache.a) else [array[at, 0]]) for array in cache
    ]
    return type(cache)(*parts)


def _followed(read: Read, da: HostArray, at: HostArray, K: int) -> HostArray:
    """Compute the gradients of the losses of steps `at` (n,) with respect to the K states before, (L, n, K+1, H).

    `da` (n, H) is the gradient of each with respect to the input of the output layer. Column j is followed from
    step at[j] backwards.
    """
    cell, L = read.config.definition, read.config.layers
    zero = np.zeros_like(da)
    after = [cell.State(*[zero] * len(cell.State._fields)) for _ in range(L)]
    result = np.zeros((L, len(at), K + 1, da.shape[1]))
    for k in range(K + 1):
        above = zero if k else da  # the loss is that of one step
        there = (at >= k)[:, None]
        for layer in reversed(range(L)):
            result[layer, :, k, :] = (above + after[layer].a) * there
            cache = _steps(read.cache.layers[layer], at - k)
            dx, after[layer], _ = cell.backward(read.params.layers[layer], cache, above[None, :, :], after[layer])
            above = zero if dx is None else dx[0, ...]
    return result
