"""Mistakes in `bptt.display`."""

from mutations.mutation import Mutation

MUTATIONS = [
    Mutation(
        "HTML that is not escaped",
        "display.html.escape",
        "html.escape(printable(str(text), allowed))",
        "printable(str(text), allowed)",
        "test_history.py::test_what_a_file_says_is_escaped",
    ),
    Mutation(
        "control characters in HTML",
        "display.html.escape",
        "printable(str(text), allowed)",
        "str(text)",
        "test_history.py::test_what_a_file_says_is_escaped",
    ),
    Mutation(
        "the last point of a long line left out",
        "display.html._points",
        "[*points[:-1:every], points[-1]]",
        "points[::every]",
        "test_history.py::test_chart_of_a_long_run_is_short",
    ),
    Mutation(
        "IPython in a terminal taken for a notebook",
        "display.notebook.in_notebook",
        'getattr(shell, "kernel", None) is not None',
        "shell is not None",
        "test_notebook.py::test_ipython_in_a_terminal_is_no_notebook",
    ),
    Mutation(
        "an output for each drawing",
        "display.notebook.ProgressDisplay._draw",
        "if self._handle is None:",
        "if True:",
        "test_notebook.py::test_run_in_a_notebook_has_one_output_that_is_updated",
    ),
    Mutation(
        "the limits of the curve before",
        "display.plots._wipe",
        "        axes.autoscale()\n",
        "",
        "test_plots.py::test_a_reused_figure_gives_the_same_curve",
    ),
    Mutation(
        "panel: the time left from the mean of all steps",
        "display.panel._numbers",
        "history[-RECENT - 1] if len(history) > RECENT else ",
        "",
        "test_panel.py::test_the_time_left_follows_the_speed_of_the_last_rows",
    ),
    Mutation(
        "panel: progress between two rows is a point of the curve",
        "display.panel.Panel.show",
        "        if log:\n            self._history.append(row)",
        "        self._history.append(row)",
        "test_panel.py::test_progress_between_two_rows_is_no_point_of_the_curve",
    ),
    Mutation(
        "panel: the spinner goes on in the run",
        "display.panel.Panel._stop_waiting",
        "self._spinner.stop()",
        "pass",
        "test_panel.py::test_a_spinner_turns_while_the_run_waits",
    ),
    Mutation(
        "text chart: the axis holds the first losses, too",
        "display.plots._after_start",
        "len(steps) > FEW",
        "False",
        "test_plots.py::test_the_axis_leaves_out_the_losses_of_the_first_tenth",
    ),
    Mutation(
        "curve: the legend in the panel",
        "display.plots",
        '"loc": "lower left"',
        '"loc": "upper left"',
        "test_plots.py::test_a_legend_lies_on_no_curve_and_in_the_picture",
    ),
    Mutation(
        "curve: the axis holds the first losses, too",
        "display.plots._loss_limits",
        '_after_start(row["step"], steps)',
        "True",
        "test_plots.py::test_the_axis_of_the_losses_leaves_out_the_first_tenth",
    ),
    Mutation(
        "table: rows are cut off on a narrow terminal",
        "display.table.lay_out",
        "return [line for row in rows for line in _block(heads, row, width)]",
        'return [(" " * GAP).join(row)[:width] for row in (heads, *rows)]',
        "test_runs.py::test_the_table_is_readable_on_a_narrow_terminal",
    ),
    Mutation(
        "nats explained by bits in place of the perplexity",
        "display.cross_entropy.in_words",
        "math.exp(min(700.0, nats))",
        "bits(nats)",
        "test_messages.py::test_the_final_message_explains_the_nats",
    ),
]
