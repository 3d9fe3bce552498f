"""Names that the package still has and should lose, by module (test_names.py). These lists may only shrink."""

STILL_DEFINED: dict[str, str] = {}
STILL_IN_CUDA: dict[str, str] = {}
STILL_VAGUE: dict[str, str] = {}
