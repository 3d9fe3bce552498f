"""Settings of a run: flags and their ranges, defaults by the size of the text, TOML files."""
