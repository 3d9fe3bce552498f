"""Methods that a model and an ensemble share: sample, score and evaluate texts."""

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bptt.backend import Backend
from bptt.config import rules
from bptt.config.defaults import TEMPERATURE
from bptt.config.settings import Mode
from bptt.data import batches, corpus, joining
from bptt.data.batches import WINDOW
from bptt.data.corpus import Corpus
from bptt.data.sequences import Sequences
from bptt.data.source import Reading, recorded_reading
from bptt.data.vocabulary import Vocabulary
from bptt.errors import InputError
from bptt.inference import generate, novelty, scoring
from bptt.inference.evaluation import Evaluation, evaluate
from bptt.inference.generate import Sample
from bptt.inference.prediction import Configs
from bptt.inference.request import GenerationRequest, Unknown, check_unknown, make_request, prompt_ids
from bptt.inference.sampling import SamplingOptions
from bptt.inference.scoring import LINES_AT_A_TIME, Score

BATCH_SIZE = 1024  # texts written at a time: bounds the memory
MAX_ROUNDS = 50  # batches drawn in search of texts that are new
Evaluable = str | bytes | os.PathLike[str] | Iterable[str | os.PathLike[str]] | Corpus  # what `evaluate` takes


@dataclass(frozen=True, repr=False, eq=False)
class TextModel(ABC):
    """The methods that a `LanguageModel` and an `Ensemble` share; all of them go through `prediction.forward`."""

    config: Configs
    vocabulary: Vocabulary
    mode: Mode
    params: Any  # of the model, or a tuple of those of an ensemble
    backend: Backend

    @property
    @abstractmethod
    def _records(self) -> list[dict[str, Any]]:
        """What a training run was asked for, chose and measured, for each training text."""

    def _reading(self, unknown: Unknown = "error") -> Reading:
        """How the model reads a text."""
        return recorded_reading(self._records[0], self.mode)._replace(unknown="skip" if unknown == "skip" else None)

    def sample(
        self,
        count: int = 1,
        *,
        temperature: float = TEMPERATURE,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        prompt: str | bytes = "",
        length: int | None = None,
        stop: str | None = None,
        unknown: Unknown = "error",
        exclude: Collection[str] | Callable[[list[str]], Collection[str]] = (),
        novel: bool | str | os.PathLike[str] = False,
    ) -> list[str]:
        """New texts that begin with `prompt`: lines or records up to their end, or `length` characters of a stream.

        `length` is by default 200 characters at most for lines, and 500 for records and for a stream, of a model of bytes as
        many bytes; a text ends before the first `stop` that is newly written, too. `temperature` 1 samples with the
        probabilities of the model, less prefers likely characters, and 0 takes the most likely one each time; `top_k` keeps the
        most likely ones only, and `top_p` the fewest whose probability reaches it, of what the temperature and `top_k` leave.
        `unknown` "skip" leaves out of the prompt what the model does not know. A model of bytes writes U+FFFD for bytes
        that are no text, which `sample_bytes` has as they are; its prompt may be bytes.

        The texts of a seed come in one order: the random numbers of a text depend on the seed and its place, not on how many
        are written. Nor does the text, but for rounding: a matrix product of another width may round the last digit in
        another way, and where a random number falls between two characters within that, the other one is chosen (3 of 12,032
        texts in a test). The same call gives the same texts.
        Texts in `exclude`, or those among a list of texts that it returns as known, are left out, and so are repeated ones
        where it is not empty; the next ones take their place, but there may be fewer than `count` in the end. `novel` leaves
        out, in the same way, texts that the training text contains and blank ones; it reads that text again. In its place it
        reads what `novel` names: a file or a built-in text.

        Raises:
            InputError: an argument out of its range, a prompt with characters the model does not know, or with `novel`
                a text that cannot be read.
        """
        options = SamplingOptions(temperature, top_k, top_p)
        request = make_request(
            self.vocabulary, self.mode, options, seed=seed, prompt=prompt, length=length, stop=stop, unknown=unknown
        )
        return [sample.text for sample in sample_texts(self, count, request, exclude, novel=novel)]

    def sample_bytes(
        self,
        count: int = 1,
        *,
        temperature: float = TEMPERATURE,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        prompt: str | bytes = "",
        length: int | None = None,
        stop: str | None = None,
    ) -> list[bytes]:
        """New texts of a model of bytes, as the bytes that they are; `sample` has the same ones as str, with U+FFFD in them.

        Raises:
            InputError: a model of characters, or an argument out of its range.
        """
        options = SamplingOptions(temperature, top_k, top_p)
        request = make_request(self.vocabulary, self.mode, options, seed=seed, prompt=prompt, length=length, stop=stop)
        return list(raw_texts(self, count, request))

    def stream(
        self,
        *,
        temperature: float = TEMPERATURE,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        prompt: str | bytes = "",
        length: int | None = None,
        stop: str | None = None,
        unknown: Unknown = "error",
    ) -> Generator[str, None, bool]:
        """The first text that `sample` gives, piece by piece: its prompt, then each character as it is drawn.

        The generator returns whether the text was cut after `length` characters, before it had come to its end.

        Raises:
            InputError: as `sample` does, at once.
        """
        options = SamplingOptions(temperature, top_k, top_p)
        request = make_request(
            self.vocabulary, self.mode, options, seed=seed, prompt=prompt, length=length, stop=stop, unknown=unknown
        )
        return generate.stream_text(self.config, self.params, self.backend, self.vocabulary, request)

    def next(
        self, prompt: str | bytes = "", *, temperature: float = 1.0, unknown: Unknown = "error"
    ) -> list[tuple[str, float]]:
        r"""Every character with its probability of coming next after `prompt`, the most likely first.

        The probabilities are those of `temperature` 1, which `score` and `evaluate` measure, unless it is set. In lines mode
        the newline stands for the end of the line. A model of bytes gives those beyond ASCII as \xe9.

        Raises:
            InputError: an argument out of its range, or a prompt with characters the model does not know.
        """
        temperature = rules.check_number("temperature", rules.NOT_BELOW_ZERO, temperature)
        ids = prompt_ids(self.vocabulary, self.mode, prompt, unknown)
        return generate.next_symbols(self.config, self.params, self.backend, self.vocabulary, ids, temperature)

    def score(self, text: str) -> float:
        """The nats of a text, -log p: of every character and, in lines mode, of the end of each line.

        `text` is the text itself, not a path.

        Raises:
            InputError: characters the model does not know, or nothing to score.
        """
        return self.evaluate(text).nats

    def scores(
        self,
        lines: str | bytes | Iterable[str | bytes],
        *,
        unknown: Unknown = "error",
        batch_size: int = LINES_AT_A_TIME,
    ) -> Iterator[Score]:
        """The score of each line of a text, or of an iterable, by itself: as `score` of that line, and of each character.

        A line is a text of its own, in stream mode, too, where it has no end to be predicted. Lines of nothing but white
        space are left out. Lines are read, and their scores returned, up to `batch_size` at a time.

        Raises:
            InputError: a line with characters the model does not know, unless `unknown` is "skip", which leaves it out.
        """
        check_unknown(unknown)
        batch_size = rules.check_number("batch_size", rules.COUNT, batch_size)
        if isinstance(lines, str | bytes):
            end = self.vocabulary.boundary
            lines = joining.with_boundaries(lines, end, self._reading())
            lines = lines.split(end) if isinstance(lines, str) else lines.split(end.encode())
        elif not isinstance(lines, Iterable):
            raise InputError(f"got {type(lines).__name__}, expected the text itself, as str, or an iterable of its lines")
        parts = (self.config, self.params, self.backend, self.vocabulary, self.mode)
        return scoring.score_lines(*parts, lines, unknown=unknown, batch_size=batch_size)

    def evaluate(self, text: Evaluable, *, unknown: Unknown = "error") -> Evaluation:
        """The cross-entropy of a text, read as the model was trained: each line or record by itself, or as one stream.

        A str is the text itself, not a path, and bytes are for a model of bytes. A `pathlib.Path` is a file or a folder, and a
        list has paths, lines or texts, as for `bptt.train`; files have the encoding and the separator of the training text.
        `unknown` "skip" leaves out characters that the model does not know.

        Raises:
            InputError: a text that cannot be read, characters the model does not know, or nothing to evaluate.
        """
        sequences = self._sequences(text, unknown)
        read = batches.batch_reader(sequences.ids, self.backend)
        measured = evaluate(self.config, self.params, self.backend, map(read, batches.lines(sequences, 64, WINDOW, None)))
        return dataclasses.replace(measured, symbols=self.vocabulary.kind)

    def _sequences(self, text: Evaluable, unknown: Unknown) -> Sequences:
        """What there is to predict in a text, in its order."""
        check_unknown(unknown)
        if isinstance(text, Corpus):
            source = text
        elif isinstance(text, str | bytes):
            source = corpus.from_text(text, self.vocabulary, self._reading(unknown))
        elif isinstance(text, os.PathLike | Iterable):
            source = corpus.read(text, self.vocabulary, self._reading(unknown))
        else:
            raise InputError(
                f"got {type(text).__name__}, expected the text itself, as str, a path, or a list of paths or texts"
            )
        sequences = corpus.sequences(source, self.mode)
        sequences = sequences.take(sequences.lengths > 0)
        if not sequences:
            raise InputError("nothing to evaluate: expected text that is more than white space")
        return sequences


