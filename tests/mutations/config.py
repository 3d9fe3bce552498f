"""Mistakes in the settings and the defaults."""

from mutations.mutation import Mutation

MUTATIONS = [
    Mutation(
        "the options of another optimizer kept",
        "config.toml.read_beneath",
        "(*lengths, *cell, *lacking)",
        "(*lengths, *cell)",
        "test_toml.py::test_an_optimizer_replaces_the_options_that_it_lacks",
    ),
    Mutation(
        "texts of a TOML file beside the current folder",
        "config.toml._texts",
        "folder=folder",
        "folder=''",
        "test_toml.py::test_files_are_looked_for_beside_the_toml_file",
    ),
    Mutation(
        "defaults that jump from one size of text to the next",
        "config.defaults.preset_for",
        "a + share * (b - a)",
        "a",
        "test_settings.py::test_presets_are_interpolated_without_jumps",
    ),
    Mutation(
        "as much dropout for a few units as for many",
        "config.defaults.resolve",
        "preset.dropout * hidden / preset.hidden",
        "preset.dropout",
        "test_settings.py::test_the_default_dropout_is_in_proportion_to_the_units",
    ),
    Mutation(
        "an average as long as the run",
        "config.defaults.default_average",
        "AVERAGED * steps",
        "steps",
        "test_settings.py::test_the_default_average_is_a_tenth_of_the_run_long",
    ),
    Mutation(
        "a budget that goes into units alone",
        "config.defaults.budget_hidden",
        "fitting**GROWTH",
        "fitting",
        "test_budget.py::test_units_grow_with_a_root_of_the_time",
    ),
    Mutation(
        "a budget that is used up by any text",
        "config.defaults.budget_steps",
        "min(seconds, MOST_TIME * preset_seconds)",
        "seconds",
        "test_budget.py::test_a_short_text_does_not_use_unlimited_time",
    ),
    Mutation(
        "a budget that steps are given beside",
        "config.settings",
        '("steps", "epochs", "budget")',
        '("steps", "epochs")',
        "test_budget.py::test_steps_or_epochs_beside_a_budget_are_refused",
    ),
    Mutation(
        "weight decay that an optimizer ignores",
        "config.settings.refuse_contradictions",
        'if value and value != "standard" and needed not in',
        "if False and needed not in",
        "test_settings.py::test_settings_of_adam_are_refused_with_other_optimizers",
    ),
]
