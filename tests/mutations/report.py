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
]
