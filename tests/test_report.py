"""A report: one file that stands alone, with the model's own numbers in it, for every cell and whatever is in the text."""

import hashlib
import html
import importlib.util
import json
import math
import os
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest

import bptt
from bptt import cli, inspect
from bptt.config.settings import from_flags
from bptt.data.dataset import make_rng, prepare
from bptt.display import plots
from bptt.nn import lstm, tree
from bptt.report import card, figures, page, units
from runs import NAMES, PROSE

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install '.[plot]'")
pytest.importorskip("jinja2", reason="jinja2 is not installed: pip install '.[plot]'")
VOID = {"meta", "br", "hr", "img", "link"}


class Page(HTMLParser):
    """The tags of a page, which must be closed in order, and their attributes."""

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.attributes = [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)


@pytest.fixture
def sketched(monkeypatch):
    """A report without its pictures, which take most of the time."""
    for name in ("curves", "saturation", "flow", "radii"):
        monkeypatch.setattr(figures, name, lambda *_: ["<svg></svg>"])


def trained(folder, text=NAMES, **flags):
    (folder / "text.txt").write_text("\n".join(text) if isinstance(text, list) else text, "utf-8")
    small = {"hidden": 5, "batch": 6, "steps": 12, "evaluate_every": 4, "backend": "numpy", "report": None, **flags}
    bptt.train(str(folder / "text.txt"), out=folder / "run", **small)
    return folder / "run"


