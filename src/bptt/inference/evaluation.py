"""Evaluation: the cross-entropy of a model on a text, in nats and bits per character and as perplexity."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bptt import acceleration
from bptt.backend import Array, Backend, namespace
from bptt.config.settings import VocabularyName
from bptt.data.batches import Batch
from bptt.display import html
from bptt.inference import prediction
from bptt.inference.prediction import Configs
from bptt.nn import tree


@dataclass(frozen=True)
class Evaluation:
    """The cross-entropy summed over all targets: every character, and in lines mode the end of every line."""

    nats: float  # the sum of -log p
    characters: int  # number of targets
    symbols: VocabularyName = "characters"  # what the targets are

    @property
    def nats_per_char(self) -> float:
        """Mean cross-entropy in nats."""
        return self.nats / self.characters

    @property
    def bits_per_char(self) -> float:
        """Mean cross-entropy in bits."""
        return self.nats_per_char / math.log(2)

    @property
    def perplexity(self) -> float:
        """The number of equally likely symbols that would be as hard to guess, exp(nats per character)."""
        return math.exp(min(700.0, self.nats_per_char))

    def __str__(self) -> str:
        """One line for people."""
        perplexity = f"{self.perplexity:.3f}" if self.perplexity < 1e6 else f"{self.perplexity:.4g}"
        symbol = self.symbols.removesuffix("s")
        return (
            f"{self.nats_per_char:.4f} nats per {symbol}, {self.bits_per_char:.4f} bits, perplexity {perplexity}, "
            f"{self.characters} {self.symbols}"
        )

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        symbol = self.symbols.removesuffix("s")
        facts = [
            (f"nats per {symbol}", f"{self.nats_per_char:.4f}"),
            (f"bits per {symbol}", f"{self.bits_per_char:.4f}"),
            ("perplexity", f"{self.perplexity:.4g}"),
            (self.symbols, f"{self.characters:,}"),
        ]
        return html.card("Evaluation", facts)


def evaluate(config: Configs, params: Any, backend: Backend, batches: Iterable[Batch]) -> Evaluation:
    """The cross-entropy of a model over batches on the device; a batch that continues the one before starts from its state."""
    nats, characters = batch_nats(config, params, backend, batches)
    prediction.check_finite(np.array(nats))
    return Evaluation(math.fsum(nats), characters)


def batch_nats(config: Configs, params: Any, backend: Backend, batches: Iterable[Batch]) -> tuple[list[float], int]:
    """The sum of -log p of each batch, and the number of targets of all batches."""
    states = None
    sums: list[Array] = []
    characters = 0
    with acceleration.gpu_kernels(backend):
        for batch in batches:
            start = None if batch.window.start else states
            nats, states = prediction.target_nats(config, params, batch, start)
            states = tree.tree_map(lambda a: namespace(a).asarray(a, copy=True), states)  # views would keep all steps
            nats = nats * batch.mask[:, : nats.shape[1]]
            sums.append(namespace(nats).sum(nats))
            characters += batch.window.targets
    return (backend.get(backend.xp.stack(sums)).tolist() if sums else []), characters  # one look at the device
