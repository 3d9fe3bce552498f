"""The public model class: load, evaluate, save and export a trained model."""

import dataclasses
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bptt import backend as backends
from bptt import export
from bptt.backend import Backend, BackendName, DtypeName
from bptt.checkpoint import run_folder, store
from bptt.checkpoint.format import Checkpoint
from bptt.config import rules, user_cells
from bptt.config.settings import Mode
from bptt.display import cross_entropy, html
from bptt.errors import InputError
from bptt.export import ExportFormat, pytorch
from bptt.inference import dynamic_evaluation, history
from bptt.inference.evaluation import Evaluation
from bptt.inference.history import History
from bptt.inference.request import Unknown
from bptt.inference.text_model import Evaluable, TextModel
from bptt.nn import model, tree
from bptt.nn.cells import Cell


@dataclass(frozen=True, repr=False, eq=False)
class LanguageModel(TextModel):
    """A model with its vocabulary, its weights on some backend, and a record of its training."""

    config: model.Config  # cell, hidden (units), layers and vocabulary (number of symbols)
    params: model.Params  # the weights, arrays of the backend
    record: dict[str, Any]  # settings, hyperparameters, text and results of its run; JSON values
    rows: Path | tuple[dict[str, Any], ...] = ()  # of the history of its run, or the run folder; use `history`

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of its run by name, with the hyperparameters that were chosen for the text; empty without a run."""
        settings, chosen = self.record.get("settings"), self.record.get("plan")
        return {**(settings if isinstance(settings, dict) else {}), **(chosen if isinstance(chosen, dict) else {})}

    @functools.cached_property
    def history(self) -> History:
        """The numbers of its run, up to the last update; empty for a model that was saved without its run."""
        return history.from_rows(history.read(self.rows) if isinstance(self.rows, Path) else self.rows)

    @property
    def _records(self) -> list[dict[str, Any]]:
        """The record of its training, in a list."""
        return [self.record]

    def evaluate(self, text: Evaluable, *, unknown: Unknown = "error", dynamic: bool = False) -> Evaluation:
        """Measure the cross-entropy of a text: each line or record by itself, or one stream, as the model was trained.

        A str is the text itself, not a path; bytes are for a model of bytes. A `pathlib.Path` is a file or a folder, and a list
        has paths, lines or records, as for `bptt.train`. Files are read with the encoding and separator of the training text.
        `unknown` "skip" leaves out characters that the model does not know. With `dynamic`, a copy of the model learns from
        each part of the text after predicting it (dynamic evaluation, Krause et al. 2018, arXiv 1709.07432); the model itself
        does not change.

        Raises:
            InputError: a text that cannot be read, characters the model does not know, or nothing to evaluate.
            Diverged: a dynamic evaluation whose loss is not finite.
        """
        if not dynamic:
            return super().evaluate(text, unknown=unknown)
        measured = dynamic_evaluation.evaluate(self.config, self.params, self.backend, self._sequences(text, unknown))
        return dataclasses.replace(measured, symbols=self.vocabulary.kind)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model into a new folder, from which `load` reads it on any backend.

        Raises:
            AlreadyExists: the folder exists already.
            SaveError: the folder cannot be written.
        """
        store.write(rules.check_path("folder", folder), self.to_checkpoint())

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
        return model_from_checkpoint, (self.to_checkpoint(), self.backend, self.rows)

    def __repr__(self) -> str:
        """What it is, in one line."""
        c = self.config
        text, validation_loss = self.record.get("text", "?"), self.record.get("held_out")
        measured = "" if validation_loss is None else f", {cross_entropy.per_held_out(validation_loss)}"
        return (
            f"<bptt.LanguageModel: {c.cell}, {c.layers} x {c.hidden} units, {tree.num_elements(model.shapes(c)):,} parameters, "
            f"{len(self.vocabulary)} symbols, trained on {text!r} ({self.mode}){measured}; {self.backend}>"
        )

    def _repr_html_(self) -> str:
        """What it is and how it was trained, for notebooks."""
        c, record = self.config, self.record
        facts: list[tuple[str, Any]] = [
            ("cell", c.cell),
            ("layers x units", f"{c.layers} x {c.hidden}"),
            ("parameters", f"{tree.num_elements(model.shapes(c)):,}"),
            ("symbols", len(self.vocabulary)),
            ("trained on", f"{record.get('text', '?')} ({self.mode})"),
            ("steps", record.get("step", "?")),
            ("backend", self.backend),
        ]
        if record.get("held_out") is not None:
            facts.append(("validation loss", cross_entropy.per_held_out(record["held_out"])))
        return html.card("Language model", facts, html.loss_chart(self.history.rows))


