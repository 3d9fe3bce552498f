"""Record `bptt train` on a terminal as an animated picture.

    python docs/make_panel.py docs/panel.svg

The picture is one SVG file without scripts and fonts, whose frames CSS shows in turn. It needs Linux or macOS.
"""

import fcntl
import html
import itertools
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich.ansi import AnsiDecoder
from rich.style import Style
from rich.text import Text

COLUMNS, LINES = 80, 26  # of the terminal
FRAMES, FRAME_SECONDS, LAST_SECONDS = 48, 0.22, 5.0
CELL_WIDTH, CELL_HEIGHT, SIZE, MARGIN, TITLE_BAR = 8.4, 18, 14, 14, 26
PAPER, INK, FAINT = "#16181c", "#e3e5e8", "#a3a8b0"
COLOURS = {2: "#3ecf9b", 3: "#f0b429", 6: "#56b4e9"}  # green, yellow and cyan of a terminal
DOTS = [0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]  # of a braille character: two columns from top to bottom

PIECES = r"[\u2800-\u28ff]+(?: *[\u2800-\u28ff]+)*|█+|░+|[^\s\u2800-\u28ff█░]+(?: +[^\s\u2800-\u28ff█░]+)*"  # dots, bars, words
REDRAWN = b"\r\x1b[2K"  # what a drawing of the panel begins with

Screen = list[Text]  # lines with their colours


def record(command: list[str]) -> list[tuple[float, Screen]]:
    """Run a command on a terminal; return what the terminal shows after each piece of output, with the time in seconds."""
    main, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(LINES)}
    process = subprocess.Popen(command, stdin=secondary, stdout=secondary, stderr=secondary, env=environment)
    os.close(secondary)
    began, output, screens = time.monotonic(), b"", []
    while True:
        try:
            output += os.read(main, 65536)
        except OSError:  # the end of a terminal on Linux
            break
        complete = output[: max(0, output.rfind(REDRAWN))]  # the panel as it was before it is drawn again
        screens.append((time.monotonic() - began, shown(complete.decode())))
    screens.append((time.monotonic() - began, shown(output.decode())))
    if process.wait():
        raise SystemExit(f"{' '.join(command)} failed: {screens[-1][1][-3:]}")
    return [(second, screen) for second, screen in screens if any(screen)]


def shown(output: str) -> Screen:
    """The last lines that a terminal shows after this output."""
    lines, at = [""], 0
    for token in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", output):
        if token == "\n":
            at += 1
            lines += [""] * (at == len(lines))
        elif token == "\x1b[1A":
            at -= 1
        elif token == "\x1b[2K":
            lines[at] = ""
        elif token != "\r" and (token[0] != "\x1b" or token[-1] == "m"):
            lines[at] += token
    texts = [AnsiDecoder().decode_line(line) for line in lines]
    wrapped = [text[first : first + COLUMNS] for text in texts for first in range(0, max(1, len(text)), COLUMNS)]
    return wrapped[-LINES:]


def chosen(screens: list[tuple[float, Screen]]) -> list[Screen]:
    """Choose frames at equal times, and the last one."""
    began, end = screens[0][0], screens[-1][0]
    times = [began + (end - began) * n / FRAMES for n in range(FRAMES)]
    frames = [next(screen for second, screen in reversed(screens) if second <= time) for time in times]
    return [*frames, screens[-1][1]]


def drawn_text(line: Text, y: float) -> str:
    """A line as SVG: letters as text of a fixed width, dots and bars as shapes, which look alike with every font."""
    parts = []
    for start, end, colour in colours(line):
        for run in re.finditer(PIECES, line.plain[start:end]):
            x, width = MARGIN + CELL_WIDTH * (start + run.start()), CELL_WIDTH * len(run[0])
            if run[0][0] in "█░":
                opacity = "" if run[0][0] == "█" else ' opacity=".3"'
                parts.append(f'<rect x="{x:.1f}" y="{y + 4:g}" width="{width:.1f}" height="10" fill="{colour}"{opacity}/>')
            elif run[0][0] >= "\u2800":
                parts.append(f'<path d="{dots(run[0], x, y)}" stroke="{colour}"/>')
            else:
                fill = "" if colour == INK else f' fill="{colour}"'
                text = html.escape(run[0])
                parts.append(f'<text x="{x:.1f}" y="{y + 13.5:g}" textLength="{width:.1f}"{fill}>{text}</text>')
    return "".join(parts)


