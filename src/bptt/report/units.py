"""The units of a model that say most about a text: those that correlate with a property of it, and those that vary most."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np  # what bptt.inspect gives is on the host

from bptt.backend import HostArray
from bptt.inspect import Activations

MOST = 8  # units that are shown
WEAK = 0.3  # a correlation below this one says nothing


class Unit(NamedTuple):
    """A unit, and the reason why it is shown."""

    layer: int
    number: int
    reason: str  # what it goes with, and how much
    values: HostArray  # (T,): its activation at each step


def inside(mark: str) -> Callable[[list[str]], HostArray]:
    """Return a function that tells which characters of a list are between two marks."""
    return lambda read: np.cumsum([one == mark for one in read]) % 2


def since(marks: str) -> Callable[[list[str]], HostArray]:
    """Return a function that counts the characters since the last of the marks."""

    def count(read: list[str]) -> HostArray:
        distances, steps = np.empty(len(read)), 0
        for t, one in enumerate(read):
            steps = 0 if one in marks else steps + 1
            distances[t] = steps
        return distances

    return count


def one_of(characters: str) -> Callable[[list[str]], HostArray]:
    """Return a function that tells which characters of a list are in a set."""
    return lambda read: np.array([one in characters for one in read], np.float64)


PROPERTIES: dict[str, Callable[[list[str]], HostArray]] = {
    "the place in the line": since("\n"),
    "the place in the word": since(" \n"),
    "being inside quotation marks": inside('"'),
    "a vowel": one_of("aeiouyAEIOUY"),
    "a capital letter": lambda read: np.array([one.isupper() for one in read], np.float64),
    "a digit": lambda read: np.array([one.isdigit() for one in read], np.float64),
}


def most_informative(seen: Activations) -> list[Unit]:
    """Select units: the one that correlates best with each property, then those that vary most.

    The correlation is Pearson's, over all steps, between the activation and the property of what was read.
    """
    T, L, H = seen.a.shape
    flat = seen.a.reshape(T, L * H)
    spread = np.std(flat, axis=0)
    chosen: dict[int, str] = {}
    for name, measure in PROPERTIES.items():
        r = correlation(flat, measure(seen.inputs))
        best = int(np.argmax(np.abs(r)))
        if abs(r[best]) >= WEAK:
            before = f"{chosen[best]}; " if best in chosen else ""
            chosen[best] = f"{before}goes with {name} (r = {r[best]:.2f})"
    for place in np.argsort(-spread, kind="stable").tolist():
        if len(chosen) >= min(MOST, L * H):
            break
        chosen.setdefault(place, f"varies most (standard deviation {spread[place]:.2f})")
    return [Unit(place // H, place % H, reason, flat[:, place]) for place, reason in chosen.items()]


def correlation(columns: HostArray, other: HostArray) -> HostArray:
    """Pearson's correlation of each column of (T, N) with (T,), as (N,); 0 if one of them is constant."""
    a, b = columns - np.mean(columns, axis=0), other - np.mean(other)
    norms = np.sqrt(np.sum(a * a, axis=0) * np.sum(b * b))
    result: HostArray = np.where(norms > 0, b @ a / np.where(norms > 0, norms, 1.0), 0.0)
    return result
