"""The flags of `bptt train`: one for each setting, in groups."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, get_type_hints

from cyclopts import Group, Parameter

from bptt.config.reference import GROUPS, settings_reference
from bptt.config.settings import Settings


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
