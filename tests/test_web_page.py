"""A model as a page: what a real browser writes with it, from a file and without a network, is what Python writes.

`nox -s browser` runs these in Chromium. A run that names them (-m browser) fails where that is missing; any other skips them.
"""

import importlib.util
import itertools
import json
import re
import shutil
from email.message import Message
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest

import bptt
from bptt import backend as backends
from bptt import cli
from bptt.config.defaults import TEMPERATURE
from bptt.data.vocabulary import BYTES, Vocabulary
from bptt.export import web_page
from bptt.inference.language_model import LanguageModel
from bptt.nn import model, tree
from bptt.report import page
from runs import NAMES, PROSE

BROWSER = pytest.mark.browser
SYMBOLS = "\n abcdeé"


def trained(cell="gru", layers=1, mode="lines", initial="learned", vocabulary=None):
    rng = np.random.default_rng(3)
    vocabulary = vocabulary or Vocabulary(tuple(SYMBOLS))
    config = model.Config(cell, len(vocabulary), 12, layers, initial)
    params = tree.tree_map(lambda a: a + 0.2 * rng.normal(size=a.shape), model.init(config, rng))
    here = backends.select("numpy", "float32")
    return LanguageModel(config, vocabulary, mode, tree.tree_map(here.put, params), here, {"text": "</script><b>a text</b>"})


@pytest.fixture(scope="module")
def browser(request):
    """Chromium without a window, and without a network: it opens files."""
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if importlib.util.find_spec("selenium") is None or not driver or not chromium:
        give_up = pytest.fail if request.config.option.markexpr == "browser" else pytest.skip
        give_up("selenium, Chromium or its driver is not installed: apt-get install chromium-driver, then nox -s browser")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * 0.0.0.0",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield running
    running.quit()


def open_page(browser, one, folder):
    one.export("page", folder / "page.html")
    browser.get((folder / "page.html").as_uri())
    return browser


def element(browser, name):
    return browser.find_element("css selector", name)


def set_inputs(browser, beginning, temperature):
    """Type a beginning, and move the temperature."""
    field = element(browser, "#beginning")
    field.clear()
    field.send_keys(beginning)
    script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
    browser.execute_script(script, element(browser, "#temperature"), temperature)


def shown_text(browser):
    return [item.get_property("textContent") for item in browser.find_elements("css selector", "#texts li")]


@BROWSER
@pytest.mark.parametrize(
    ("cell", "layers", "mode", "initial"),
    [
        ("vanilla", 1, "lines", "learned"),
        ("gru", 2, "stream", "zero"),
        ("gru", 1, "lines", "learned"),
        ("lstm", 3, "lines", "learned"),
    ],
)
def test_the_page_gives_the_greedy_continuations_of_python(browser, tmp_path, cell, layers, initial, mode):
    one = trained(cell, layers, mode, initial)
    open_page(browser, one, tmp_path)
    rng = np.random.default_rng(0)
    beginnings = ["", *("".join(rng.choice(list(SYMBOLS[1:]), size=1 + n % 5)) for n in range(19))]
    for beginning in beginnings:
        set_inputs(browser, beginning, 0)
        element(browser, "button").click()
        (expected,) = one.sample(1, temperature=0, prompt=beginning, length=web_page.LONGEST[mode])
        assert shown_text(browser) == [expected] * (10 if mode == "lines" else 1)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@BROWSER
@pytest.mark.parametrize("temperature", [0.0, 0.3, 0.8, 1.5])
def test_the_bars_are_the_probabilities_of_the_next_character(browser, tmp_path, temperature):
    one = trained("lstm")
    open_page(browser, one, tmp_path)
    for beginning in ("", "a", "ab", "abé"):
        set_inputs(browser, beginning, temperature)
        rows = [row.text.split() for row in browser.find_elements("css selector", "#next tr")]
        expected = one.next(beginning, temperature=temperature)[:8]
        names = {"\n": "↵", " ": "␣"}
        compared = [row for row in expected if row[1] > 0.001]  # the order of the others is lost in their equal shares
        assert [row[0] for row in rows][: len(compared)] == [names.get(name, name) for name, _ in compared]
        assert [float(row[1]) for row in rows] == pytest.approx([100 * p for _, p in expected], abs=0.06)
        widths = browser.execute_script(
            "return [...document.querySelectorAll('.bar div')].map(one => parseFloat(one.style.width))"
        )
        assert widths == pytest.approx([100 * p for _, p in expected], abs=0.001)