def write_report(run, capsys, *arguments):
    assert cli.main(["report", str(run), *map(str, arguments)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.removeprefix("written: ").strip()


@pytest.mark.parametrize(
    ("cell", "text", "layers"),
    [("vanilla", PROSE * 3, 2), ("gru", NAMES, 1), ("lstm", PROSE * 3, 2)],
    ids=["vanilla", "gru", "lstm"],
)
def test_a_report_is_self_contained(tmp_path, capsys, cell, layers, text):
    run = trained(tmp_path, text, cell=cell, layers=layers)
    place = write_report(run, capsys)
    assert place == str(run / "report.html")
    source = (run / "report.html").read_text("utf-8")
    assert len(source) < 2_000_000
    found = Page(source)
    assert not {"script", "link", "iframe", "object", "img"} & set(found.tags)
    for name, value in found.attributes:
        if name in ("href", "xlink:href", "src"):
            assert value.startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"https?://(?!www\.w3\.org)", source)
    assert not re.search(r"@import|url\((?!#)", source)
    panels = 3 + (layers + 1) + 1 + 2 * layers  # curves, flow, radii, saturation
    assert found.tags.count("svg") == panels
    for picture in re.findall(r"<svg.*?</svg>", source, re.DOTALL):
        ET.fromstring(picture)  # well-formed
    assert figures.INK not in source
    assert source.count("currentColor") > 20
    model = bptt.load(run)
    nats = model.record["held_out"]
    assert f"{nats:.4f} nats ({nats / math.log(2):.4f} bits) per character" in source
    assert "optimizer adam, learning rate 0.00" in source
    assert "parametrization mup, schedule cosine, batch 6, dropout 0.0" in source
    assert "steps 12, length" in source
    for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        if "sample" in row:
            nats = row["held_out"]
            assert f"step {row['step']:,}<span>{nats:.4f} nats</span><span>{nats / math.log(2):.4f} bits</span></th>" in source


def largest(Waa):
    """The largest modulus of the eigenvalues of each square block."""
    return [np.abs(np.linalg.eigvals(Waa[k : k + Waa.shape[1]])).max() for k in range(0, len(Waa), Waa.shape[1])]


@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
def test_spectral_radii_are_those_of_the_weights_at_each_evaluation(tmp_path, monkeypatch, cell):
    run = trained(tmp_path, cell=cell, layers=2, hidden=7, learning_rate=0.1)
    drawn = {}
    monkeypatch.setattr(figures, "radii", lambda *them: drawn.update(zip(("steps", "found", "names"), them)) or [])
    page.write(bptt.load(run), run, None, tmp_path / "page.html")
    assert drawn["steps"] == [4, 8, 12]
    assert drawn["found"].shape == (3, 2, len(drawn["names"]))
    assert not np.allclose(drawn["found"][0], drawn["found"][2], rtol=0.02)  # they have changed
    for step, found in zip(drawn["steps"], drawn["found"]):
        layers = bptt.load(run / "checkpoints" / f"step-{step:08}").params.layers
        np.testing.assert_allclose(found, [largest(layer.Waa) for layer in layers], rtol=0.01, atol=1e-3)


@pytest.mark.usefixtures("sketched")
def test_a_report_can_be_about_another_text(tmp_path, capsys):
    run = trained(tmp_path, PROSE, hidden=16, steps=200, evaluate_every=200)
    (tmp_path / "other").write_text("the dog sat on the mat " * 3)
    write_report(run, capsys, tmp_path / "other", "--out", tmp_path / "page.html")
    source = (tmp_path / "page.html").read_text("utf-8")
    activations = inspect.activations(bptt.load(run), "the dog sat on the mat " * 3)
    nats = activations.nats.mean()
    assert f"{len(activations.nats)} characters, {nats:.4f} nats ({nats / math.log(2):.4f} bits) per character" in source
    strip = re.search(r'<div class="strip">(.*)\n</div>', source, re.DOTALL)[1]
    cells = re.findall(r"<div( class=\"surprise\")?><b>(.*?)</b><br>(.*?) nats<br>(.*?) bits<span>", strip)
    assert [(mark != "", html.unescape(name), nats, bits) for mark, name, nats, bits in cells] == [
        (bool(cost > 2 * nats), {" ": "␣"}.get(name, name), f"{cost:.1f}", f"{cost / math.log(2):.1f}")
        for name, cost in zip(activations.targets, activations.nats)
    ]
    assert any(mark for mark, *_ in cells)
    shown = [html.unescape(one) for one in re.findall(r"bits<span>(.*?) \d+ %</span>", strip)]
    names = ["↵" if name == "\n" else "␣" if name == " " else name for name in bptt.load(run).vocabulary.symbols]
    assert shown == [names[i] for i in activations.p.argmax(axis=1)]


def card_of(source):
    """The rows of the model card."""
    return dict(re.findall(r'<th scope="row">([^<]*)</th><td>(.*?)</td>', source))


@pytest.mark.usefixtures("sketched")
def test_the_card_says_how_to_repeat_the_run(tmp_path, capsys):
    run = trained(tmp_path, seed=5, split_seed=3)
    write_report(run, capsys)
    rows = card_of((run / "report.html").read_text("utf-8"))
    record, session = bptt.load(run).record, json.loads((run / "env.json").read_text())["sessions"][0]
    size = (tmp_path / "text.txt").stat().st_size
    assert rows["text"] == "text"
    assert rows["size"] == f"{record['targets']} characters, {size} bytes"
    assert rows["SHA-256"] == hashlib.sha256((tmp_path / "text.txt").read_bytes()).hexdigest()
    assert rows["split"] == f"{len(NAMES) - 3} lines to train on, 3 held out; split seed 3, duplicates together"
    assert rows["seed"] == "5"
    assert rows["date"] == session["started"].replace("T", " ").replace("+00:00", " UTC")
    assert rows["versions"] == ", ".join(f"{name} {version}" for name, version in session["versions"].items())
    assert session["machine"]["system"] in rows["machine"]
    assert session["host"] not in rows["machine"]
    assert rows["backend"].startswith("numpy float32")
    assert rows["licence"].startswith("not stated: add the licences")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["/usr/lib/bptt/__main__.py", "train", "a b.txt"], "bptt train 'a b.txt'"),
        (["/usr/bin/bptt", "train"], "bptt train"),
        (["train.py"], "train.py"),
        ([], ""),
        ([1, "a"], ""),
        ("bptt", ""),
        (None, ""),
    ],
)
def test_a_command_is_shown_as_it_is_typed(words, expected):
    assert card._command(words) == expected


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize("odd", [7, "<b>", [1], {"a": {"b": 1}}, None, "x" * 100_000, True])
def test_a_card_of_odd_sessions_has_what_it_can(tmp_path, capsys, odd):
    run = trained(tmp_path, steps=1)
    session = json.loads((run / "env.json").read_text())["sessions"][0]
    for name in session:
        (run / "env.json").write_text(json.dumps({"sessions": [odd, {**session, name: odd}]}))
        write_report(run, capsys)
        source = (run / "report.html").read_text("utf-8")
        assert card_of(source)["seed"] == "0"
        assert "<b>" not in card_of(source).values()
        assert len(source) < 60_000


