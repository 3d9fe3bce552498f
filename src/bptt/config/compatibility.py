"""Settings of runs from earlier versions: what those did without a setting that did not exist yet."""

from collections.abc import Mapping
from typing import Any


def complete_format_1(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run with those that its version did not have, as that version behaved.

    `settings` are those of a record in a checkpoint of format 1, or of a config.toml that a run wrote; what they hold is
    kept. Today's runs write every setting, so the defaults of today play no part in this.
    """
    earlier = {
        "split_seed": settings.get("seed", 0),  # one seed drew the split, too
        "parametrization": "standard",
        "weight_decay": 0.0,
        "average": 0.0,
        "duplicates": "independent",
    }
    return {**earlier, **settings}
