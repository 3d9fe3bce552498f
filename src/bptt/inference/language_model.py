"""A trained model as people use it: sample from it, score with it, save it."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bptt import backend as backends
from bptt import export
from bptt.backend import Backend, BackendName, DtypeName
from bptt.checkpoint import run_folder, store
from bptt.checkpoint.format import Checkpoint
from bptt.config import settings, user_cells
from bptt.config.settings import Mode
from bptt.data import batches, corpus
from bptt.data.batches import WINDOW
from bptt.data.corpus import Corpus
from bptt.data.vocabulary import Vocabulary
from bptt.errors import InputError
from bptt.export import ExportFormat, pytorch
from bptt.inference import dynamic_evaluation, generate, novelty, scoring
from bptt.inference.evaluation import Evaluation, evaluate
from bptt.inference.request import Unknown, check_unknown, make_request, prompt_ids
from bptt.inference.sampling import SamplingOptions
from bptt.inference.scoring import LINES_AT_A_TIME, Score
from bptt.nn import model, tree
from bptt.nn.cells import Cell

BATCH_SIZE = 1024  # texts written at a time: bounds the memory
MAX_ROUNDS = 50  # batches drawn in search of texts that are new


@dataclass(frozen=True, repr=False, eq=False)
class LanguageModel:
    """A model with its vocabulary, its weights on some backend, and a record of its training."""

    config: model.Config
    vocabulary: Vocabulary
    mode: Mode
    params: model.Params
    backend: Backend
    record: dict[str, Any]  # what the training run was told, chose and measured; JSON values

    def sample(
        self,
        count: int = 1,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        prompt: str = "",
        length: int | None = None,
        stop: str | None = None,
        unknown: Unknown = "error",
        exclude: Collection[str] | Callable[[list[str]], Collection[str]] = (),
        novel: bool = False,
    ) -> list[str]:
        """New texts that begin with `prompt`: lines up to their end, or `length` characters of a stream.

        `length` is 200 characters at most for lines and 500 for a stream unless given, of a model of bytes as many bytes; a
        text ends before the first `stop` that is newly written, too. `temperature` 0 takes the most likely character each time;
        `top_k` keeps the most likely ones only, and `top_p` the fewest whose probability reaches it, of what the temperature
        and `top_k` leave. `unknown` "skip" leaves out of the prompt what the model does not know.

        The texts of a seed come in one order: a text depends on the seed and its place, not on how many are written.
        Texts in `exclude`, or those among a list of texts that it returns as known, are left out, and so are repeated ones
        where it is not empty; the next ones take their place, but there may be fewer than `count` in the end. `novel` leaves
        out, in the same way, texts that the training text contains and blank ones; it reads that text again.

        Raises:
            InputError: an argument out of its range, a prompt with characters the model does not know, or with `novel`
                a training text that cannot be read.
        """
        count = settings.check_number("count", settings.COUNT, count)
        options = SamplingOptions(temperature, top_k, top_p)
        request = make_request(
            self.vocabulary, self.mode, options, seed=seed, prompt=prompt, length=length, stop=stop, unknown=unknown
        )

        def texts(first: int) -> list[str]:
            parts = (self.config, self.params, self.backend, self.vocabulary, request)
            places = range(first, first + count)
            batches = [places[start : start + BATCH_SIZE] for start in range(0, count, BATCH_SIZE)]
            return [text for batch in batches for text in generate.generate_texts(*parts, batch)]

        excluded = exclude if callable(exclude) else frozenset(exclude)
        filters = [excluded if callable(excluded) else excluded.intersection] if excluded else []
        if novel:
            filters.append(novelty.training_text(self.record, self.vocabulary, self.mode))
        if not filters:
            return texts(0)
        distinct: dict[str, None] = {}  # in order, each once
        for first in range(0, MAX_ROUNDS * count, count):
            drawn = texts(first)
            leave = {text for known in filters for text in known(drawn)}
            distinct.update(dict.fromkeys(text for text in drawn if text not in leave))
            if len(distinct) >= count or temperature == 0:
                break
        return list(distinct)[:count]

    def stream(
        self,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        prompt: str = "",
        length: int | None = None,
        stop: str | None = None,
        unknown: Unknown = "error",
    ) -> Iterator[str]:
        """The first text that `sample` gives, piece by piece: its prompt, then each character as it is drawn.

        Raises:
            InputError: as `sample` does, at once.
        """
        options = SamplingOptions(temperature, top_k, top_p)
        request = make_request(
            self.vocabulary, self.mode, options, seed=seed, prompt=prompt, length=length, stop=stop, unknown=unknown
        )
        return generate.stream_text(self.config, self.params, self.backend, self.vocabulary, request)

    def next(self, prompt: str = "", *, temperature: float = 1.0, unknown: Unknown = "error") -> list[tuple[str, float]]:
        r"""Every character with its probability of coming next after `prompt`, the most likely first.

        In lines mode the newline stands for the end of the line. A model of bytes gives those beyond ASCII as \xe9.

        Raises:
            InputError: an argument out of its range, or a prompt with characters the model does not know.
        """
        temperature = settings.check_number("temperature", settings.NOT_BELOW_ZERO, temperature)
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
        space are left out. Lines are taken, and their scores given, up to `batch_size` at a time.

        Raises:
            InputError: a line with characters the model does not know, unless `unknown` is "skip", which leaves it out.
        """
        check_unknown(unknown)
        batch_size = settings.check_number("batch_size", settings.COUNT, batch_size)
        if isinstance(lines, str | bytes):
            lines = lines.split("\n") if isinstance(lines, str) else lines.split(b"\n")
        parts = (self.config, self.params, self.backend, self.vocabulary, self.mode)
        return scoring.score_lines(*parts, lines, unknown=unknown, batch_size=batch_size)

    def evaluate(self, text: str | bytes | Corpus, *, dynamic: bool = False) -> Evaluation:
        """The cross-entropy of a text, read as the model was trained: each line by itself, or as one stream.

        `text` is the text itself, not a path, or what `corpus.read` made of one with the vocabulary of the model; bytes are
        for a model of bytes. With `dynamic` a copy of the model learns from each part of the text once that is scored
        (dynamic evaluation); the model itself does not change.

        Raises:
            InputError: characters the model does not know, or nothing to evaluate.
            Diverged: a dynamic evaluation whose loss is not finite.
        """
        if not isinstance(text, str | bytes | Corpus):
            raise InputError(f"got {type(text).__name__}, expected the text itself, as str")
        source = text if isinstance(text, Corpus) else corpus.from_text(text, self.vocabulary)
        sequences = corpus.sequences(source, self.mode)
        sequences = sequences.take(sequences.lengths > 0)
        if not sequences:
            raise InputError("nothing to evaluate: expected text that is more than white space")
        if dynamic:
            return dynamic_evaluation.evaluate(self.config, self.params, self.backend, sequences)
        read = batches.batch_reader(sequences.ids, self.backend)
        return evaluate(self.config, self.params, self.backend, map(read, batches.lines(sequences, 64, WINDOW, None)))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model into a new folder, from which `load` reads it on any backend.

        Raises:
            InputError: the folder exists already or cannot be written.
        """
        store.write(settings.check_path("folder", folder), self.to_checkpoint())

    def export(self, format: ExportFormat, path: str | os.PathLike[str]) -> None:
        """Write the model into a new file for another program.

        "torch" is a safetensors file that a PyTorch network loads with `strict=True`, "onnx" a graph in float32, "page" a
        web page that runs the model in a browser, without a network.

        Raises:
            InputError: an unknown format, a package that is not installed, a cell that the format has no layout for, a file
                that exists already, or a model that is too large for the format.
            SaveError: the file cannot be written.
        """
        export.export(self.to_checkpoint(), format, path)

    def to_checkpoint(self) -> Checkpoint:
        """The model with its weights on the host."""
        host_weights = {name: self.backend.get(array) for name, array in tree.named_leaves(self.params)}
        return Checkpoint(self.config, self.mode, self.vocabulary, self.record, host_weights)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy the weights as arrays of the host, so that a model of a GPU can be unpickled without one."""
        return model_from_checkpoint, (self.to_checkpoint(), self.backend)

    def __repr__(self) -> str:
        """What it is, in one line."""
        c = self.config
        text, validation_loss = self.record.get("text", "?"), self.record.get("held_out")
        measured = "" if validation_loss is None else f", {validation_loss:.4f} nats per held-out character"
        return (
            f"<bptt.LanguageModel: {c.cell}, {c.layers} x {c.hidden} units, {tree.num_elements(model.shapes(c)):,} parameters, "
            f"{len(self.vocabulary)} symbols, trained on {text!r} ({self.mode}){measured}; {self.backend}>"
        )


