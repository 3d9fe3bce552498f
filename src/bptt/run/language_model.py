"""A trained model as people use it: sample from it, score with it, save it."""

import dataclasses
import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from bptt import backend as backends
from bptt.backend import Backend
from bptt.errors import InputError
from bptt.nn import model, packing
from bptt.run import checkpoint, sampling, settings
from bptt.run.checkpoint import CheckpointError
from bptt.run.evaluation import Evaluation, evaluate
from bptt.text import batches, corpus
from bptt.text.vocabulary import Vocabulary

LONGEST_LINE = 200  # characters, where a sampled line does not end by itself
LONGEST_STREAM = 500
WINDOW = 256  # steps evaluated at a time: bounds the memory, does not change the numbers
BATCH = 1000  # texts written at a time: bounds the memory
ROUNDS = 50  # batches drawn in search of texts that are new


@dataclass(frozen=True, repr=False, eq=False)
class LanguageModel:
    """A model with its vocabulary, its weights on some backend, and a record of its training."""

    config: model.Config
    vocabulary: Vocabulary
    mode: corpus.Mode
    params: model.Params
    backend: Backend
    record: dict[str, Any]  # what the training run was told, chose and measured; JSON values

    def sample(
        self,
        count: int = 1,
        *,
        temperature: float = 1.0,
        seed: int = 0,
        prompt: str = "",
        length: int | None = None,
        without: Collection[str] = (),
    ) -> list[str]:
        """New texts that begin with `prompt`: lines up to their end, or `length` characters of a stream.

        `length` is 200 characters at most for lines and 500 for a stream unless given. `temperature` 0 takes the most likely
        character each time. Texts in `without` are drawn anew, and so are repeated ones where it is not empty; there may
        be fewer than `count` in the end.

        Raises:
            InputError: an argument out of its range, or a prompt with characters the model does not know.
        """
        if length is None:
            length = LONGEST_LINE if self.mode == "lines" else LONGEST_STREAM
        count = settings.number("count", settings.COUNT, count)
        length = settings.number("length", settings.COUNT, length)
        temperature = settings.number("temperature", settings.NOT_BELOW_ZERO, temperature)
        seed = settings.number("seed", settings.SEED, seed)
        if not isinstance(prompt, str):
            raise InputError(f"prompt {prompt!r}: expected str")
        if self.mode == "lines" and "\n" in prompt:
            raise InputError(f"prompt {prompt!r}: expected the beginning of one line, for the model writes lines")
        start = np.array([self.vocabulary.start], np.int64)
        ids = np.concatenate([start, self.vocabulary.encode(prompt)])
        rng = np.random.default_rng(seed)

        def draw() -> list[str]:
            sizes = [min(BATCH, count - done) for done in range(0, count, BATCH)]
            return [text for size in sizes for text in self._texts(ids, size, temperature, length, rng)]

        if not without:
            return draw()
        found: dict[str, None] = {}  # in order, each once
        for _ in range(ROUNDS):
            found.update(dict.fromkeys(text for text in draw() if text not in without))
            if len(found) >= count or temperature == 0:
                break
        return list(found)[:count]

    def _texts(self, prompt: Any, count: int, temperature: float, length: int, rng: np.random.Generator) -> list[str]:
        """`count` texts, the ids of the prompt's characters first, each up to its newline in lines mode."""
        newline = self.vocabulary.start if self.mode == "lines" else -1
        columns = [np.repeat(prompt[1:, None], count, axis=1)]
        ended = np.zeros(count, bool)
        steps = sampling.generate(self.config, self.params, self.backend, prompt, count, temperature, rng)
        for _, ids in zip(range(length), steps):
            columns.append(ids[None, :])
            ended |= ids == newline
            if ended.all():
                break
        texts = np.concatenate(columns).T  # (count, prompt + steps)
        if self.mode == "stream":
            return [self.vocabulary.decode(text) for text in texts]
        ends = [np.flatnonzero(text[len(prompt) - 1 :] == newline) for text in texts]
        return [
            self.vocabulary.decode(text[: len(prompt) - 1 + end[0]] if len(end) else text) for text, end in zip(texts, ends)
        ]

    def score(self, text: str) -> float:
        """The nats of a text, -log p: of every character and, in lines mode, of the end of each line.

        `text` is the text itself, not a path.

        Raises:
            InputError: characters the model does not know, or nothing to score.
        """
        return self.evaluate(text).nats

    def evaluate(self, text: str | bytes) -> Evaluation:
        """The cross-entropy of a text, read as the model was trained: each line by itself, or as one stream.

        `text` is the text itself, not a path; bytes are for a model of bytes.

        Raises:
            InputError: characters the model does not know, or nothing to evaluate.
        """
        if not isinstance(text, str | bytes):
            raise InputError(f"got {type(text).__name__}, expected the text itself, as str")
        sequences = [s for s in corpus.sequences(text, self.vocabulary, self.mode) if len(s) > 1]
        if not sequences:
            raise InputError("nothing to evaluate: expected text that is more than white space")
        return evaluate(self.config, self.params, self.backend, batches.lines(sequences, 64, WINDOW, None))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model into a new folder, from which `load` reads it on any backend.

        Raises:
            InputError: the folder exists already or cannot be written.
        """
        path = settings.path("folder", folder)
        weights = {name: self.backend.get(array) for name, array in packing.leaves(self.params)}
        config = {"model": dataclasses.asdict(self.config), "mode": self.mode, "record": self.record}
        checkpoint.write(path, config, self.vocabulary.to_json(), weights)

    def __repr__(self) -> str:
        """What it is, in one line."""
        c = self.config
        text, held_out = self.record.get("text", "?"), self.record.get("held_out")
        measured = "" if held_out is None else f", {held_out:.4f} nats per held-out character"
        return (
            f"<bptt.LanguageModel: {c.cell}, {c.layers} x {c.hidden} units, {packing.count(model.shapes(c)):,} parameters, "
            f"{len(self.vocabulary)} symbols, trained on {text} ({self.mode}){measured}; {self.backend}>"
        )


def load(
    folder: str | os.PathLike[str],
    *,
    backend: str = "auto",
    dtype: str | None = None,
    require_backend: bool | None = None,
) -> LanguageModel:
    """The model that was saved in a folder, on a backend of choice; dtype by default as it was trained.

    Raises:
        CheckpointError: a folder that holds no model, or a damaged one.
        InputError: an unknown backend or dtype.
    """
    path = settings.path("folder", folder)
    fields, symbols, weights = checkpoint.read(path)
    try:
        vocabulary = Vocabulary.from_json(symbols)
    except InputError as error:
        raise CheckpointError(f"{path / checkpoint.VOCABULARY}: {error}") from None
    try:
        config, mode, record = model.Config(**fields["model"]), fields["mode"], dict(fields["record"])
        problem = _problem(config, vocabulary, mode)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path / checkpoint.CONFIG}: not the configuration of a model ({error})") from None
    if problem:
        raise CheckpointError(f"{path / checkpoint.CONFIG}: {problem}")
    expected = packing.leaves(model.shapes(config))
    for name, shape in expected:
        if name not in weights or list(weights[name].shape) != shape or weights[name].dtype.kind != "f":
            found = f"{weights[name].dtype} {list(weights[name].shape)}" if name in weights else "nothing"
            raise CheckpointError(f"{path / checkpoint.WEIGHTS}: {name} is {found}, expected floats {shape}")
    stored = str(weights[expected[0][0]].dtype)
    where = backends.select(backend, dtype or stored, require=require_backend)
    params = packing.rebuild(model.shapes(config), iter([where.put(weights[name]) for name, _ in expected]))
    return LanguageModel(config, vocabulary, mode, params, where, record)


def _problem(config: model.Config, vocabulary: Vocabulary, mode: str) -> str:
    """What is wrong with a configuration read from a file; empty where nothing is."""
    if config.cell not in model.CELLS:
        return f"cell {config.cell!r} is unknown"
    if mode not in ("lines", "stream") or config.initial not in ("learned", "zero"):
        return f"mode {mode!r} or initial state {config.initial!r} is unknown"
    if config.vocabulary != len(vocabulary):
        return f"{config.vocabulary} symbols, but the vocabulary has {len(vocabulary)}"
    for name in ("hidden", "layers"):
        expected, kind, fine = settings.RULES[name]
        number = getattr(config, name)
        if type(number) is not kind or not fine(number):
            return f"{name} {number!r}: expected {expected}"
    return ""
