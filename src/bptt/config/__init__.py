"""Settings of a run: flags and their ranges, default hyperparameters by the size of the text, TOML files."""
