"""Mistakes in `bptt.cli`."""

from mutations.mutation import Mutation

MUTATIONS = [
    Mutation(
        "control characters printed to a terminal",
        "cli.console.print_line",
        "sys.stdout and sys.stdout.isatty()",
        "False",
        "test_cli_inference.py::test_control_characters_are_printed_to_files_but_not_to_terminals",
    ),
    Mutation(
        "control characters in an error",
        "cli.console.complain",
        "printable(' '.join(line.split()))",
        "' '.join(line.split())",
        "test_cli.py::test_no_name_reaches_the_terminal_as_a_command",
    ),
    Mutation(
        "configuration: the text that a file names is forgotten",
        "cli.train.train",
        'explicit.get("text") if not text else',
        "None if not text else",
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