def load(
    folder: str | os.PathLike[str],
    *,
    backend: BackendName = "auto",
    dtype: DtypeName | None = None,
    device: str | None = None,
    require_backend: bool | None = None,
    cell: Cell | str | os.PathLike[str] | None = None,
) -> LanguageModel:
    """Load a model from a folder.

    Args:
        folder: A run (its best checkpoint), one checkpoint, or a folder that `save` made.
        backend: Array library; auto is CuPy if a CUDA device responds, else NumPy.
        dtype: Floating-point type of the weights. By default that of the training.
        device: Device in the words of the array library, such as cuda:1. By default the one that it prefers.
        require_backend: Raise an error if the backend cannot be used. By default CuPy falls back to NumPy with a warning.
        cell: Module of a user-defined cell, or the path of its file, which is executed. Built-in cells need none.

    Raises:
        CheckpointError: a folder that holds no model, or a damaged one.
        InputError: an unknown backend, dtype or device; another cell than that of the training, or none.
    """
    user_cell = None if cell is None else user_cells.resolve("cell", cell)
    if isinstance(user_cell, str):
        raise InputError(
            f"cell {user_cell!r}: expected the module or the file of a user-defined cell; leave out a built-in one"
        )
    place = rules.check_path("folder", folder)
    _, saved = run_folder.read_checkpoint(place, cell=user_cell)
    stored = str(next(iter(saved.weights.values())).dtype)
    selected = backends.select(backend, dtype or stored, require=require_backend, device=device)
    run = place.absolute()
    if run.parent.name == run_folder.CHECKPOINTS:
        run = run.parent.parent
    return model_from_checkpoint(saved, selected, run if run_folder.is_run(run) else ())


def model_from_checkpoint(saved: Checkpoint, backend: Backend, rows: Path | tuple[dict[str, Any], ...] = ()) -> LanguageModel:
    """The model of a checkpoint, with the history of its run or the folder that has it."""
    shapes = model.shapes(saved.config)
    params = tree.unflatten(shapes, iter([backend.put(saved.weights[name]) for name, _ in tree.named_leaves(shapes)]))
    return LanguageModel(saved.config, saved.vocabulary, saved.mode, params, backend, saved.record, rows)


def from_torch(
    path: str | os.PathLike[str], *, symbols: str | os.PathLike[str] | None = None, mode: Mode | None = None
) -> LanguageModel:
    r"""Make a model of NumPy arrays from a file of PyTorch weights.

    The file comes from `export("torch", path)`, or from a network of your own by
    `safetensors.torch.save_file(network.state_dict(), path)`. The network has a torch.nn.RNN (assumed to have tanh), GRU or
    LSTM, and a torch.nn.Linear. Its input is one-hot, or goes through a torch.nn.Embedding. Biases are optional, and modules
    can have any names.

    Args:
        path: The safetensors file.
        symbols: Symbols in the order of their ids, for a file that does not name them: a str with a newline in it is the
            symbols themselves, "bytes" the 256 bytes of UTF-8, and any other str the path of a JSON file with a list of them
            (the `vocabulary.json` of a saved model is one).
        mode: Whether the network writes lines, records or one stream, for a file that does not say so.

    Raises:
        ModelFileError: no such file, one that is damaged or forged, numbers other than float32 or float64, symbols that are
            missing, unusable, or not as many as the network has; another network, such as a bidirectional one.
    """
    saved = pytorch.from_torch(path, symbols=symbols, mode=mode)
    return model_from_checkpoint(saved, backends.select("numpy", str(saved.weights["Wya"].dtype)))