def luminance(colour):
    """The relative luminance of WCAG 2."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (one / 255 for one in colour)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(first, second):
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def colours_of(style):
    """The variables and the backgrounds of the levels in a part of a style sheet."""
    names = {name: tuple(bytes.fromhex(value)) for name, value in re.findall(r"--(\w+): #(\w{6});", style)}
    levels = re.findall(r"\.([pn]\d) { background: rgba\((\d+), (\d+), (\d+), ([\d.]+)\); }", style)
    return names, {name: ((int(r), int(g), int(b)), float(alpha)) for name, r, g, b, alpha in levels}


@pytest.mark.usefixtures("sketched")
def test_text_has_enough_contrast_in_light_and_dark(tmp_path, capsys):
    run = trained(tmp_path, steps=1)
    write_report(run, capsys)
    style = re.search(r"<style>(.*?)</style>", (run / "report.html").read_text("utf-8"), re.DOTALL)[1]
    light, rest = style.split("@media (prefers-color-scheme: dark) {")
    dark, paper = rest.split("@media print {")
    assert "opacity" not in style  # which would change what is computed here
    for part in (light, dark):
        colours, levels = colours_of(part)
        assert contrast(colours["ink"], colours["paper"]) >= 7
        assert contrast(colours["quiet"], colours["paper"]) >= 4.5
        assert len(levels) == 2 * page.LEVELS
        for colour, alpha in levels.values():
            background = [alpha * c + (1 - alpha) * p for c, p in zip(colour, colours["paper"])]
            assert contrast(colours["ink"], background) >= 4.5
    assert contrast(colours_of(paper)[0]["quiet"], colours_of(paper)[0]["paper"]) >= 4.5


def test_every_caption_is_one_sentence(tmp_path, capsys):
    for cell in ("gru", "vanilla"):
        (tmp_path / cell).mkdir()
        run = trained(tmp_path / cell, cell=cell)
        write_report(run, capsys)
        source = (run / "report.html").read_text("utf-8")
        captions = re.findall(r'(?:<figcaption>|<p class="how">)(.*?)</', source, re.DOTALL)
        assert len(captions) == 8
        for caption in captions[:-1]:  # the last one names papers
            words = html.unescape(" ".join(caption.split()))
            assert len(re.findall(r"[.!?](?: |$)", words)) == 1
            assert words.endswith(".")


@pytest.mark.usefixtures("sketched")
def test_text_is_escaped_in_the_page(tmp_path, capsys):
    """Of a page, a text could make anything."""
    lines = ["<script>alert(1)</script>", "a & b", '"quoted"', "</div>", "\x1b[31m red", "é ü 字", "{{ 7 * 7 }}"] * 4
    run = trained(tmp_path, lines, validation=0.4)
    write_report(run, capsys)
    source = (run / "report.html").read_text("utf-8")
    assert "script" not in Page(source).tags
    assert "\x1b" not in source
    run.joinpath("report.html").unlink()
    assert bptt.load(run)  # the page in its folder is in nobody's way


def test_the_same_run_gives_the_same_page(tmp_path, capsys):
    run = trained(tmp_path)
    pages = []
    for _ in range(2):
        write_report(run, capsys)
        pages.append((run / "report.html").read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.usefixtures("sketched")
def test_a_report_of_a_model_alone_needs_a_text(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = bptt.train(NAMES, report=None, hidden=4, steps=3, backend="numpy")
    model.save("model")
    assert cli.main(["report", "model"]) == 2
    assert capsys.readouterr().err == "bptt: the text of this model was no file: give one to look at\n"
    (tmp_path / "names").write_text("bann\nker\n")
    assert write_report("model", capsys, "names") == "report.html"
    assert Page((tmp_path / "report.html").read_text("utf-8")).tags.count("svg") == 3  # there are no curves


@pytest.mark.usefixtures("sketched")
def test_a_missing_text_or_library_is_reported(tmp_path, capsys, monkeypatch):
    run = trained(tmp_path)
    (tmp_path / "text.txt").unlink()
    assert cli.main(["report", str(run)]) == 2
    assert "the text of this model cannot be read again" in capsys.readouterr().err
    (tmp_path / "other").write_text("xyzzy\n")
    assert cli.main(["report", str(run), str(tmp_path / "other")]) == 2
    assert "'x' (U+0078)" in capsys.readouterr().err
    (tmp_path / "other").write_text("bann\n")
    assert (
        cli.main(["report", str(run), str(tmp_path / "other"), "--out", str(tmp_path / "other" / "page.html")]) == 5
    )  # as for a full disk
    assert "cannot be written" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(["report", str(run), str(tmp_path / "other")]) == 2
    assert "pip install 'bptt[plot]'" in capsys.readouterr().err


def activations_of(inputs, a):
    T, V = len(inputs), 3
    return inspect.Activations(list(inputs), list(inputs), np.array(a)[:, None, :], None, None, np.ones((T, V)) / V, np.ones(T))


def test_a_changed_text_is_not_used_as_the_validation_set(tmp_path, capsys):
    run = trained(tmp_path)
    before = (tmp_path / "text.txt").read_text()
    for now, words in [
        (before[:-1], f"has changed: {len(before) - 1} bytes now, {len(before)} before: give one to look at"),
        (before.replace(NAMES[0], NAMES[0][::-1], 1), "the text of this model has changed since: give one to look at"),
    ]:
        (tmp_path / "text.txt").write_text(now)
        assert cli.main(["report", str(run)]) == 2
        assert words in capsys.readouterr().err


def test_a_report_shows_whole_lines(tmp_path, capsys):
    lines = ["bann " * 50, "ker", "dir " * 70, "b", "kan " * 80]
    run = trained(tmp_path, lines * 2, mode="lines")
    model = bptt.load(run)
    (tmp_path / "other").write_text("\n".join(lines))
    assert page._looked(model, str(tmp_path / "other")).texts == [lines[0], "ker", lines[2], "b"]  # the last one is too much
    (tmp_path / "other").write_text("\n".join(["bann " * 500, "ker " * 400]))
    assert page._looked(model, str(tmp_path / "other")).texts == [("ker " * 400)[: page.LENGTH]]  # not one fits
    (tmp_path / "other").write_text("\n".join(["bann " * 500, "ker", "dir", "ban " * 500]))
    assert page._looked(model, str(tmp_path / "other")).texts == ["ker", "dir"]  # whatever stands before them
    (tmp_path / "other").write_text("\n".join(["ker"] * 500))
    assert page._looked(model, str(tmp_path / "other")).texts == ["ker"] * 40


def test_a_report_shows_the_validation_set(tmp_path):
    run = trained(tmp_path, split_seed=3, validation=0.2, steps=1)
    model, settings = bptt.load(run), from_flags({"validation": 0.2})
    data = prepare(str(tmp_path / "text.txt"), settings, make_rng(3, 0))
    looked = page._looked(model, None)
    assert looked[:2] == ("Text that was held out", [model.vocabulary.decode(ids[1:-1]) for ids in data.validation])
    assert looked.split == f"{len(data.training)} lines to train on, {len(data.validation)} held out"
    (tmp_path / "all").mkdir()
    looked = page._looked(bptt.load(trained(tmp_path / "all", validation=0, steps=1)), None)
    assert looked[:2] == ("Text that it learned from, for none was held out", NAMES)


def test_a_report_leaves_out_the_characters_that_the_run_left_out(tmp_path):
    old = trained(tmp_path, steps=1, validation=0)
    (tmp_path / "new").mkdir()
    text, flags = [f"{name}ñ" for name in NAMES], {"hidden": None, "from_": old, "new_symbols": "skip", "steps": 1}
    with pytest.warns(bptt.TrainingWarning, match=f"{len(NAMES)} characters that the model lacks are left out"):
        run = trained(tmp_path / "new", text, **flags, validation=0)
    assert page._looked(bptt.load(run), None)[:2] == ("Text that it learned from, for none was held out", NAMES)


@pytest.mark.parametrize("offset", [0, 1])
def test_a_character_split_by_the_validation_border_is_left_out(tmp_path, offset):
    """The held-out end of a stream may begin within one, and what is looked at may end within one."""
    text = "ж" * 1000 + "\n"
    run = trained(tmp_path, text, vocabulary="bytes", mode="stream", validation=(1501 + offset) / 2001, steps=1)
    (found,) = page._looked(bptt.load(run), None).texts
    assert set(found) == {"ж"}
    assert 298 <= len(found) <= 300


def test_units_are_coloured_by_their_activations(tmp_path, monkeypatch):
    """And what else the page takes from the model: gradients of the longest text, samples in bits, facts."""
    monkeypatch.setattr(figures, "flow", lambda flow: shown.append(flow) or ["<svg></svg>"])
    for name in ("curves", "saturation", "radii"):
        monkeypatch.setattr(figures, name, lambda *given, name=name: shown.append((name, given)) or ["<svg></svg>"])
    shown, run, texts = [], trained(tmp_path, clip_norm=0.7), ["bann", "dir" * 30, "ker"]
    (tmp_path / "other").write_text("\n".join(texts))
    model, place = bptt.load(run), tmp_path / "page.html"
    page.write(model, run, str(tmp_path / "other"), place)
    source = html.unescape(place.read_text("utf-8"))
    assert ("curves", 0.7) == (shown[0][0], shown[0][1][1])
    (flow,) = [one for one in shown if isinstance(one, inspect.Flow)]
    np.testing.assert_array_equal(flow.norms, inspect.gradient_flow(model, "dir" * 30, 50).norms)
    activations = page._seen(model, texts)
    assert len(activations.p) == page.STRIP < len(activations.nats)  # what is shown of them, as each has all symbols
    blocks = re.findall(r'<div class="text lines">(.*?)</div>', source, re.DOTALL)
    assert len(blocks) == len(units.most_informative(activations)) == model.config.hidden
    for block, unit in zip(blocks, units.most_informative(activations)):
        found = []
        for sign, level, coloured, plain in re.findall(r'<span class="([pn])(\d)">(.*?)</span>|([^<]+)', block, re.DOTALL):
            found += [(one, int(level or 0) * (-1 if sign == "n" else 1)) for one in coloured or plain]
        assert found == [(name, round(5 * value)) for name, value in zip(activations.inputs[1:], unit.values[1:].tolist())]
    cells = re.findall(r"<div(?: class=\"surprise\")?><b>.*?</div>", source)
    assert len(cells) == 80
    for cell, p in zip(cells, activations.p):
        shares = re.findall(r"<span>(?:.*?) (\d+) %</span>", cell)
        assert shares == [f"{100 * share:.0f}" for share in sorted(p, reverse=True)[:4]]
    assert f"gru, 1 x 5 units, {tree.ravel(model.params).size} parameters, {len(model.vocabulary)} symbols" in source
    assert '<th scope="row">checkpoint of step</th><td>12</td>' in source
    for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        if "sample" in row:
            words = f"{row['held_out'] / math.log(2):.4f} bits</span></th>"
            assert f'{words}<td class="text">{", ".join(row["sample"])[:300]}</td>' in source


@pytest.mark.parametrize(
    ("name", "read", "expected"),
    [
        ("the place in the line", "\nab c\nd", [0, 1, 2, 3, 4, 0, 1]),
        ("the place in the word", "\nab c\nd", [0, 1, 2, 0, 1, 0, 1]),
        ("being inside quotation marks", 'a"bc"d', [0, 1, 1, 1, 0, 0]),
        ("a vowel", "aBeY1", [1, 0, 1, 1, 0]),
        ("a capital letter", "aBé É1", [0, 1, 0, 0, 1, 0]),
        ("a digit", "a1B2", [0, 1, 0, 1]),
    ],
)
def test_properties_mark_the_characters_of_a_text(name, read, expected):
    assert units.PROPERTIES[name](list(read)).tolist() == expected


def test_the_eight_most_informative_units_come_first():
    rng, text = np.random.default_rng(0), "ab1c e5 i" * 20
    a = rng.normal(size=(len(text), 12)) * 1.5 ** np.arange(12)
    vowels, digits = (measure(list(text)) for measure in (units.PROPERTIES["a vowel"], units.PROPERTIES["a digit"]))
    a[:, 0] = vowels - 3 * digits  # goes with both
    a[:, 1] = 0.4 * (vowels - vowels.mean()) / vowels.std() + 0.9 * rng.normal(size=len(text))  # r = 0.4, or nearly
    found = units.most_informative(activations_of(text, a[:, [0, *range(2, 12)]]))
    assert [unit.number for unit in found] == [0, *range(10, 3, -1)]  # then those that vary most
    assert re.search(r"goes with .*; goes with a digit \(r = -0\.9", found[0].reason)
    weak = units.most_informative(activations_of(text, a[:, [1]]))
    assert "goes with a vowel (r = 0." in weak[0].reason


def test_a_gradient_norm_of_zero_can_be_plotted():
    row = {"step": 1, "loss": 0.5, "rate": 0.1, "norm": 0.0}
    for picture in figures.curves([row, {**row, "step": 2}], 1.0):
        ET.fromstring(picture)  # without a warning, which is an error here


def test_spectral_radii_of_another_model_are_not_plotted(tmp_path):
    model = bptt.load(trained(tmp_path, cell="gru", layers=2, steps=1))
    own = [largest(layer.Waa) for layer in model.params.layers]
    for odd in ([[1.0, 1.0, 1.0]], [[1.0], [1.0]], [[1.0, 1.0, 1.0], [1.0]]):  # forged, or of a run that began otherwise
        steps, found = page._radii(model, [{"step": 5, "radii": odd}])
        assert steps == [1]
        np.testing.assert_allclose(found, [own], rtol=0.01, atol=1e-3)


def test_of_many_layers_a_selection_is_plotted():
    assert [figures.drawn(layers) for layers in (1, 3, 4, 20)] == [[0], [0, 1, 2], [0, 1, 2, 3], [0, 6, 12, 19]]


@pytest.mark.usefixtures("sketched")
def test_a_report_says_which_layers_are_plotted(tmp_path, capsys):
    for layers, said in ((4, False), (5, True)):
        (tmp_path / str(layers)).mkdir()
        run = trained(tmp_path / str(layers), layers=layers, steps=1)
        write_report(run, capsys)
        assert ('<th scope="row">layers drawn</th><td>1, 2, 3, 5</td>' in (run / "report.html").read_text("utf-8")) == said


def test_the_page_of_a_large_model_is_below_two_megabytes():
    L, H, T, rng = 20, 1024, 200, np.random.default_rng(0)
    gates = rng.random((T, L, 4, H), np.float32)
    cloud = figures.saturation(lstm.GATES, inspect.Activations([], [], gates[:, :, 0, :], None, gates, np.ones(0), np.ones(0)))
    norms = np.exp(rng.normal(size=(L, T, 51)))
    pictures = [*cloud, *figures.flow(inspect.Flow(norms, norms.mean(axis=1)))]
    assert sum(map(len, pictures)) < 1_000_000


@pytest.mark.parametrize("out", ["", ".", "a folder"])
def test_a_folder_as_output_of_the_report_is_refused(tmp_path, capsys, out):
    run = trained(tmp_path, steps=1)
    (tmp_path / "a folder").mkdir()
    assert cli.main(["report", str(run), "--out", str(tmp_path / out) if out else out]) == 2
    assert "is a folder: name a file for the report" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_the_report_takes_the_place_of_no_device_or_pipe(tmp_path, capsys):
    run, pipe = trained(tmp_path, steps=1), tmp_path / "pipe"
    os.mkfifo(pipe)
    assert cli.main(["report", str(run), "--out", str(pipe)]) == 2
    assert capsys.readouterr().err == f"bptt: {str(pipe)!r} is a device or a pipe: name a file for the report\n"
    assert pipe.is_fifo()


def test_units_are_chosen_by_their_correlations():
    rng = np.random.default_rng(0)
    text = 'a "bcd" e fgh "iou" xyz ' * 4
    quoted = np.cumsum([one == '"' for one in text]) % 2
    vowels = np.array([one in "aeiouy" for one in text])
    noise = 0.01 * rng.normal(size=(3, len(text)))
    a = np.stack(
        [0.3 * noise[0], 0.2 * quoted + noise[1], -0.1 * vowels + noise[2], np.sign(rng.normal(size=len(text)))], axis=1
    )
    found = units.most_informative(activations_of(text, a))
    reasons = {unit.number: unit.reason for unit in found}
    assert reasons[1].startswith("goes with being inside quotation marks (r = 0.9")
    assert "goes with a vowel (r = -" in reasons[2]
    assert reasons[3].startswith("varies most (standard deviation 1.0")
    np.testing.assert_array_equal(next(unit.values for unit in found if unit.number == 2), a[:, 2])


def test_constant_units_have_no_correlation():
    assert units.correlation(np.zeros((5, 2)), np.arange(5.0)).tolist() == [0, 0]
    assert units.correlation(np.arange(10.0).reshape(5, 2), np.zeros(5)).tolist() == [0, 0]
    assert [unit.number for unit in units.most_informative(activations_of("abc", np.zeros((3, 2))))] == [0, 1]


def test_characters_of_equal_colour_are_grouped():
    values = np.array([1.0, 0.95, 0.04, -0.05, -1.0, -0.39])
    assert page._runs(list("\nabcde"), values) == [(5, "\na"), (0, "bc"), (-5, "d"), (-2, "e")]
