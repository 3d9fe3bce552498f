"""Tables and wrapped lines for terminals of any width, and a cross-entropy in words."""

import math

import pytest

from bptt.display import cross_entropy, table

HEADS = ("run", "nats", "state")
ROWS = [("日本", "1.5", "finished"), ("long-name", "12.25", "")]


def test_columns_are_aligned_by_the_width_of_characters():
    assert table.lay_out(HEADS, ROWS, "lrl", 80) == [
        "run         nats  state",
        "日本         1.5  finished",
        "long-name  12.25",
    ]
    assert table.lay_out(HEADS, [], "lrl", 80) == ["run  nats  state"]


def test_a_row_that_does_not_fit_becomes_a_block():
    widest = max(map(table.cells, table.lay_out(HEADS, ROWS, "lrl", 80)))
    assert len(table.lay_out(HEADS, ROWS, "lrl", widest)) == 3
    assert table.lay_out(HEADS, ROWS, "lrl", widest - 1) == [
        "日本",
        "  nats 1.5",
        "  state finished",
        "long-name",
        "  nats 12.25",
    ]
    assert table.lay_out(HEADS, ROWS[:1], "lrl", 8) == ["日本", "  nats 1.5", "  state finished"]


def test_long_words_are_not_broken():
    assert table.wrap("a path/that-is/longer/than/a/line b", 8) == ["a", "  path/that-is/longer/than/a/line", "  b"]
    assert table.wrap("one two", 1) == ["one", "  two"]


def test_a_pipe_has_any_width(monkeypatch):
    assert table.columns() == table.UNLIMITED
    monkeypatch.setenv("COLUMNS", "40")
    assert table.columns() == 40


@pytest.mark.parametrize(
    ("nats", "words"),
    [(0.0, "1.0 equally"), (math.log(5.25), "5.2 equally"), (math.log(1234.5), "1,234.5 equally"), (1e9, "1.01e+304 equally")],
)
def test_nats_in_words_are_the_perplexity(nats, words):
    assert cross_entropy.in_words(nats, "bytes") == f"as unsure as among {words} likely bytes"
    assert cross_entropy.nats_and_bits(math.log(2)) == "0.6931 nats (1.0000 bits)"
