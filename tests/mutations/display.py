"""Mistakes in `bptt.display`."""

from mutations.mutation import Mutation

MUTATIONS = [
    Mutation(
        "the limits of the curve before",
        "display.plots._wipe",
        "        axes.autoscale()\n",
        "",
        "test_plots.py::test_a_curve_is_the_same_on_the_figure",
    ),
]
