"""The commands that write with a saved model: `bptt sample` and `bptt next`."""

import json
import math
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

from bptt.cli.console import complain, print_line, quoted, write_bytes
from bptt.cli.parser import (
    BackendFlag,
    CellFile,
    DeviceFlag,
    DtypeFlag,
    Encoding,
    Json,
    Prompt,
    PromptFile,
    RequireFlag,
    Text,
)
from bptt.cli.runs import newest
from bptt.cli.texts import reading_for
from bptt.config import rules
from bptt.config.defaults import TEMPERATURE
from bptt.data.source import recorded_reading
from bptt.display import table
from bptt.display.cross_entropy import bits
from bptt.errors import InputError
from bptt.inference import novelty
from bptt.inference.generate import stream_text
from bptt.inference.language_model import LanguageModel, load
from bptt.inference.request import Unknown, make_request, read_prompt
from bptt.inference.sampling import SamplingOptions
from bptt.inference.text_model import raw_texts, sample_texts

BAR_END = 100  # columns that a line of `bptt next` takes at most, the bar included


def sample(  # noqa: D417  # BackendFlag and the like bring their help
    run: Path | None = None,
    /,
    *,
    count: int = 1,
    temperature: float = TEMPERATURE,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    prompt: str | None = None,
    prompt_file: PromptFile | None = None,
    unknown: Unknown = "error",
    length: int | None = None,
    stop: str | None = None,
    novel: bool = False,
    text: Text | None = None,
    encoding: Encoding | None = None,
    raw: bool = False,
    as_json: Json = False,
    backend: BackendFlag = "auto",
    device: DeviceFlag = None,
    require_backend: RequireFlag = False,
    dtype: DtypeFlag = None,
    cell: CellFile = None,
) -> int:
    """Write new texts with a saved model; a single text is shown while it is written.

    Parameters
    ----------
    run
        A run (its best checkpoint), one checkpoint, or a saved model. By default the newest run in runs/.
    count
        Number of texts.
    temperature
        1 samples with the probabilities of the model. Less prefers likely characters; 0 takes the most likely one each time.
    top_k
        Choose only among this number of most likely characters. By default among all.
    top_p
        Choose only among the most likely characters whose probabilities add up to this. By default among all.
    seed
        Seed of the random choices: another seed gives other texts.
    prompt
        Beginning of every text.
    prompt_file
        File with the prompt, - for standard input. A model of lines ignores the newline at its end.
    unknown
        Characters of the prompt that the model does not know: stop with an error, or skip them.
    length
        Maximum number of new characters, or of bytes for a model of bytes. By default 200 for lines, 500 for records and
        streams.
    stop
        End a text before this string, when the model writes it.
    novel
        Leave out blank texts, repeated texts and those of the training text. There may be fewer than --count.
    text
        Text to compare novel texts with, instead of the training text: a file, - for standard input, or a built-in text.
    raw
        Write the text of a model of bytes as bytes. Send them to a file with > FILE.
    """
    if text is not None and not novel:
        raise InputError("--text is for --novel: give both, or neither")
    if encoding is not None and text is None and prompt_file is None:
        raise InputError("--encoding is that of --prompt-file and --text: give one of these, or leave it out")
    if raw and (count != 1 or novel or as_json):
        raise InputError("--raw writes the bytes of one text: leave out --count, --novel and --json")
    if raw and sys.stdout.isatty():
        raise InputError("--raw writes bytes, which could change the state of a terminal: write them to a file with > FILE")
    model = load(
        run or newest(), backend=backend, device=device, dtype=dtype, require_backend=require_backend or None, cell=cell
    )
    request = make_request(
        model.vocabulary,
        model.mode,
        SamplingOptions(temperature, top_k, top_p),
        seed=seed,
        prompt=_prompt(prompt, prompt_file, "--prompt", model, encoding),
        length=length,
        stop=stop,
        unknown=unknown,
    )
    if raw:
        write_bytes(next(raw_texts(model, 1, request)))
        return 0
    if count == 1 and not novel and not as_json:
        cut = int(show(stream_text(model.config, model.params, model.backend, model.vocabulary, request)))
    else:
        others = () if text is None else novelty.text(text, model.vocabulary, reading_for(model, encoding, None, "*"))
        samples = sample_texts(model, count, request, others, novel=novel and text is None)
        separator = recorded_reading(model.record, model.mode).separator or "\n\n"
        between = "\n" if as_json or model.mode == "lines" else separator
        end = "\n" if between.startswith("\n") else ""  # the first character of what is between two texts ends a line at once
        written = cut = 0
        for each in samples:
            words = json.dumps(each._asdict()) if as_json else each.text
            if not print_line(between.removeprefix(end) * (written > 0) + words, end=end):
                return 0
            written, cut = written + 1, cut + each.cut
        print_line("", end="" if end or not written else "\n")
        if written < count:
            complain(f"{written} of {count} texts are new: try a higher --temperature")
        count = written
    if cut and length is None:
        which = f"{cut} of {count} samples {'was' if cut == 1 else 'were'}" if count > 1 else "the sample was"
        complain(f"{which} cut at {request.criteria.length} {model.vocabulary.kind}: give --length N for longer ones")
    return 0


