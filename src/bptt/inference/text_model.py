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
from bptt.data import batches, corpus, file_lists, joining
from bptt.data.batches import WINDOW
from bptt.data.corpus import Corpus
from bptt.data.sequences import Sequences
from bptt.data.source import Reading, recorded_reading
from bptt.data.vocabulary import Vocabulary
from bptt.errors import BpttWarning, InputError, warn
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

    config: Configs  # the shape of the model; of an ensemble a tuple
    vocabulary: Vocabulary  # its symbols, in the order of their ids
    mode: Mode  # lines, records or stream
    params: Any  # the weights; of an ensemble a tuple
    backend: Backend  # the array library and device of the weights

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
        """Write `count` new texts: lines or records up to their end, or `length` characters of a stream.

        The same call gives the same texts. Text k of a seed is the same for every `count`, except that rounding can change a
        character in rare cases (3 of 12,032 texts in a test). A model of bytes writes U+FFFD for bytes that are no text;
        `sample_bytes` returns the bytes.

        Args:
            count: Number of texts. With `exclude` or `novel` there may be fewer.
            temperature: 1 samples with the probabilities of the model; less prefers likely characters; 0 takes the most likely.
            top_k: Choose only among this number of most likely characters.
            top_p: Choose only among the fewest most likely characters whose probabilities add up to this, after `top_k`.
            seed: Seed of the random choices.
            prompt: Beginning of every text; bytes for a model of bytes.
            length: Maximum number of new characters (or bytes), by default 200 for lines, 500 for records and a stream.
            stop: End a text before this string, when the model writes it.
            unknown: Characters of the prompt that the model does not know: "error", or "skip" to leave them out.
            exclude: Texts to leave out, or a function (list of texts) -> those to leave out; repeated texts are left out, too.
            novel: Leave out blank texts, repeated texts and those of the training text, or of the file or built-in text named.

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
        """Write the texts of `sample` as bytes, with a model of bytes; the arguments are those of `sample`.

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
        """Yield the first text of `sample` piece by piece: its prompt, then each character.

        The arguments are those of `sample`. The generator returns whether the text was cut after `length` characters.

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
        r"""Return each symbol with its probability to be the next one after `prompt`, the most likely first.

        `temperature` 1 gives the probabilities that `score` and `evaluate` measure. In mode lines, the newline stands for the
        end of the line. A model of bytes has names such as \xe9 for bytes beyond ASCII.

        Raises:
            InputError: an argument out of its range, or a prompt with characters the model does not know.
        """
        temperature = rules.check_number("temperature", rules.NOT_BELOW_ZERO, temperature)
        ids = prompt_ids(self.vocabulary, self.mode, prompt, unknown)
        return generate.next_symbols(self.config, self.params, self.backend, self.vocabulary, ids, temperature)

    def score(self, text: str) -> float:
        """Return the negative log-likelihood of a text in nats, with the end of each line or record of such a model.

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
        """Yield the `Score` of each line or record: its nats, and those of each of its characters.

        Each line is predicted as a separate text. In mode stream, its end is not predicted. Blank lines are left out.

        Args:
            lines: The text itself, or an iterable of lines.
            unknown: Lines with characters that the model does not know: "error", or "skip" to leave them out.
            batch_size: Number of lines to read and to predict at a time.

        Raises:
            InputError: a line with characters the model does not know.
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
        """Measure the cross-entropy of a text: each line or record by itself, or one stream, as the model was trained.

        A str is the text itself, not a path; bytes are for a model of bytes. A `pathlib.Path` is a file or a folder, and a list
        has paths, lines or records, as for `bptt.train`. Files are read with the encoding and separator of the training text.
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
            if isinstance(text, str) and file_lists.exists(text) and os.path.isfile(text):
                warn(f"{text!r} is read as the text itself: for the file of this name, give Path({text!r})", BpttWarning)
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
