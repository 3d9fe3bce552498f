"""What runs of format 1 did where their records say nothing, because the setting did not exist yet."""

from typing import Any


def complete_format_1(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a record or of a config.toml, with those that a file of format 1 does not have.

    Files of format 2 name the parametrization.
    """
    if "parametrization" in settings:
        return settings
    return {"parametrization": "standard", "weight_decay": 0.0, "average": 0.0, **settings}
