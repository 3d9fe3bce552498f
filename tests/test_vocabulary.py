"""Vocabulary: ids and characters are the same thing twice; what is unknown is named."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bptt.data import vocabulary
from bptt.data.vocabulary import BYTES, NEWLINE, Vocabulary, characters
from bptt.errors import InputError

ANYTHING = st.text(st.characters(exclude_categories=()), max_size=60)  # with surrogates, NUL, emoji, combining marks
quick = settings(deadline=None, max_examples=100)


@quick
@given(ANYTHING)
@example("")
@example("a\u0301\0\n\U0001f600 \ud83d\ude00 \udc80\U0010ffff")
def test_decode_inverts_encode_and_ids_index_the_sorted_symbols(text):
    known = characters(text)
    ids = known.encode(text)
    assert known.decode(ids) == text
    assert list(known.symbols) == sorted({*text, "\n"})
    assert ids.tolist() == [known.symbols.index(c) for c in text]


@quick
@given(st.text(max_size=60), ANYTHING, st.binary(max_size=60))
def test_bytes_encode_anything_and_decode_to_utf8(text, anything, raw):
    assert BYTES.decode(BYTES.encode(text)) == text
    assert BYTES.encode(anything).tobytes() == anything.encode("utf-8", "surrogatepass")
    assert BYTES.encode(raw).tobytes() == raw
    assert BYTES.decode(BYTES.encode(raw)) == raw.decode("utf-8", "replace")


@quick
@given(ANYTHING)
def test_json_round_trip_is_exact(text):
    known = characters(text)
    assert Vocabulary.from_json(json.loads(json.dumps(known.to_json()))) == known


def test_bytes_go_through_json_as_null():
    assert json.dumps(BYTES.to_json()) == "null"
    assert Vocabulary.from_json(None) == BYTES


def test_the_start_symbol_is_the_newline_and_always_known():
    for known in (characters("abc"), characters("\t\0"), BYTES):
        assert known.decode([known.start]) == NEWLINE == "\n"
    assert (BYTES.start, len(BYTES)) == (10, 256)
    assert (characters("").start, len(characters(""))) == (0, 1)


@pytest.mark.parametrize(
    ("count", "dtype"), [(2, "uint8"), (256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "uint32")]
)
def test_ids_have_the_smallest_dtype(count, dtype):
    text = "".join(map(chr, range(0x20, 0x20 + count - 1)))  # and the newline
    known = characters(text)
    ids = known.encode(text)
    assert (len(known), ids.dtype) == (count, dtype)
    assert ids.tolist() == list(range(1, count))


def test_a_long_text_is_encoded_in_chunks(monkeypatch):
    monkeypatch.setattr(vocabulary, "_PIECE", 4)
    known = characters("abcdefghijk")
    assert known.decode(known.encode("abcdefghijk")) == "abcdefghijk"
    with pytest.raises(InputError, match="'z'"):
        known.encode("abcdefghijz")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cab\nacéb", ["'é' (U+00E9)", "line 2, column 3"]),
        ("zab", ["'z' (U+007A)", "line 1, column 1"]),
        ("\n\n\nab😀", ["'😀' (U+1F600)", "line 4, column 3"]),
        ("a\ud800b", ["'\\ud800' (U+D800)", "line 1, column 2"]),
        ("a\0\u2028", ["'\\x00' (U+0000), '\\u2028' (U+2028)", "line 1, column 2"]),
        ("zyxb", ["'z' (U+007A), 'y' (U+0079), 'x' (U+0078), first"]),
        ("ae\u0301", ["'e' (U+0065)", "(U+0301)"]),  # no normalisation
        ("".join(map(chr, range(100, 200))), ["'\xc7' (U+00C7), first"]),
        ("".join(map(chr, range(100, 203))), ["'\xc7' (U+00C7) and 3 more, first"]),
    ],
)
def test_unknown_characters_are_named_with_position_and_remedy(text, expected):
    with pytest.raises(InputError) as error:
        characters("abc").encode(text)
    message = str(error.value)
    for words in [*expected, "training text", "vocabulary='bytes'"]:
        assert words in message
    assert len(message.splitlines()) == 1


def test_the_error_for_chunks_is_that_for_the_whole_text():
    known, text = characters("abc "), "ab\ncab\n  zab\nyaz\nx"
    for size in range(1, len(text) + 1):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert known.complaint(pieces) == known.complaint([text])
    assert "'z' (U+007A), 'y' (U+0079), 'x' (U+0078), first at line 3, column 3:" in known.complaint([text])


def test_unknown_lists_each_symbol_once_in_order_of_appearance():
    assert characters("abc").unknown("zaxzby\n") == ["z", "x", "y"]
    assert BYTES.unknown("\ud800é") == []


def test_characters_do_not_encode_bytes():
    with pytest.raises(InputError, match="bytes"):
        characters("abc").encode(b"abc")


@pytest.mark.parametrize("ids", [[3], [-1], [0, 300], np.array([1, 256])])
def test_an_id_outside_the_vocabulary_is_refused(ids):
    with pytest.raises(InputError, match="expected 0 to 2"):
        characters("ab").decode(ids)
    if np.max(ids) > 255:
        with pytest.raises(InputError, match="expected 0 to 255"):
            BYTES.decode(ids)


@pytest.mark.parametrize(
    "value",
    ["\nab", {"\n": 0}, 5, [], ["a", "b"], ["\n", "b", "a"], ["\n", "a", "a"], ["\n", "ab"], ["\n", ""], ["\n", 7], [["\n"]]],
)
def test_a_damaged_vocabulary_is_refused(value):
    with pytest.raises(InputError) as error:
        Vocabulary.from_json(value)
    assert len(str(error.value).splitlines()) == 1
