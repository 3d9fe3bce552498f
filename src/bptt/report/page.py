"""The HTML page of a report: the data of a model and of its run, and the template that shows them."""

import importlib.util
import itertools
import math
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np  # what bptt.inspect gives is on the host

from bptt import inspect
from bptt.backend import HostArray
from bptt.checkpoint import run_folder
from bptt.checkpoint.format import is_number
from bptt.config.compatibility import complete_format_1
from bptt.config.settings import from_flags
from bptt.data import corpus
from bptt.data.dataset import make_rng, prepare
from bptt.data.sequences import Sequences
from bptt.data.source import Reading, recorded_reading, recorded_texts, recorded_validation_files
from bptt.display.text import printable
from bptt.errors import CheckpointError, InputError
from bptt.export import common
from bptt.inference import generate
from bptt.inference.language_model import LanguageModel
from bptt.inspect import Activations
from bptt.nn import model
from bptt.report import card, figures
from bptt.report.units import most_informative

LENGTH = 600  # characters that are looked at
LINES = 40  # at most
HORIZON = 50  # steps back
STRIP = 80  # characters whose expectations are shown
RANKS = 4  # likeliest characters of each
LEVELS = 5  # of a colour


class Looked(NamedTuple):
    """The text that a report analyses."""

    where: str  # in words
    texts: list[str]  # lines, or one piece of a stream
    split: str = ""  # what was held out, if the text of the run was read


def available() -> str:
    """Return a package that reports need and that is not installed; empty if there is none."""
    return next((name for name in ("matplotlib", "jinja2") if importlib.util.find_spec(name) is None), "")


def write(trained: LanguageModel, place: Path, text: str | None, out: Path, reading: Reading | None = None) -> None:
    """Write the report on a model into a file; `place` is its run, or the folder of the model.

    `text` is a file or a built-in text to look at; by default what the run held out.

    Raises:
        InputError: no text, or one with characters that the model does not know, or no file but a folder, device or pipe.
        SaveError: the file cannot be written; what was there stays.
    """
    if not out.name or out.is_dir():
        raise InputError(f"{str(out)!r} is a folder: name a file for the report")
    if out.exists() and not out.is_file():  # the file would take the place of /dev/stdout
        raise InputError(f"{str(out)!r} is a device or a pipe: name a file for the report")
    if missing := available():
        raise InputError(f"a report needs {missing}, which is not installed: pip install 'bptt[plot]'")
    common.write_file(out, _page(trained, place, _looked(trained, text, reading)).encode())


def _page(trained: LanguageModel, place: Path, looked: Looked) -> str:
    import jinja2

    seen = _seen(trained, looked.texts)
    longest = max(looked.texts, key=len)
    history = _history(place, trained)
    steps, radii = _radii(trained, history)
    names = [printable(name, "\n") for name in seen.inputs]
    mean = float(np.mean(seen.nats))
    gates = trained.config.definition.GATES
    template = resources.files(__package__).joinpath("page.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page: str = environment.from_string(template).render(
        title=f"{printable(str(trained.record.get('text', place.name)))}: a language model of characters",
        card=card.card(trained, place, looked.split, f"{len(seen.nats):,} characters, {card.loss_words(mean)}"),
        curves=figures.curves(history, _clip(trained)) if len(history) > 1 else [],
        saturation=figures.saturation(gates, seen),
        gated=seen.gates is not None,
        flow=figures.flow(inspect.gradient_flow(trained, longest, HORIZON)),
        radii=figures.radii(steps, radii, tuple(gates)),
        samples=_samples(history),
        where=looked.where,
        units=[{**unit._asdict(), "runs": _runs(names[1:], unit.values[1:])} for unit in most_informative(seen)],
        expected=_expected(trained, seen, 2 * mean),
        surprise=f"{2 * mean:.1f} nats ({2 * mean / math.log(2):.1f} bits)",
        levels=LEVELS,
        mode=trained.mode,
    )
    return page


def _looked(trained: LanguageModel, text: str | None, reading: Reading | None = None) -> Looked:
    """Choose the text to analyse: the named one, the validation set of the run, or else its training set."""
    record = trained.record
    if text is not None:
        source = corpus.read(text, trained.vocabulary, reading or recorded_reading(record, trained.mode))
        return _pieces(f"The text {source.shown}", corpus.sequences(source, trained.mode), trained)
    settings_then, places = record.get("settings"), recorded_texts(record)
    if places is None or not isinstance(settings_then, dict):
        raise InputError("the text of this model was no file: give one to look at")
    try:
        recorded = complete_format_1(settings_then)
        names = ("split_seed", "duplicates", "validation", "separator", "encoding", "new_symbols")
        of_split = {name: recorded[name] for name in names if recorded.get(name) is not None}
        settings = from_flags({**of_split, "mode": trained.mode})
        rng, of_validation = make_rng(settings.split_seed, 0), recorded_validation_files(record, settings.validation)
        data = prepare(places, settings, rng, trained.vocabulary, of_validation)
    except InputError as error:
        raise InputError(f"the text of this model cannot be read again: {error}: give one to look at") from None
    file = record.get("validation")
    checksums = record.get("sha256"), (file.get("sha256") if isinstance(file, dict) else "")
    if (data.sha256, data.validation_sha256) != checksums:  # another text is split in another way
        changed = data.validation_file or places[0].place
        raise InputError(f"{changed}: the text of this model has changed since: give one to look at")
    if data.validation:
        looked = _pieces("Text that was held out", data.validation, trained)
    else:
        looked = _pieces("Text that it learned from, for none was held out", data.training, trained)
    return looked._replace(split=card.split_words(data))


