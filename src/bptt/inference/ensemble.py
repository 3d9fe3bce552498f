"""An ensemble: several models that predict together, by the mean of their probabilities."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bptt.data.vocabulary import Vocabulary
from bptt.errors import InputError
from bptt.inference.language_model import LanguageModel
from bptt.inference.text_model import TextModel

SHOWN = 5  # symbols that a message lists


@dataclass(frozen=True, repr=False, eq=False, init=False)
class Ensemble(TextModel):
    """Several models that predict together: the probability of a character is the mean of theirs.

    The models have the same vocabulary and mode, and are on the same device; cells, sizes, layers and floating-point types may
    differ. An ensemble of one model is that model. It cannot be saved: save its models.

    Raises:
        InputError: no models, something that is not a model, or models that cannot predict together.
    """

    models: tuple[LanguageModel, ...]  # at least one

    def __init__(self, models: Iterable[LanguageModel]) -> None:
        members = tuple(models) if isinstance(models, Iterable) else (models,)
        check(members, [f"model {number}" for number in range(1, len(members) + 1)])
        object.__setattr__(self, "models", members)
        first = members[0]
        config, params = (
            (first.config, first.params)
            if len(members) == 1
            else (tuple(member.config for member in members), tuple(member.params for member in members))
        )
        widest = max((member.backend for member in members), key=lambda backend: backend.dtype)  # "float64" > "float32"
        super().__init__(config, first.vocabulary, first.mode, params, widest)

    @property
    def _records(self) -> list[dict[str, Any]]:
        """A record for each training text."""
        records = (member.record for member in self.models)
        return list({(repr(record.get("source")), record.get("sha256")): record for record in records}.values())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy the models."""
        return Ensemble, (self.models,)

    def __repr__(self) -> str:
        """What it is, in one line."""
        layers = ", ".join(f"{one.config.cell} {one.config.layers} x {one.config.hidden}" for one in self.models)
        symbols = f"{len(self.vocabulary)} symbols ({self.mode})"
        return f"<bptt.Ensemble of {len(self.models)}: {layers}; {symbols}; {self.backend}>"


def check(models: Sequence[LanguageModel], names: Sequence[str]) -> None:
    """Raise an InputError unless the models can predict together; it calls them by `names`."""
    if not models:
        raise InputError("an ensemble of no models: expected at least one")
    for name, one in zip(names, models, strict=True):
        if not isinstance(one, LanguageModel):
            raise InputError(f"{name} of the ensemble is {type(one).__name__}, expected a LanguageModel: bptt.load reads one")
    first = models[0]
    for name, one in zip(names, models, strict=True):
        both = f"{names[0]} and {name}"
        if one.vocabulary != first.vocabulary:
            difference = _difference(first.vocabulary, one.vocabulary)
            raise InputError(f"{both} have different vocabularies ({difference}): an ensemble needs models with the same one")
        if one.mode != first.mode:
            modes = f"{first.mode} and {one.mode}"
            raise InputError(f"{both} have different modes ({modes}): an ensemble needs models with the same one")
        if (one.backend.xp, one.backend.device) != (first.backend.xp, first.backend.device):
            devices = f"{first.backend} and {one.backend}"
            raise InputError(f"{both} are on different devices ({devices}): load both with the same backend")


def _difference(one: Vocabulary, other: Vocabulary) -> str:
    """How two vocabularies differ, in words."""
    if one.symbols is None or other.symbols is None:
        return " and ".join(each.kind if each.symbols is None else f"{len(each)} characters" for each in (one, other))
    symbols = sorted(set(one.symbols) ^ set(other.symbols))
    more = f" and {len(symbols) - SHOWN} more" if len(symbols) > SHOWN else ""
    return f"{len(one)} and {len(other)} characters, only in one of them: {', '.join(map(repr, symbols[:SHOWN]))}{more}"
