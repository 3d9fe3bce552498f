"""The model card of a report: what was trained on what, how, when and where, as rows of a table.

A record and the sessions of a run may come from a stranger: what does not have the expected type is left out.
"""

import math
import shlex
from pathlib import Path
from typing import Any

from bptt.checkpoint import run_folder
from bptt.checkpoint.format import is_number
from bptt.config.compatibility import complete_format_1
from bptt.data.dataset import Dataset, count_targets
from bptt.display.text import printable
from bptt.inference.language_model import LanguageModel
from bptt.nn import model, tree
from bptt.report import figures

Rows = list[tuple[str, str]]

LONGEST = 300  # characters of a value
NO_LICENCE = "not stated: add the licences of the model and of its text before you publish it"


def card(trained: LanguageModel, place: Path, split: str, seen: str) -> list[tuple[str, Rows]]:
    """Return the sections of the card with their rows; `split` says what was held out, `seen` what the page looks at."""
    record = trained.record
    sessions = [one for one in run_folder.read_environment(place).get("sessions", []) if isinstance(one, dict)]
    sections = [
        ("Model", _model_rows(trained, seen)),
        ("Text", _text_rows(trained, split)),
        ("Training", _training_rows(record, sessions)),
        ("Software and machine", _machine_rows(record, sessions[-1] if sessions else {})),
        ("Use", [("command", f"bptt sample {shlex.quote(str(place))} --count 10"), ("licence", NO_LICENCE)]),
    ]
    return [(title, [(name, printable(value)[:LONGEST]) for name, value in rows if value]) for title, rows in sections]


def loss_words(nats: float) -> str:
    """A loss in nats, in bits, and as the perplexity."""
    return f"{nats:.4f} nats ({nats / math.log(2):.4f} bits) per character, perplexity {math.exp(min(700.0, nats)):.4g}"


def split_words(data: Dataset) -> str:
    """The sizes of the training part and of the validation set."""
    sizes = [count_targets(part) if data.mode == "stream" else len(part) for part in (data.training, data.validation)]
    unit = "characters" if data.mode == "stream" else data.mode
    if data.validation_file:
        return f"{sizes[0]:,} {unit} to train on, {sizes[1]:,} of {Path(data.validation_file).name} held out"
    place = ", the end of the text" if data.mode == "stream" and sizes[1] else ""
    return f"{sizes[0]:,} {unit} to train on, {sizes[1]:,} held out{place}"


def _model_rows(trained: LanguageModel, seen: str) -> Rows:
    config, record = trained.config, trained.record
    size = tree.num_elements(model.shapes(config))
    validation_loss = record.get("held_out")
    shown = figures.drawn(config.layers)
    return [
        ("model", f"{config.cell}, {config.layers} x {config.hidden} units, {size:,} parameters, {config.vocabulary} symbols"),
        ("checkpoint of step", f"{record.get('step') or 0:,}"),
        ("held-out loss", loss_words(validation_loss) if validation_loss and is_number(validation_loss) else "not measured"),
        ("looked at here", seen),
        ("layers drawn", ", ".join(str(layer + 1) for layer in shown) if len(shown) < config.layers else ""),
    ]


def _text_rows(trained: LanguageModel, split: str) -> Rows:
    record, settings = trained.record, _dict(trained.record.get("settings"))
    characters, size = record.get("targets"), record.get("bytes")
    sizes = [f"{characters:,} characters"] if _is_count(characters) else []
    sizes += [f"{size:,} bytes"] if _is_count(size) else []
    names = [name for name in ("split_seed", "duplicates") if name in settings and trained.mode != "stream"]
    seeds = ", ".join(f"{name.replace('_', ' ')} {settings[name]!s:.40}" for name in names)
    return [
        ("text", str(record.get("text", ""))),
        ("size", ", ".join(sizes)),
        ("SHA-256", _checksum(record)),
        ("read as", {"lines": "lines, each a text of its own", "stream": "one stream of text"}.get(trained.mode, trained.mode)),
        ("split", f"{split}; {seeds}" if split and seeds else split or seeds),
    ]


def _training_rows(record: dict[str, Any], sessions: list[dict[str, Any]]) -> Rows:
    settings = _dict(record.get("settings"))
    started = [_text(one.get("started")) for one in sessions if _text(one.get("started"))]
    seconds = [one["seconds"] for one in sessions if is_number(one.get("seconds"))]
    commands = list(dict.fromkeys(_command(one.get("command")) for one in sessions))
    return [
        ("trained with", _trained_with(record)),
        ("seed", f"{settings['seed']!s:.40}" if "seed" in settings else ""),
        ("date", started[-1].replace("T", " ").replace("+00:00", " UTC") if started else ""),
        ("duration", f"{seconds[-1]:,.0f} s, {len(sessions)} session{'s' * (len(sessions) != 1)}" if seconds else ""),
        ("commands" if len(commands) > 1 else "command", "; ".join(filter(None, commands))),
    ]


def _machine_rows(record: dict[str, Any], session: dict[str, Any]) -> Rows:
    versions, machine, blas = (_dict(session.get(name)) for name in ("versions", "machine", "blas"))
    ran = _text(session.get("backend")) or _text(_dict(record.get("backend")).get("ran"))
    compiled = _text(session.get("compiled"))
    return [
        ("versions", ", ".join(f"{name} {version!s:.40}" for name, version in versions.items())),
        ("backend", f"{ran}, compiled by {compiled}" if ran and compiled else ran),
        ("BLAS", " ".join(str(blas[name])[:80] for name in ("name", "version") if name in blas)),
        ("machine", ", ".join(f"{machine[name]!s:.80}" for name in ("processor", "system") if name in machine)),
    ]


def _trained_with(record: dict[str, Any]) -> str:
    """How a model was trained; empty where the record does not say so."""
    plan, settings = record.get("plan"), record.get("settings")
    if not isinstance(plan, dict) or not isinstance(settings, dict):
        return ""
    known = {"schedule": "cosine", **complete_format_1({**settings, **plan})}
    names = ["optimizer", "learning_rate", "parametrization", "schedule", "batch", "dropout", "weight_decay", "average"]
    names += ["steps", "length", "clip_norm"]
    return ", ".join(f"{name.replace('_', ' ')} {known[name]!s:.40}" for name in names if known.get(name) is not None)


def _checksum(record: dict[str, Any]) -> str:
    """The checksum of the file, as other programs give it; of several files or none, that of the text they make."""
    sums = _dict(record.get("files")).get("raw_sha256")
    if isinstance(sums, list) and len(sums) == 1 and _text(sums[0]):
        return _text(sums[0])
    text = _text(record.get("sha256"))
    return f"{text}, of the text as it was read" if text else ""


def _command(words: object) -> str:
    """A command as it is typed: without the place of the program."""
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        return ""
    program = Path(words[0]).name
    return shlex.join(["bptt" if program == "__main__.py" else program, *words[1:]])


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0