def colours(line: Text) -> Iterator[tuple[int, int, str]]:
    """The parts of a line that have one colour each: start, end, colour."""
    shades = [INK] * len(line)
    for start, end, style in line.spans:
        if isinstance(style, Style) and style.color is not None:
            shades[start:end] = [COLOURS.get(style.color.number or 0, INK)] * (end - start)
        elif isinstance(style, Style) and style.dim:
            shades[start:end] = [FAINT] * (end - start)
    for shade, group in itertools.groupby(range(len(line)), lambda n: shades[n]):
        places = list(group)
        yield places[0], places[-1] + 1, shade


def dots(characters: str, x: float, y: float) -> str:
    """The dots of braille characters as a path of vertical strokes."""
    path = []
    for n, character in enumerate(characters):
        code = ord(character) - 0x2800 if character != " " else 0
        for side, bits in enumerate(DOTS):
            column = [bool(code & bit) for bit in bits]
            for first in range(4):
                if column[first] and (first == 0 or not column[first - 1]):
                    length = next((k for k in range(first, 4) if not column[k]), 4) - first
                    across = x + CELL_WIDTH * (n + side / 2 + 0.25)
                    path.append(f"M{across:.1f} {y + 4.5 * first:g}v{4.5 * length:g}")
    return "".join(path)


def picture(frames: list[Screen], command: str) -> str:
    """The animation as SVG; without animation, or with reduced motion, the last frame stands still."""
    width, height = 2 * MARGIN + CELL_WIDTH * COLUMNS, TITLE_BAR + MARGIN + CELL_HEIGHT * LINES
    total = (len(frames) - 1) * FRAME_SECONDS + LAST_SECONDS
    drawings = [[drawn_text(line, TITLE_BAR + CELL_HEIGHT * n) for n, line in enumerate(frame)] for frame in frames]
    counts = Counter(itertools.chain.from_iterable(drawings))
    names = {line: f"r{n}" for n, line in enumerate(line for line, count in counts.items() if line and count > 1)}
    shared = [f'<g id="{name}">{line}</g>' for line, name in names.items()]
    groups = []
    for number, drawing in enumerate(drawings):
        lines = [f'<use href="#{names[line]}"/>' if line in names else line for line in drawing]
        kind = "l" if number == len(frames) - 1 else "f"
        delay = number * FRAME_SECONDS - total  # negative: every frame is in its place from the beginning
        groups.append(f'<g class="{kind}" style="animation-delay:{delay:.2f}s">{"".join(lines)}</g>')
    fonts = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">
<title>{html.escape(command)}: the live panel of a training run</title>
<style>
text{{font:{SIZE}px {fonts};white-space:pre}}
path{{fill:none;stroke-width:3}}
.f,.l{{animation:f {total:.2f}s step-end infinite}}
.f{{visibility:hidden}}
.l{{animation-name:l}}
@keyframes f{{0%{{visibility:visible}}{100 * FRAME_SECONDS / total:.3f}%,to{{visibility:hidden}}}}
@keyframes l{{0%{{visibility:visible}}{100 * LAST_SECONDS / total:.3f}%,to{{visibility:hidden}}}}
@media (prefers-reduced-motion:reduce){{.f,.l{{animation:none}}}}
</style>
<rect width="100%" height="100%" rx="8" fill="{PAPER}" stroke="#8886"/>
<defs fill="{INK}">{"".join(shared)}</defs>
<g fill="{INK}">
<text x="{width / 2:g}" y="17" text-anchor="middle" fill="{FAINT}">{html.escape(command)}</text>
{chr(10).join(groups)}
</g>
</svg>
"""


def main() -> None:
    """Train in a temporary folder and write the picture."""
    target = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        screens = record([sys.executable, "-m", "bptt", "train"])
    target.write_text(picture(chosen(screens), "bptt train"), "utf-8")


if __name__ == "__main__":
    main()