def _texts(name: str, value: Any) -> frozenset[str]:
    """The texts of a collection, or an InputError where it is none."""
    items = value if isinstance(value, Collection) and not isinstance(value, str | bytes) else [None]
    if not all(isinstance(item, str) for item in items):
        raise InputError(f"{name} {value!r:.100}: expected a collection of texts, as str, or a function")
    return frozenset(items)


def raw_texts(trained: TextModel, count: int, request: GenerationRequest) -> Iterator[bytes]:
    """The first `count` texts of a request to a model of bytes.

    Raises:
        InputError: a model of characters.
    """
    if trained.vocabulary.symbols is not None:
        raise InputError("the model writes characters, not bytes: expected one that was trained with the vocabulary bytes")
    places = range(rules.check_number("count", rules.COUNT, count))
    for start in range(0, count, BATCH_SIZE):
        batch = places[start : start + BATCH_SIZE]
        for ids, _ in generate.generate_ids(trained.config, trained.params, trained.backend, request, batch):
            yield request.prompt[1:].tobytes() + bytes(ids)


def sample_texts(
    trained: TextModel,
    count: int,
    request: GenerationRequest,
    exclude: Collection[str] | Callable[[list[str]], Collection[str]] = (),
    *,
    novel: bool | str | os.PathLike[str] = False,
) -> Iterator[Sample]:
    """The first `count` texts of a request that are not excluded, as `TextModel.sample` describes.

    Where none can be excluded, each comes as soon as its batch is written.
    """
    count = rules.check_number("count", rules.COUNT, count)

    def samples(first: int) -> Iterator[Sample]:
        parts = (trained.config, trained.params, trained.backend, trained.vocabulary, request)
        places = range(first, first + count)
        for start in range(0, count, BATCH_SIZE):
            yield from generate.generate_texts(*parts, places[start : start + BATCH_SIZE])

    excluded = exclude if callable(exclude) else _texts("exclude", exclude)
    filters = [excluded if callable(excluded) else excluded.intersection] if excluded else []
    if isinstance(novel, str | os.PathLike):
        filters.append(novelty.text(novel, trained.vocabulary, trained._reading()))
    elif not isinstance(novel, bool):
        raise InputError(f"novel {novel!r:.100}: expected True, False, or the path of a text")
    elif novel:
        filters += [novelty.training_text(record, trained.vocabulary, trained.mode) for record in trained._records]
    if not filters:
        yield from samples(0)
        return
    distinct: dict[str, Sample] = {}  # in order, each once
    for first in range(0, MAX_ROUNDS * count, count):
        drawn = list(samples(first))
        texts = [sample.text for sample in drawn]
        leave = {text for known in filters for text in known(texts)}
        for sample in drawn:
            if sample.text not in leave:
                distinct.setdefault(sample.text, sample)
        if len(distinct) >= count or request.sampling.temperature == 0:
            break
    yield from list(distinct.values())[:count]
