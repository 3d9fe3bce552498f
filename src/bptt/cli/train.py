"""The command `bptt train`, with a flag for each setting."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from cyclopts import Group, Parameter

from bptt.checkpoint import run_folder
from bptt.cli.console import complain, input_waits, print_line
from bptt.cli.parser import RUNS, Text
from bptt.config.reference import GROUPS, settings_reference
from bptt.config.settings import Settings, validate
from bptt.data.source import Names
from bptt.display import panel
from bptt.distributed.launcher import launched_processes
from bptt.errors import InputError
from bptt.inference.language_model import LanguageModel
from bptt.training import launch, messages, trainer
from bptt.training.dry_run import report_plan
from bptt.training.signals import TERMINATION, exit_code
from bptt.training.state import Reporter


def in_group(name: str) -> Parameter:
    """Put a flag into a group of the help."""
    return Parameter(group=Group(name, sort_key=list(GROUPS).index(name)))


if TYPE_CHECKING:
    Flags = Settings
else:
    hints = get_type_hints(Settings)
    Flags = dataclasses.make_dataclass(  # Settings in the order of the help, with what cyclopts takes from annotations
        "Flags",
        [
            (
                each.setting,
                Annotated[
                    hints[each.setting],
                    in_group(each.group),
                    Parameter(help=each.description, metavar=each.type, show_choices=len(each.choices) > 1),
                ],
                dataclasses.field(default=each.default),
            )
            for each in settings_reference()
        ],
        namespace={"__module__": __name__},  # of types itself, cyclopts would not look into it
        frozen=True,
    )


def train(  # noqa: D417  # explicit is not for people
    *text: Text,
    resume: Annotated[Path | None, in_group("Training")] = None,
    dry_run: Annotated[bool, in_group("Output")] = False,
    flags: Annotated[Flags, Parameter(name="*")] = Flags(),
    config: Annotated[Path | None, in_group("Advanced")] = None,  # which `parser.parse` reads
    changed_text: Annotated[bool, in_group("Advanced")] = False,
    explicit: Annotated[dict[str, Any], Parameter(parse=False)],  # from `parser.parse`, as the next one
    began: Annotated[float | None, Parameter(parse=False)],
) -> int:
    """Train a model on a text, or resume a run.

    Settings that you leave out are chosen to suit the text. They can also stand in a TOML file, see --config. On the command
    line, choices can be typed in any case (GRU), and whole numbers as 10000, 10_000 or 1e4.

    Parameters
    ----------
    text
        Files, folders, patterns such as '*.txt', - for standard input, or a built-in text: dinosaurs (the default) or
        python-help.
    resume
        Run folder to resume exactly as if it had never stopped, or one checkpoint to continue in a new run.
    dry_run
        Print the settings, memory and time of the run that these flags make. Nothing is trained or saved.
    config
        TOML file with settings; flags take precedence over it. By default bptt.toml, if the current folder has one.
    changed_text
        With --resume: continue even if the text or the validation file is no longer the same.
    flags
        One for each setting.
    """
    with launch.fail_on_all(alone=flags.distributed is False):
        settings = validate(Settings(**vars(flags)))
        if changed_text and resume is None:
            raise InputError("--changed-text is for --resume: give both, or neither")
        if dry_run and resume is not None:
            raise InputError("--dry-run is for a new run: leave out --resume")
        named = explicit.get("text") if not text else text[0] if len(text) == 1 else Names(text)
        if resume is not None:
            return _resume(named, settings, resume, explicit, changed_text=changed_text)
        if named is None and input_waits():
            complain("standard input is not read: give - to train on it, as in: bptt train - < TEXT")
        return _train("dinosaurs" if named is None else named, settings, began, dry_run=dry_run)


def _train(text: Any, settings: Settings, began: float | None, *, dry_run: bool) -> int:
    """Train a new run, or say what it would do."""
    if dry_run:
        report_plan(text, settings, messages.make_reporter(dataclasses.replace(settings, quiet=False), print_line), began)
        return 0
    with live_reporter(settings, named=settings.out is not None) as report:
        return code(trainer.start(text, settings, report, began=began, runs=RUNS, caught=TERMINATION))


def _resume(text: Any, settings: Settings, place: Path, explicit: dict[str, Any], *, changed_text: bool) -> int:
    """Resume a run; `explicit` names the settings that are not defaults."""
    with live_reporter(settings, named=settings.out is not None or run_folder.is_run(place)) as report:
        changes = {name: value for name, value in vars(settings).items() if name in explicit}
        return code(trainer.resume_run(place, text, changes, report, changed_text=changed_text, runs=RUNS, caught=TERMINATION))


@contextlib.contextmanager
def live_reporter(settings: Settings, *, named: bool) -> Iterator[Reporter]:
    """Provide the reporter of a run: a live panel in a terminal, else lines or JSON; `named` is as in `make_reporter`."""
    # a launcher of several processes mixes what they write, and may give each a terminal that nobody sees
    console = None if settings.quiet or settings.json or launched_processes() > 1 else panel.terminal()
    if console is None:
        yield messages.make_reporter(settings, print_line, named=named)
        return
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(panel.Panel(console))

        def report(words: str, row: dict[str, Any]) -> None:
            event = row.get("event")
            if event in ("start", "resume"):
                live.start(words, row["record"]["plan"]["steps"])
                for earlier in row.get("history", ()):
                    live.show(earlier)
            elif event == "compile":
                live.wait(words)
            elif event in ("log", "measurement", "progress"):
                live.show(row, log=event != "progress")
            elif event == "end":
                stack.close()
                print_line(words)

        yield report


def code(trained: LanguageModel) -> int:
    """Return the exit code of a run."""
    ended = trained.record["ended"]
    if "unsaved" in trained.record:
        return 5
    if ended == "diverged":
        return 3
    return exit_code(ended) if ended.startswith("SIG") else 0