@BROWSER
@pytest.mark.parametrize(("mode", "count"), [("lines", 10), ("records", 3), ("stream", 1)])
def test_the_page_opens_with_texts(browser, tmp_path, mode, count):
    open_page(browser, trained(mode=mode), tmp_path)
    texts = shown_text(browser)
    assert len(texts) == count
    assert any(texts)
    assert len(browser.find_elements("css selector", "#next tr")) == len(SYMBOLS)
    assert element(browser, "output").text == "0.80"
    assert element(browser, "#problem").rect["height"] == 0  # no empty line
    assert [button.text for button in browser.find_elements("css selector", "button")] == ["Generate", "Copy"]
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@BROWSER
@pytest.mark.parametrize("clipboard", [True, False])
def test_the_texts_are_copied_or_selected(browser, tmp_path, clipboard):
    open_page(browser, trained(), tmp_path)
    value = "{writeText: async text => { window.copied = text; }}" if clipboard else "undefined"
    browser.execute_script(f"Object.defineProperty(navigator, 'clipboard', {{value: {value}, configurable: true}})")
    texts, button = shown_text(browser), element(browser, "#copy")
    button.click()
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda _: button.text in ("Copied", "Selected"))
    assert button.text == ("Copied" if clipboard else "Selected")
    script = "return window.copied" if clipboard else "return getSelection().toString()"
    copied = browser.execute_script(script).splitlines()
    assert list(filter(str.strip, copied)) == list(filter(str.strip, texts))


@BROWSER
@pytest.mark.parametrize("address", ["", "https://example.org/bptt"])
def test_the_page_links_to_the_project_if_it_has_an_address(browser, tmp_path, monkeypatch, address):
    monkeypatch.setattr(web_page, "home", lambda: address)
    open_page(browser, trained(), tmp_path)
    link = element(browser, "#home")
    assert link.text == "bptt"
    assert (link.get_dom_attribute("href") or "") == address


