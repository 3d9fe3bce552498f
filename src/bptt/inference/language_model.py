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
    """A model with its vocabulary, its weights on some backend, and a record of its training.

    `config` has its `cell`, `hidden`, `layers` and `vocabulary` (the number of symbols), `settings` those of its run.
    """

    config: model.Config
    params: model.Params
    record: dict[str, Any]  # what the training run was told, chose and measured; JSON values
    rows: Path | tuple[dict[str, Any], ...] = ()  # of the history of its run, or the folder of the run that has them

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
        """The cross-entropy of a text, read as the model was trained: each line or record by itself, or as one stream.

        A str is the text itself, not a path, and bytes are for a model of bytes. A `pathlib.Path` is a file or a folder, and a
        list has paths, lines or texts, as for `bptt.train`; files have the encoding and the separator of the training text.
        `unknown` "skip" leaves out characters that the model does not know. With `dynamic` a copy of the model learns from
        each part of the text once that is scored (dynamic evaluation); the model itself does not change.

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
            InputError: the folder exists already or cannot be written.
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
    """The model in a folder, on a backend and device of choice; dtype by default as it was trained.

    The folder is a run, of which the best checkpoint is taken, or a checkpoint, or what `save` made. A model with a
    user-defined cell needs it again: `cell` is the module, or the path of its file, which is executed.

    Raises:
        CheckpointError: a folder that holds no model, or a damaged one.
        InputError: another cell than the model was trained with, or none.
        InputError: an unknown backend, dtype or device.
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
    r"""The model of a file that `export("torch", path)` wrote, or that was saved from such a network of PyTorch; on NumPy.

    The network is a torch.nn.RNN (taken to have tanh), GRU or LSTM, which sees symbols one-hot or behind a torch.nn.Embedding,
    and a torch.nn.Linear, with or without biases and by any names. It is saved by
    `safetensors.torch.save_file(network.state_dict(), path)`. Such a file needs `mode`, lines or stream,
    and `symbols`, in the order of their ids: a str with a newline in it is the symbols themselves, "bytes" the 256 bytes of
    UTF-8, and any other str the path of a JSON file with a list of them (the `vocabulary.json` of a saved model is one).

    Raises:
        ModelFileError: no such file, one that is damaged or forged, numbers other than float32 or float64, symbols that are
            missing, unusable, or not as many as the network has; another network, such as a bidirectional one.
    """
    saved = pytorch.from_torch(path, symbols=symbols, mode=mode)
    return model_from_checkpoint(saved, backends.select("numpy", str(saved.weights["Wya"].dtype)))
