"""Mistakes in `bptt.report`."""

from mutations.mutation import Mutation

MUTATIONS = [
    Mutation(
        "the probabilities of symbols that are not shown are kept",
        "report.page._seen",
        "text, STRIP - sum(len(part.p) for part in parts)",
        "text",
        "test_report.py::test_units_are_coloured_by_their_activations",
    ),
    Mutation(
        "report: units coloured one character off",
        "report.page._page",
        "unit.values[1:]",
        "unit.values[:-1]",
        "test_report.py::test_units_are_coloured_by_their_activations",
    ),
    Mutation(
        "compare: runs with other held-out lines compare",
        "report.comparison._held_out_set",
        '("split_seed", "duplicates")',
        "()",
        "test_compare.py::test_other_held_out_sets_are_warned_of_in_a_line",
    ),
    Mutation(
        "compare: the text of a run matters beside a validation file",
        "report.comparison._held_out_set",
        "if isinstance(file, dict):",
        "if False:",
        "test_compare.py::test_one_validation_file_makes_runs_of_two_texts_comparable",
    ),
    Mutation(
        "compare: a curve is drawn beyond its last measurement",
        "report.comparison.chart",
        " & (places <= values[-1] + half)",
        "",
        "test_compare.py::test_a_chart_draws_each_curve_in_its_letter",
    ),
    Mutation(
        "compare: curves that meet hide each other",
        "report.comparison.chart",
        'curve.label if cells[rows[j]][j] == " " else MEETING',
        "curve.label",
        "test_compare.py::test_a_chart_draws_each_curve_in_its_letter",
    ),
    Mutation(
        "compare: a dollar in a name begins a formula",
        "report.comparison._draw",
        '.replace("$", r"\\$")',
        "",
        "test_compare.py::test_a_picture_shows_the_curves",
    ),
    Mutation(
        "compare: settings of a forged record are printed as they are",
        "report.comparison._shown",
        "printable(str(value))",
        "str(value)",
        "test_compare.py::test_forged_records_do_no_harm",
    ),
    Mutation(
        "report: ids of one picture in another",
        "report.figures.svgs",
        'f"{name}{number}"',
        "name",
        "test_figures.py::test_names_in_a_picture_are_used_and_its_own",
    ),
    Mutation(
        "report: colours too strong for the text on them in the dark",
        "report/page.html",
        "format(0.5 * level / levels)",
        "format(0.75 * level / levels)",
        "test_report.py::test_text_has_enough_contrast_in_light_and_dark",
    ),
    Mutation(
        "report: the checksum of the decoded text as that of the file",
        "report.card._checksum",
        "len(sums) == 1",
        "False",
        "test_report.py::test_the_card_says_how_to_repeat_the_run",
    ),
    Mutation(
        "report: the place of the program in a command",
        "report.card._command",
        '"bptt" if program == "__main__.py" else program',
        "words[0]",
        "test_report.py::test_a_command_is_shown_as_it_is_typed",
    ),
]