@BROWSER
def test_the_page_works_by_keyboard_and_reports_unknown_characters(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    open_page(browser, trained(), tmp_path)
    assert browser.title == element(browser, "h1").text == "</script><b>a text</b>: lines that a network invents"
    focused = browser.switch_to.active_element
    assert focused.get_attribute("id") == "beginning"
    focused.send_keys("ab", Keys.ENTER)
    texts = shown_text(browser)
    assert len(texts) == 10
    assert all(text.startswith("ab") and set(text) <= set(SYMBOLS) for text in texts)
    focused.send_keys("z", Keys.ENTER)
    assert element(browser, "#problem").text == 'The model does not know "z".'
    focused.send_keys(Keys.BACKSPACE, Keys.TAB, Keys.HOME)
    assert browser.switch_to.active_element.get_attribute("id") == "temperature"
    assert element(browser, "output").text == "0.00"
    assert element(browser, "#problem").text == ""
    browser.switch_to.active_element.send_keys(Keys.TAB, Keys.NULL)
    browser.switch_to.active_element.send_keys(Keys.SPACE)
    assert len(set(shown_text(browser))) == 1  # the likeliest, ten times
    browser.switch_to.active_element.send_keys(Keys.TAB, Keys.NULL)
    assert browser.switch_to.active_element.get_attribute("id") == "copy"


@BROWSER
def test_the_page_works_for_bytes_on_a_narrow_screen(browser, tmp_path):
    one = trained("gru", vocabulary=BYTES)
    open_page(browser, one, tmp_path)
    browser.set_window_size(360, 640)
    set_inputs(browser, "é", 0)
    element(browser, "button").click()
    (expected,) = one.sample(1, temperature=0, prompt="é", length=web_page.LONGEST["lines"])
    assert shown_text(browser)[0] == expected
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    browser.set_window_size(1000, 800)


@pytest.fixture
def telephone(browser):
    """A screen that is 360 points wide, and fingers."""
    size = {"width": 360, "height": 640, "deviceScaleFactor": 3, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    yield browser
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def tap(browser, name, along=0.5):
    """Touch an element, at some part of its width."""
    place = element(browser, name).rect
    point = {"x": place["x"] + along * place["width"], "y": place["y"] + place["height"] / 2}
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@BROWSER
def test_the_page_works_on_a_telephone_by_touch(telephone, tmp_path):
    one = trained()
    open_page(telephone, one, tmp_path)
    assert telephone.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    for name in ("#beginning", "#temperature", "button"):
        assert element(telephone, name).rect["height"] >= 44, f"{name} is too low for a finger"
    # a telephone would zoom into a smaller one
    assert telephone.execute_script("return parseFloat(getComputedStyle(beginning).fontSize)") >= 16
    tap(telephone, "#beginning")
    telephone.switch_to.active_element.send_keys("ab")
    tap(telephone, "#temperature", along=0.001)
    assert element(telephone, "output").text == "0.00"
    tap(telephone, "button")
    (expected,) = one.sample(1, temperature=0, prompt="ab", length=web_page.LONGEST["lines"])
    assert shown_text(telephone) == [expected] * 10
    assert telephone.execute_script("return document.documentElement.scrollWidth") == 360


@BROWSER
@pytest.mark.parametrize("text", [NAMES, PROSE * 3], ids=["lines", "stream"])
def test_a_report_fits_a_sheet_of_paper_and_a_telephone(telephone, tmp_path, text):
    for name in ("matplotlib", "jinja2"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install '.[plot]'")
    model = bptt.train(text, report=None, hidden=5, layers=2, steps=12, out=tmp_path / "run", backend="numpy")
    (tmp_path / "text").write_text("\n".join(text) if text is NAMES else text)
    page.write(model, tmp_path / "run", str(tmp_path / "text"), tmp_path / "report.html")
    for media, width in (("print", 700), ("screen", 390), ("screen", 360)):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": True}
        telephone.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        telephone.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media})
        telephone.get((tmp_path / "report.html").as_uri())
        script = "return [...document.querySelectorAll('body *')].filter(one => one.scrollWidth > one.clientWidth + 1 &&"
        script += " !one.closest('svg') && getComputedStyle(one).overflowX != 'auto' &&"
        script += " getComputedStyle(one).display != 'inline').map(one => one.outerHTML.slice(0, 80))"
        assert telephone.execute_script(script) == []
        assert telephone.execute_script("return document.documentElement.scrollWidth") == width
        if width == 390:  # pictures below each other, and letters as large as in the text around them
            script = "return [...document.querySelectorAll('.pictures > div')].map(one => one.getBoundingClientRect().toJSON())"
            places = telephone.execute_script(script)
            assert all(above["bottom"] <= below["top"] for above, below in itertools.pairwise(places))
            script = "return [...document.querySelectorAll('svg text')].map(one => one.getBoundingClientRect().height)"
            assert min(telephone.execute_script(script)) > 8
    telephone.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@BROWSER
@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_the_page_samples_with_the_probabilities_of_the_model(browser, tmp_path, temperature):
    one = trained("vanilla", mode="stream")
    open_page(browser, one, tmp_path)
    script = "return Array.from({length: 4000}, () => draw(after('ab').logits, arguments[0]))"
    counts = np.bincount(browser.execute_script(script, temperature), minlength=len(SYMBOLS)) / 4000
    p = dict(one.next("ab", temperature=temperature))
    assert np.abs(counts - [p[symbol] for symbol in SYMBOLS]).max() < 0.04  # five standard deviations


def test_the_page_is_one_self_contained_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bptt.train(NAMES, report=None, hidden=4, steps=3, backend="numpy").save("names")
    assert cli.main(["export", "names", "--to", "page"]) == 0
    assert capsys.readouterr().out == "saved in names.html\n"
    source = (tmp_path / "names.html").read_text("utf-8")
    assert re.search(r'<input id="temperature"[^>]* value="(.*?)"', source)[1] == str(TEMPERATURE)
    assert not re.search(r"https?:|src=|href=|@import|url\(|fetch|XMLHttp|WebSocket|import\(", source)
    assert cli.main(["export", "names", "--to", "page"]) == 2
    assert "names.html: already exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ([], ""),
        (["Changes, https://example.org/changes", "Homepage, https://example.org"], "https://example.org"),
        (["Source, https://example.org/source"], "https://example.org/source"),
        (["Homepage, javascript:alert(1)", "odd"], ""),
        (None, ""),
    ],
)
def test_the_address_is_that_of_the_installed_package(monkeypatch, addresses, expected):
    def metadata(name):
        if addresses is None:
            raise PackageNotFoundError(name)
        message = Message()
        for address in addresses:
            message["Project-URL"] = address
        return message

    monkeypatch.setattr(web_page, "metadata", metadata)
    assert web_page.home() == expected


def test_nothing_in_a_model_closes_the_script_element(tmp_path):
    trained().export("page", tmp_path / "page.html")
    source = (tmp_path / "page.html").read_text("utf-8")
    assert source.count("</script>") == 2
    found = json.loads(re.search(r'id="model">(.*?)</script>', source)[1])
    assert found["title"].startswith("</script><b>")
    assert found["symbols"] == list(SYMBOLS)


def test_the_page_of_a_stream_continues_the_text(tmp_path):
    bptt.train(PROSE, report=None, hidden=4, steps=3, backend="numpy").export("page", tmp_path / "page.html")
    assert '"mode": "stream"' in (tmp_path / "page.html").read_text("utf-8")