def load(
    folder: str | os.PathLike[str],
    *,
    backend: BackendName = "auto",
    dtype: DtypeName | None = None,
    require_backend: bool | None = None,
    cell: Cell | str | os.PathLike[str] | None = None,
) -> LanguageModel:
    """The model in a folder, on a backend of choice; dtype by default as it was trained.

    The folder is a run, of which the best checkpoint is taken, or a checkpoint, or what `save` made. A model with a
    user-defined cell needs it again: `cell` is the module, or the path of its file, which is executed.

    Raises:
        CheckpointError: a folder that holds no model, or a damaged one.
        InputError: another cell than the model was trained with, or none.
        InputError: an unknown backend or dtype.
    """
    user_cell = None if cell is None else user_cells.resolve("cell", cell)
    if isinstance(user_cell, str):
        raise InputError(
            f"cell {user_cell!r}: expected the module or the file of a user-defined cell; leave out a built-in one"
        )
    _, saved = run_folder.read_checkpoint(settings.check_path("folder", folder), cell=user_cell)
    stored = str(next(iter(saved.weights.values())).dtype)
    return model_from_checkpoint(saved, backends.select(backend, dtype or stored, require=require_backend))


def model_from_checkpoint(saved: Checkpoint, backend: Backend) -> LanguageModel:
    """The model of a checkpoint."""
    shapes = model.shapes(saved.config)
    params = tree.unflatten(shapes, iter([backend.put(saved.weights[name]) for name, _ in tree.named_leaves(shapes)]))
    return LanguageModel(saved.config, saved.vocabulary, saved.mode, params, backend, saved.record)


def from_torch(
    path: str | os.PathLike[str], *, symbols: str | os.PathLike[str] | None = None, mode: Mode | None = None
) -> LanguageModel:
    r"""The model of a file that `export("torch", path)` wrote, or that was saved from such a network of PyTorch; on NumPy.

    The network is a torch.nn.RNN (tanh), GRU or LSTM named `rnn`, which sees symbols one-hot, and a torch.nn.Linear named
    `decoder`, saved by `safetensors.torch.save_file(network.state_dict(), path)`. Such a file needs `mode`, lines or stream,
    and `symbols`, in the order of their ids: a str with a newline in it is the symbols themselves, "bytes" the 256 bytes of
    UTF-8, and any other str the path of a JSON file with a list of them (the `vocabulary.json` of a saved model is one).

    Raises:
        ModelFileError: no such file, one that is damaged or forged, numbers other than float32 or float64, symbols that are
            missing, unusable, or not as many as the network has.
    """
    saved = pytorch.from_torch(path, symbols=symbols, mode=mode)
    return model_from_checkpoint(saved, backends.select("numpy", str(saved.weights["Wya"].dtype)))