def following(  # noqa: D417
    run: Path,
    prompt: Prompt | None = None,
    /,
    *,
    prompt_file: PromptFile | None = None,
    encoding: Encoding | None = None,
    top: int = 10,
    temperature: float = 1.0,
    unknown: Unknown = "error",
    as_json: Json = False,
    backend: BackendFlag = "auto",
    device: DeviceFlag = None,
    require_backend: RequireFlag = False,
    dtype: DtypeFlag = None,
    cell: CellFile = None,
) -> int:
    r"""Show the most likely next characters, with their probabilities, nats and bits.

    In a model of lines \'\\n\' is the end of the line, in a model of records \'\\x1e\' the end of the record.

    Parameters
    ----------
    run
        A run (its best checkpoint), one checkpoint, or a saved model.
    prompt
        The text so far. By default the beginning of a text.
    prompt_file
        File with the text so far, - for standard input. A model of lines ignores the newline at its end.
    top
        Number of characters to show.
    temperature
        1 shows the probabilities of the model, as bptt score and evaluate measure them. bptt sample uses 0.8 by default.
    unknown
        Characters of the prompt that the model does not know: stop with an error, or skip them.
    """
    if encoding is not None and prompt_file is None:
        raise InputError("--encoding is that of --prompt-file: give both, or neither")
    top = rules.check_number("--top", rules.COUNT, top)
    model = load(run, backend=backend, device=device, dtype=dtype, require_backend=require_backend or None, cell=cell)
    so_far = _prompt(prompt, prompt_file, "PROMPT", model, encoding)
    likeliest = model.next(so_far, temperature=temperature, unknown=unknown)[:top]
    for line in _next_lines(likeliest, as_json=as_json):
        print_line(line)
    return 0


def _next_lines(likeliest: list[tuple[str, float]], *, as_json: bool) -> Iterator[str]:
    """What is printed of the next characters: JSON, bars on a terminal, or columns between tabs."""
    rows = [(symbol, p, -math.log(p) + 0.0 if p else math.inf) for symbol, p in likeliest]
    if as_json:
        for symbol, p, nats in rows:
            costs = {"nats": nats, "bits": bits(nats)} if p else {"nats": None, "bits": None}
            yield json.dumps({"character": symbol, "probability": p, **costs})
    elif sys.stdout.isatty():
        shown = [(quoted(symbol), f"{100 * p:.1f} %", f"{nats:.2f}", f"{bits(nats):.2f}") for symbol, p, nats in rows]
        head, *lines = table.lay_out(("symbol", "", "nats", "bits"), shown, "lrrr", table.UNLIMITED)
        width = max(map(table.cells, (head, *lines)))
        room = max(1, min(table.columns(), BAR_END) - width - 2)
        full = "█" if sys.stdout.encoding.lower().startswith("utf") else "#"
        yield head
        for line, (_, p, _) in zip(lines, rows):
            yield f"{table.pad(line, width)}  {full * round(p * room)}".rstrip()
    else:
        yield "symbol\tprobability\tnats\tbits"
        for symbol, p, nats in rows:
            yield f"{quoted(symbol)}\t{p:.6f}\t{nats:.4f}\t{bits(nats):.4f}"


def _prompt(prompt: str | None, file: Path | None, called: str, model: LanguageModel, encoding: str | None) -> str | bytes:
    """The prompt that was typed, or that a file holds; an InputError for both."""
    if file is None:
        return prompt or ""
    if prompt is not None:
        raise InputError(f"{called} {prompt!r} and --prompt-file {file}: give one of the two")
    return read_prompt(file, model.vocabulary, model.mode, reading_for(model, encoding, None, "*").encoding)


def show(pieces: Generator[str, None, bool]) -> bool:
    """Print a text while it is generated, and end its line in any case; returns whether it was cut."""
    try:
        while print_line(next(pieces), end=""):
            pass
        return False
    except StopIteration as end:
        return bool(end.value)
    finally:
        print_line("")
