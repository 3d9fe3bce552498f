"""The panel: what a person should see of a run is on the screen, whatever the terminal, and the terminal is left as it was."""

import importlib.util
import io
import re
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from bptt.cli import train
from bptt.config.settings import Settings
from bptt.display import panel
from bptt.display.panel import Panel

HEADING = "text   names\nmodel  gru\nrun    [bold]2,000 steps"
SCRIPT = Path(__file__).parents[1] / "docs" / "make_panel.py"
WAITING = "compiling kernels, once on this machine, about a second"
TURNS = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
CONTROL = r"\x1b\[[?\d;]*[A-Za-z]"


class Tty(io.StringIO):
    """A file that says that it is a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(panel, "OFTEN", 0)


def row(n, **more):
    made = {"step": 10 * n, "loss": 3.0 / n + 1, "rate": 0.00125, "norm": 0.75, "seconds": 2.0 * n, "characters": 3000 * n}
    return made | more


def console(width=80, height=24, file=None):
    return Console(file=file or io.StringIO(), force_terminal=True, width=width, height=height, legacy_windows=False)


def screen(output):
    """The lines that a terminal shows after this output."""
    lines, at = [""], 0
    for token in re.findall(rf"{CONTROL}|[\r\n]|[^\x1b\r\n]+", output):
        if token == "\n":
            at += 1
            lines += [""] * (at == len(lines))
        elif token == "\x1b[1A":
            at -= 1
            assert at >= 0
        elif token == "\x1b[2K":
            lines[at] = ""
        elif token[0] not in "\r\x1b":
            lines[at] += token
    return lines


def show_rows(rows, steps=2000, where=None, heading=HEADING):
    """What is on the screen after a run."""
    where = where or console()
    with Panel(where) as live:
        live.start(heading, steps)
        for one in rows:
            live.show(one)
    return screen(where.file.getvalue())


def test_the_panel_shows_header_curve_progress_and_samples():
    rows = [row(n) for n in range(1, 61)]
    rows[29] |= {"held_out": 1.5, "sample": ["old"]}
    rows[39] |= {"held_out": 1.625, "sample": ["aba", " ", "cde fg"]}
    lines = show_rows(rows)
    assert lines[:3] == HEADING.splitlines()
    assert lines[14].startswith("1.05│")
    assert lines[15] == "loss in nats per character  o: held out"
    assert "".join(lines[3:15]).count("o") == 1 + lines[3].count("o")  # the second one is the highest value after the start
    assert lines[16].startswith("step 600/2,000  30 %  ██")
    assert (lines[16].count("█"), len(lines[16])) == (17, 80)
    assert lines[17:] == [
        "loss 1.0500  held out 1.6250 (2.34 bits)  best 1.5000 (2.16 bits) at step 300",
        "2:00 elapsed  5.00 steps/s  1,500 characters/s",
        "rate 0.00125  gradient norm 0.75",
        "samples at step 400:  aba  cde fg",
        "",
    ]


def test_a_running_panel_shows_the_time_left_and_how_to_stop():
    where = console()
    with Panel(where) as live:
        live.start(HEADING, 2000)
        for n in range(1, 61):
            live.show(row(n))
        lines = screen(where.file.getvalue())
    assert "2:00 elapsed  about 4:40 left  5.00 steps/s  1,500 characters/s" in lines
    assert "rate 0.00125  gradient norm 0.75  Ctrl-C stops and saves" in lines
    ended = "\n".join(screen(where.file.getvalue()))
    assert "left" not in ended
    assert "Ctrl-C" not in ended


def test_the_time_left_follows_the_speed_of_the_last_rows():
    where = console()
    with Panel(where) as live:
        for n in range(1, 13):
            live.show(row(n, seconds=100.0 + n))  # after a slow start
        live.show(row(13, seconds=4000.0), log=False)
        live.start(HEADING, 2000)
        slow = "\n".join(screen(where.file.getvalue()))
        live.show(row(13, seconds=113.0))
        text = "\n".join(screen(where.file.getvalue()))
    assert "about 3:07 left  10 steps/s" in text  # 1,870 steps
    assert "1:06:40 elapsed" in slow


def test_progress_between_two_rows_is_no_point_of_the_curve():
    where = console()
    with Panel(where) as live:
        live.start(HEADING, 2000)
        live.show(row(1))
        live.show(row(2, loss=9.0), log=False)
        text = "\n".join(screen(where.file.getvalue()))
    assert "step 20/2,000" in text
    assert "loss 9.0000" in text
    assert "9.00│" not in text


def test_a_spinner_turns_while_the_run_waits(monkeypatch):
    monkeypatch.setattr(panel, "SPIN", 0.01)
    where, threads = console(40), threading.active_count()
    with Panel(where) as live:
        live.start(HEADING, 2000)
        live.wait(WAITING)
        turns = set()
        for _ in range(3000):  # half a minute, on a busy machine
            turns = set(re.findall(f"[{TURNS}]", where.file.getvalue()))
            if len(turns) >= 3:
                break
            time.sleep(0.01)
        assert len(turns) >= 3
        waiting = screen(where.file.getvalue())
        live.show(row(1))
        assert threading.active_count() == threads
        shown = screen(where.file.getvalue())
    assert " ".join("".join(waiting[4:]).lstrip(TURNS).split()).startswith(WAITING)
    assert "compiling" not in "".join(shown)


@pytest.mark.parametrize("error", [OSError(5, "gone"), KeyboardInterrupt()])
def test_the_spinner_stops_with_the_run_or_the_terminal(error):
    def write(_):
        raise OSError(5, "gone")

    where, threads = console(), threading.active_count()
    with pytest.raises(type(error)), Panel(where) as live:  # noqa: PT012
        live.wait("compiling")
        if isinstance(error, OSError):
            where.file.write = write
        raise error
    assert threading.active_count() == threads


def test_a_run_that_compiles_says_so_in_the_panel(monkeypatch):
    out = Tty()
    monkeypatch.setattr(sys, "stdout", out)
    with train.live_reporter(Settings(), named=True) as tell:
        tell(HEADING, {"event": "start", "record": {"plan": {"steps": 2000}}})
        tell("compiling kernels", {"event": "compile"})
        assert screen(out.getvalue())[4].endswith(" compiling kernels  0:00 so far")
        tell("", {"event": "progress", **row(7)})
        assert "step 70/2,000" in "".join(screen(out.getvalue()))


def test_the_panel_is_redrawn_in_place_below_messages():
    where = console()
    with Panel(where) as live:
        live.print_above("[b]first[/b] :smile:")
        live.start(HEADING, 2000)
        for n in range(1, 20):
            live.show(row(n))
            if n == 10:
                live.print_above("x" * 200 + "\n\tand \x1b[2J more")
    lines = screen(where.file.getvalue())
    assert lines[0] == "[b]first[/b] :smile:"
    assert lines[4:6] == ["x" * 200, "        and  [2J more"]
    assert sum("text   names" in line for line in lines) == sum("step 190/" in line for line in lines) == 1


def test_the_header_is_shown_before_the_first_row():
    where = console()
    with Panel(where, 2000) as live:
        live.start(HEADING, 2000)
        lines = screen(where.file.getvalue())
    assert lines[:3] == HEADING.splitlines()
    assert lines[3].startswith("step 0/2,000  0 %  ░")


def test_an_empty_panel_prints_nothing():
    where = console()
    with Panel(where, 2000):
        pass
    assert where.file.getvalue() == ""


def test_the_panel_is_drawn_at_most_eight_times_a_second(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("TERM", "xterm")
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    where = console()
    with Panel(where, 2000) as live:
        for n in range(1, 102):
            live.show(row(n))
            clock[0] += 0.01
        shown = re.findall(r"step ([\d,]+)/", where.file.getvalue())
    assert shown == [f"{10 * n:,}" for n in range(1, 102, 13)]
    assert "step 1,010/2,000" in "".join(screen(where.file.getvalue()))


def test_the_speed_is_measured_over_the_last_rows():
    rows = [row(n) for n in range(1, 12)]
    rows.append(row(12, seconds=22.5, characters=33100))
    text = "".join(show_rows(rows))
    assert f"{(33100 - 6000) / (22.5 - 4):,.0f} characters/s" in text
    assert "characters/s" not in "".join(show_rows([row(1, seconds=0.0)]))


@pytest.mark.parametrize(("steps", "words"), [(10, "step 10/10  100 %"), (5, "step 10/5  100 %"), (0, "step 10/0  100 %")])
def test_a_finished_run_shows_no_remaining_time(steps, words):
    text = "".join(show_rows([row(1)], steps))
    assert words in text
    assert "left" not in text
    assert "held out" not in text.replace("o: held out", "")


def test_markup_and_control_characters_in_samples_are_not_interpreted():
    evil = ["\x1b[2J\x1b]0;title\x07", "[red]x[/red] [/] [link=http://a.b]", "\x9b1m\u202e\x00\r\n.", ":smile:", "\ud800"]
    where = console()
    lines = show_rows([row(1, held_out=1.0, sample=evil)], where=where, heading="\x1b[3J[b]\x07")
    assert lines[0] == " [3J[b] "
    samples = " ".join(lines).partition("samples at step 10:")[2].split()
    assert samples == ["[2J", "]0;title", "[red]x[/red]", "[/]", "[link=http://a.b]", "1m", ".", ":smile:"]
    rest = re.sub(r"\x1b\[(\?25[lh]|[\d;]*m|1A|2K)|[\r\n]", "", where.file.getvalue())
    assert rest.isprintable()


def test_the_panel_is_plain_on_an_ascii_terminal():
    file = io.TextIOWrapper(io.BytesIO(), "ascii", newline="")
    with Panel(console(file=file), 2000) as live:
        live.start("text   日本", 2000)
        live.print_above("日")
        live.show(row(1))
        live.show(row(2, held_out=2.0, sample=["aé\u200db"]))
    lines = screen(file.buffer.getvalue().decode("ascii"))
    assert lines[:2] == ["text   ??", "?"]
    assert lines[2].startswith("4.00|**")
    assert lines[13].endswith("o")
    assert lines[15].startswith("step 20/2,000  1 %  ......")
    assert lines[-2] == "samples at step 20:  a??b"


@pytest.mark.parametrize("width", [1, 2, 11, 20, 40, 200])
@pytest.mark.parametrize("height", [1, 2, 4, 7, 12, 60])
def test_the_panel_fits_every_terminal_size(width, height):
    texts = ["日本語" * 30, "abc " * 50]
    rows = [row(1), row(2, held_out=1.0, sample=texts), row(3, loss=1e30)]
    where = console(width, height)
    with Panel(where, 2000) as live:
        for one in rows:
            live.show(one)
    lines = screen(where.file.getvalue())
    assert lines.pop() == ""
    assert len(lines) <= max(1, height - 1)
    assert max(map(cell_len, lines)) <= width
    assert lines[0]


@pytest.mark.parametrize(
    ("height", "shown"),
    [(24, "curve step sample"), (10, "curve step sample"), (9, "curve step"), (8, "step sample"), (3, "step")],
)
def test_on_a_low_terminal_the_progress_is_kept_longest(height, shown):
    where = console(100, height)
    with Panel(where, 2000) as live:
        live.show(row(1))
        live.show(row(2, held_out=2.0, sample=["zzz"]))
    text = "\n".join(screen(where.file.getvalue()))
    parts = {"curve": "4.00│", "step": "step 20/", "sample": "zzz"}
    assert [name for name, part in parts.items() if part in text] == shown.split()


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_nothing_is_cut_at_the_usual_widths(width):
    names = [f"{n}{'saurus' * (1 + n % 2)}" for n in range(10)]
    rows = [row(n, held_out=1.5, sample=names) for n in range(1, 5)]
    heading = f"text   names: {'1,279 lines to train on, ' * 4}\nmodel  gru"
    lines = show_rows(rows, where=console(width, 24), heading=heading)
    last = next(n for n, line in enumerate(lines) if line.startswith("model  gru"))
    assert all(line.startswith(" " * 7) for line in lines[1:last])
    assert max(map(len, lines)) <= width
    words = " ".join(" ".join(lines).split())
    for part in (
        *heading.splitlines(),
        "loss in nats per character o: held out",
        "step 40/2,000 2 %",
        "loss 1.7500 held out 1.5000 (2.16 bits) best 1.5000 (2.16 bits) at step 10",
        "0:08 elapsed 5.00 steps/s 1,500 characters/s",
        "rate 0.00125 gradient norm 0.75",
        " ".join(["samples at step 40:", *names]),
    ):
        assert " ".join(part.split()) in words


def test_the_panel_becomes_an_animated_picture_without_scripts():
    if not SCRIPT.exists() or sys.platform == "win32":
        pytest.skip("needs docs/make_panel.py and a terminal of its own")  # Windows has no pseudo-terminals
    spec = importlib.util.spec_from_file_location("make_panel", SCRIPT)
    make_panel = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_panel)
    code = r"print('text  <names>\n\x1b[36m1.05│⡇ ⠁\x1b[0m\nbar ██░', end='', flush=True);"
    code += r"print('\r\x1b[2K\x1b[1A\x1b[2K\x1b[36m9.05\x1b[0m\nend █', flush=True)"
    screens = make_panel.record([sys.executable, "-c", code])
    frames = make_panel.chosen(screens)
    assert len(frames) == make_panel.FRAMES + 1
    assert [line.plain for line in frames[-1]] == ["text  <names>", "9.05", "end █", ""]
    before = make_panel.shown("text  <names>\n\x1b[36m1.05│⡇ ⠁\x1b[0m\nbar ██░")
    picture = make_panel.picture([before, frames[-1]], "a command")
    tree = ET.fromstring(picture)
    for source in (picture, SCRIPT.with_name("panel.svg").read_text("utf-8")):
        assert len(source) < 300_000
        tags = {one.tag.partition("}")[2] for one in ET.fromstring(source).iter()}
        assert not {"script", "image", "foreignObject"} & tags
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", source)
    texts = [one.text for one in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert sorted(texts) == sorted(["text  <names>", "1.05│", "bar", "9.05", "end", "a command"])  # the first one is in both
    (path,) = tree.iter("{http://www.w3.org/2000/svg}path")
    assert path.get("d").count("M") == 2  # ⡇ is one stroke of four dots, ⠁ is one dot
    assert picture.count('class="f"') == picture.count('class="l"') == 1


def test_samples_take_at_most_six_lines_and_no_name_is_broken():
    names = [f"{n:02}" + "x" * 14 for n in range(30)]
    lines = show_rows([row(1, sample=names)], where=console(40, 40))
    first = lines.index("samples at step 10:  00" + "x" * 14)
    assert lines[first + 1 :] == [f"{names[n]}  {names[n + 1]}" for n in range(1, 11, 2)] + [""]


def test_a_long_sample_is_wrapped_by_the_width_of_its_characters():
    lines = show_rows([row(1, sample=["日" * 30])], where=console(40, 40))
    assert lines[-4:] == ["samples at step 10:", "日" * 20, "日" * 10, ""]


def test_a_narrow_terminal_splits_no_number():
    rows = [row(n, held_out=1.5) for n in range(1, 5)]
    lines = {line.rstrip() for line in show_rows(rows, where=console(20, 40))}
    expected = {"loss 1.7500", "held out 1.5000", "(2.16 bits)", "rate 0.00125", "gradient norm 0.75", "1,500 characters/s"}
    assert expected <= lines


def test_the_panel_follows_the_terminal_size():
    where = console(80, 24)
    with Panel(where, 2000) as live:
        live.show(row(1))
        where.size = (30, 8)
        before = len(where.file.getvalue())
        live.show(row(2))
        frame = [re.sub(rf"{CONTROL}|\r", "", line) for line in where.file.getvalue()[before:].split("\n")]
    assert len(frame) <= 7
    assert max(map(len, frame)) == 30


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), SystemExit(3)])
def test_an_exception_restores_the_cursor_and_keeps_the_last_panel(error):
    where = console()
    with pytest.raises(type(error)), Panel(where, 2000) as live:  # noqa: PT012
        live.show(row(1))
        live.show(row(2))
        raise error
    output = where.file.getvalue()
    assert re.findall(r"\x1b\[\?25[lh]", output) == ["\x1b[?25l", "\x1b[?25h"]
    assert "step 20/2,000" in "\n".join(screen(output))
    assert output.removesuffix("\x1b[?25h").endswith("\n")


@pytest.mark.parametrize("error", [BrokenPipeError(32, "broken pipe"), OSError(5, "gone")])
def test_a_lost_terminal_raises_an_oserror_once(error, capfd):
    file = Tty()
    heard = []

    def write(_):
        raise error

    with Panel(panel.terminal(file), 2000) as live:
        live.show(row(1))
        file.write = write
        for method, *arguments in ((live.show, row(2)), (live.print_above, "x"), (live.start, "y", 9)):
            try:
                method(*arguments)
            except OSError as problem:
                heard.append(problem)
    assert heard == [error] * 3
    print("still here")
    assert capfd.readouterr() == ("still here\n", "")


def test_a_lost_terminal_does_not_hide_another_error():
    def write(_):
        raise OSError(5, "gone")

    file = Tty()
    with pytest.raises(KeyboardInterrupt), Panel(panel.terminal(file), 2000) as live:  # noqa: PT012
        live.show(row(1))
        file.write = write
        raise KeyboardInterrupt


def test_the_panel_starts_no_thread():
    before = threading.active_count()
    with Panel(console(), 2000) as live:
        live.show(row(1))
        assert threading.active_count() == before


def test_output_of_others_goes_above_the_panel_or_to_their_file(monkeypatch):
    out, err = Tty(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with Panel(panel.terminal(), 2000) as live:
        live.show(row(1))
        print("printed")
        print("logged", file=sys.stderr)
        live.show(row(2))
    assert (sys.stdout, sys.stderr) == (out, err)
    assert screen(out.getvalue())[0] == "printed"
    assert err.getvalue() == "logged\n"


def test_the_environment_can_switch_colours_off():
    colored = r"\x1b\[[\d;]*3\d"
    where = console()
    show_rows([row(1), row(2, held_out=2.0)], where=where)
    assert re.search(colored, where.file.getvalue())
    assert "\x1b[1;33mo" in where.file.getvalue()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_COLOR", "1")
        where = console()
        show_rows([row(1), row(2, held_out=2.0)], where=where)
    assert not re.search(colored, where.file.getvalue())


def test_a_dumb_terminal_gets_only_the_last_panel(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    where = console()
    show_rows([row(1), row(2)], where=where)
    output = where.file.getvalue()
    assert "\x1b" not in output
    assert re.findall(r"step (\d+)/", output) == ["20"]


def test_a_panel_needs_a_terminal(monkeypatch):
    assert panel.terminal(Tty()).file.isatty()
    monkeypatch.setattr(sys, "stdout", Tty())
    assert panel.terminal().file is sys.stdout
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert panel.terminal(io.StringIO()) is None
    monkeypatch.setattr(sys, "stdout", None)
    assert panel.terminal() is None
    monkeypatch.setenv("TERM", "dumb")
    assert panel.terminal(Tty()) is None


def test_rich_is_imported_late():
    loaded = "print('rich' in sys.modules)"
    code = f"import sys; from bptt.display import panel; {loaded}; panel.terminal(); {loaded}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False\nFalse\n", "")


def test_there_is_no_panel_with_several_processes(monkeypatch):
    monkeypatch.setattr(panel, "terminal", lambda: Console(file=Tty(), force_terminal=True))
    monkeypatch.setattr(panel, "Panel", lambda *_: pytest.fail("a panel"))
    monkeypatch.setenv("PMI_SIZE", "2")
    with train.live_reporter(Settings(), named=True) as tell:
        tell("words", {"event": "start", "record": {"plan": {"steps": 9}}})
