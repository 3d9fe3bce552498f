"""Mistakes in `bptt.cli`."""

from mutations.mutation import Mutation

MUTATIONS = [
    Mutation(
        "configuration: the text that a file names is forgotten",
        "cli.train.train",
        'text = explicit.get("text") if text is None else text',
        "text = text",
        "test_toml.py::test_a_configuration_file_is_read_once",
    ),
    Mutation(
        "panel: among several processes",
        "cli.train.live_reporter",
        " or launched_processes() > 1",
        "",
        "test_panel.py::test_there_is_no_panel_with_several_processes",
    ),
]
