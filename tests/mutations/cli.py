"""Mistakes in `bptt.cli`."""

from mutations.mutation import Mutation

MUTATIONS = [
    Mutation(
        "warnings of NumPy are printed",
        "cli.main",
        'warnings.simplefilter("ignore", RuntimeWarning)',
        "pass",
        "test_untrusted_files.py::test_results_that_are_not_finite_are_an_error",
    ),
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
        "printable(line)",
        "line",
        "test_cli.py::test_no_name_reaches_the_terminal_as_a_command",
    ),
    Mutation(
        "a pipe gets the encoding of the locale",
        "cli.main",
        'None if stream.isatty() else "utf-8"',
        "None",
        "test_cli_inference.py::test_output_is_utf8_in_the_locale_c",
    ),
    Mutation(
        "a message without standard error reaches standard output",
        "cli.console.complain",
        "sys.stderr.write(f",
        "(sys.stderr or sys.stdout).write(f",
        "test_cli.py::test_without_standard_error_a_message_does_not_reach_standard_output",
    ),
    Mutation(
        "parser: what follows -- is a misspelt flag",
        "cli.parser._refuse_flags",
        "token.value in no_flags(words) if",
        "False if",
        "test_cli.py::test_two_hyphens_end_the_flags",
    ),
    Mutation(
        "parser: what follows the = of a flag is a misspelt flag",
        "cli.parser._refuse_flags",
        'f"{token.keyword}={token.value}" in words',
        "False",
        "test_cli.py::test_a_value_that_looks_like_a_flag_needs_an_equals_sign and evaluate",
    ),
    Mutation(
        "parser: ~/ in a prompt is the home folder",
        "cli.parser",
        "Prompt = Annotated[str, Parameter(allow_leading_hyphen=True)]",
        "Prompt = Annotated[str, Parameter(allow_leading_hyphen=True, converter=converted_path)]",
        "test_cli.py::test_only_quoted_paths_are_looked_for_at_home",
    ),
    Mutation(
        "parser: a configuration file is not in the home folder",
        "cli.parser._read_file",
        'expand_home(typed["config"])',
        'typed["config"]',
        "test_cli.py::test_a_path_after_an_equals_sign_may_lie_in_the_home_folder",
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
    Mutation(
        "the help is laid out for a terminal of one column",
        "cli.help.layout",
        "min(max(shutil.get_terminal_size().columns, 20), 1000)",
        "max(shutil.get_terminal_size().columns, 1)",
        "test_cli.py::test_the_help_is_readable_on_any_terminal and 99999999",
    ),
    Mutation(
        "the name of a file that is not UTF-8 is printed with a question mark",
        "cli.main",
        'errors="bptt"',
        'errors="replace"',
        "test_cli.py::test_the_name_of_a_file_is_printed_in_the_bytes_that_it_has",
    ),
]