def _pieces(where: str, sequences: Sequences, trained: LanguageModel) -> Looked:
    """Select lines from all over a text, or the beginning of a stream or of a long line."""
    sequences = sequences.take(sequences.lengths > 0)
    if not sequences:
        raise InputError("nothing to look at: expected text that is more than white space")
    decode = trained.vocabulary.decode
    if trained.mode == "stream":  # a cut through the bytes of a character leaves a mark
        return Looked(where, [decode(sequences[0][1 : LENGTH + 1]).strip("\ufffd")])
    short = sequences.take(sequences.lengths <= LENGTH)
    if not short:
        return Looked(where, [decode(sequences[int(np.argmin(sequences.lengths))][1 : LENGTH + 1]).rstrip("\ufffd")])
    left, texts = LENGTH, list[str]()
    for place in np.linspace(0, len(short) - 1, min(len(short), LINES)).astype(int).tolist():
        if (steps := int(short.lengths[place])) <= left:
            left -= steps
            texts.append(decode(short[place][1:-1]))
    return Looked(where, texts)


def _seen(trained: LanguageModel, texts: list[str]) -> Activations:
    """The activations of several texts, one after the other, and the probabilities of the symbols that are shown."""
    parts = list[Activations]()
    for text in texts:
        parts.append(inspect.activations(trained, text, STRIP - sum(len(part.p) for part in parts)))
    arrays: dict[str, Any] = {}
    for name in Activations._fields:
        values = [getattr(part, name) for part in parts]
        if name in ("inputs", "targets"):
            arrays[name] = list(itertools.chain.from_iterable(values))
        else:
            arrays[name] = None if values[0] is None else np.concatenate(values)
    return Activations(**arrays)


def _history(place: Path, trained: LanguageModel) -> list[dict[str, Any]]:
    """Return the rows of a run; none for a model without a run."""
    try:
        saved = (
            run_folder.read_checkpoint(place, run=True, cell=trained.config.user_cell)[1] if run_folder.is_run(place) else None
        )
    except CheckpointError:  # a run whose model could be loaded, but not gone on with
        saved = None
    return list(saved.progress.history) if saved and saved.progress else []


def _radii(trained: LanguageModel, history: list[dict[str, Any]]) -> tuple[list[int], HostArray]:
    """The spectral radius of each block of Waa by evaluated step, (n, L, G); without a run that of the model."""
    sizes = [len(trained.config.definition.GATES)] * trained.config.layers
    rows = [row for row in history if [len(layer) for layer in row.get("radii", [])] == sizes]
    if rows:
        return [row["step"] for row in rows], np.array([row["radii"] for row in rows])
    final = trained.backend.get(model.spectral_radii(trained.config, trained.params))
    return [int(trained.record.get("step") or 0)], final[None]


def _clip(trained: LanguageModel) -> float | None:
    settings = trained.record.get("settings")
    clip = settings.get("clip_norm") if isinstance(settings, dict) else None
    return float(clip) if isinstance(clip, int | float) and is_number(clip) and clip > 0 else None


def _samples(history: list[dict[str, Any]]) -> list[dict[str, str]]:
    rows = []
    for row in history:
        if row.get("sample"):
            loss = row.get("held_out")
            nats, bits = ("", "") if loss is None else (f"{loss:.4f}", f"{loss / math.log(2):.4f}")
            texts = row["sample"] if isinstance(row["sample"], list) else [row["sample"]]
            text = printable(", ".join(texts)[:300], "\n")
            rows.append({"step": f"{row['step']:,}", "nats": nats, "bits": bits, "text": text})
    return rows


def _runs(names: list[str], values: HostArray) -> list[tuple[int, str]]:
    """Group adjacent characters of the same colour."""
    levels = np.round(LEVELS * np.clip(values, -1, 1)).astype(int).tolist()
    return [
        (level, "".join(name for name, _ in group))
        for level, group in itertools.groupby(zip(names, levels), lambda one: one[1])
    ]


def _expected(trained: LanguageModel, seen: Activations, surprise: float) -> list[dict[str, Any]]:
    """List the first characters with their costs in nats and bits and the most likely alternatives."""
    symbols = [_visible(name) for name in generate.symbol_names(trained.vocabulary)]
    rows = []
    for target, nats, p in zip(seen.targets[:STRIP], seen.nats[:STRIP].tolist(), seen.p[:STRIP]):
        likely = [(symbols[i], f"{100 * p[i]:.0f} %") for i in np.argsort(-p, kind="stable")[:RANKS].tolist()]
        cost = {"nats": f"{nats:.1f}", "bits": f"{nats / math.log(2):.1f}"}
        rows.append({"target": _visible(target), **cost, "surprising": nats > surprise, "likely": likely})
    return rows


def _visible(symbol: str) -> str:
    """Return a visible stand-in for white space."""
    return {"\n": "↵", " ": "␣", "\t": "⇥"}.get(symbol, printable(symbol))
