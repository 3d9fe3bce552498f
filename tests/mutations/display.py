"""Mistakes in `bptt.display`."""

from mutations.mutation import Mutation

MUTATIONS = [
    Mutation(
        "the limits of the curve before",
        "display.plots._wipe",
        "        axes.autoscale()\n",
        "",
        "test_plots.py::test_a_reused_figure_gives_the_same_curve",
    ),
]
