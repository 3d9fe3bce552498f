"""Sampling: the characters drawn are as frequent as the model says, and the same for the same seed."""

import itertools

import numpy as np
import pytest

from bptt import backend as backends
from bptt.data.vocabulary import BYTES, characters
from bptt.inference import generate, sampling
from bptt.inference.request import GenerationRequest, StopCriteria
from bptt.inference.sampling import SamplingOptions as Choice
from bptt.nn import model, ops, tree

HERE = backends.select("numpy", "float64")
CELLS = pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
NONE = np.empty(0, np.int64)


def softmax(u):
    e = np.exp(u - u.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def generator(seed=0):
    return np.random.default_rng(seed)


def probabilities(logits, *choice):
    w = sampling.unnormalized_probabilities(np.asarray(logits), Choice(*choice))
    return w / w.sum(axis=-1, keepdims=True)


def random_model(cell="gru", vocabulary=7, layers=1, seed=3):
    config = model.Config(cell, vocabulary, 5, layers)
    rng = generator(seed)
    return config, tree.tree_map(lambda a: 2 * a + 0.5 * rng.normal(size=a.shape), model.init(config, rng))


def generated_ids(config, params, backend, prompt, choice, ending, seed=0, first=0, count=1):
    """The ids of texts, one list each, those after the end left out."""
    request = GenerationRequest(np.array(prompt), choice, ending, seed)
    numbers = generate.uniform_numbers(seed, first, count)
    steps = list(generate.generate(config, params, backend, request, numbers))
    return [[i for i in ids if i >= 0] for ids in np.array(steps).T.tolist()]


# What one character is drawn from


@pytest.mark.parametrize("choice", [(0.5,), (1.0,), (3.0,), (1.0, 3), (1.0, None, 0.8), (2.0, 4, 0.9)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_characters_are_drawn_with_their_probabilities(choice, dtype):
    logits = np.array([0.3, -1.0, 2.0, 0.0, 1.1, -4.0], dtype)
    count = 200_000
    p = probabilities(logits[None], *choice)[0]
    drawn = sampling.inverse_cdf(
        sampling.unnormalized_probabilities(np.tile(logits, (count, 1)), Choice(*choice)), generator().random(count)
    )
    counts = np.bincount(drawn, minlength=6)
    assert not counts[p == 0].any()
    chi_square = ((counts - count * p)[p > 0] ** 2 / (count * p[p > 0])).sum()
    assert chi_square < 25.7  # 5 degrees of freedom: one in ten thousand
    assert drawn.dtype.kind == "i"


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_logits_are_divided_by_the_temperature(temperature):
    logits = generator().normal(size=(4, 9))
    np.testing.assert_allclose(probabilities(logits, temperature), softmax(logits / temperature), rtol=1e-13)


def test_top_k_keeps_the_proportions_of_the_most_likely():
    logits = np.log([[0.1, 0.4, 0.2, 0.3], [0.4, 0.3, 0.2, 0.1]])
    np.testing.assert_allclose(probabilities(logits, 1.0, 2), [[0, 4 / 7, 0, 3 / 7], [4 / 7, 3 / 7, 0, 0]], rtol=1e-13)
    np.testing.assert_allclose(probabilities(logits, 1.0, 4), softmax(logits), rtol=1e-13)
    np.testing.assert_allclose(probabilities(logits, 1.0, 100), softmax(logits), rtol=1e-13)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(1e-9, [1]), (0.39, [1]), (0.41, [1, 3]), (0.69, [1, 3]), (0.71, [1, 2, 3]), (0.91, [0, 1, 2, 3]), (1.0, [0, 1, 2, 3])],
)
def test_top_p_keeps_the_fewest_whose_probability_reaches_it(top_p, kept):
    p = np.array([0.1, 0.4, 0.2, 0.3])
    expected = np.where(np.isin(np.arange(4), kept), p, 0.0)
    np.testing.assert_allclose(probabilities(np.log(p)[None], 1.0, None, top_p)[0], expected / expected.sum(), rtol=1e-13)


def test_top_p_is_reached_by_an_exactly_equal_sum():
    halves = np.log([[0.5, 0.25, 0.125, 0.125]])
    assert np.count_nonzero(probabilities(halves, 1.0, None, 0.5)) == 1
    assert np.count_nonzero(probabilities(halves, 1.0, None, 0.75)) == 2


def test_ties_are_broken_by_the_first_symbol():
    logits = np.zeros((1, 5))
    assert np.flatnonzero(probabilities(logits, 1.0, 2)).tolist() == [0, 1]
    assert np.flatnonzero(probabilities(logits, 1.0, None, 0.5)).tolist() == [0, 1, 2]
    assert np.flatnonzero(probabilities(np.array([[0.0, 1.0, 0.0, 1.0]]), 1.0, 3)).tolist() == [0, 1, 3]


def test_temperature_is_applied_before_top_k_and_top_p():
    logits = np.log([[0.4, 0.3, 0.2, 0.1]])
    hot = softmax(logits / 2)[0]  # 0.325, 0.282, 0.230, 0.163
    assert np.flatnonzero(probabilities(logits, 2.0, None, 0.65)).tolist() == [0, 1, 2]  # 0.4 + 0.3 > 0.65 without it
    assert np.flatnonzero(probabilities(logits, 2.0, 2, 0.65)).tolist() == [0, 1]
    assert np.flatnonzero(probabilities(logits, 2.0, 2, 0.5)).tolist() == [0]  # of what top_k leaves, the first is 0.535
    np.testing.assert_allclose(probabilities(logits, 2.0, 2, 1.0)[0, :2], hot[:2] / hot[:2].sum(), rtol=1e-13)


def test_each_row_has_its_own_distribution():
    logits = np.where(np.eye(5, dtype=bool)[[3, 0, 4]], 0.0, -100.0)
    for choice in (Choice(0.0), Choice(0.5), Choice(1.0), Choice(1.0, 2, 0.9)):
        assert sampling.inverse_cdf(sampling.unnormalized_probabilities(logits, choice), generator().random(3)).tolist() == [
            3,
            0,
            4,
        ]


@pytest.mark.parametrize("choice", [Choice(0.0), Choice(1e-3), Choice(1e-320), Choice(1.0, 1), Choice(1.0, None, 1e-9)])
def test_temperature_zero_takes_the_first_most_likely_character(choice):
    logits = generator().normal(size=(50, 9)).astype(np.float32)
    drawn = sampling.inverse_cdf(sampling.unnormalized_probabilities(logits, choice), generator().random(50))
    np.testing.assert_array_equal(drawn, logits.argmax(axis=1))
    if choice.temperature in (0.0, 1.0):
        assert sampling.inverse_cdf(
            sampling.unnormalized_probabilities(np.zeros((1, 4)), choice), np.array([0.99])
        ).tolist() == [0]


def test_a_high_temperature_makes_all_characters_equally_likely():
    w = sampling.unnormalized_probabilities(np.tile(generator().normal(size=8), (80_000, 1)), Choice(1e300))
    drawn = sampling.inverse_cdf(w, generator().random(80_000))
    np.testing.assert_allclose(np.bincount(drawn, minlength=8), 10_000, rtol=0.04)


@pytest.mark.parametrize("scale", [1e3, 1e30, 1e300])
def test_extreme_logits_and_uniform_numbers_are_sampled_correctly(scale):
    ends = np.array([0.0, 1.0 - 2.0**-53])
    logits = np.array([[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]]) * scale
    assert sampling.inverse_cdf(sampling.unnormalized_probabilities(logits, Choice()), ends).tolist() == [2, 2]
    assert sampling.inverse_cdf(sampling.unnormalized_probabilities(np.zeros((2, 3)), Choice()), ends).tolist() == [0, 2]
    assert sampling.inverse_cdf(np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]), ends).tolist() == [1, 1]


def test_inverse_cdf_inverts_the_distribution_function():
    logits = generator(1).normal(size=(4, 6))
    u = generator().random(4)
    expected = [int(np.searchsorted(np.cumsum(p), x)) for p, x in zip(softmax(logits), u)]
    assert sampling.inverse_cdf(sampling.unnormalized_probabilities(logits, Choice()), u).tolist() == expected


@pytest.mark.parametrize("first", [0, 1, 63, 64, 100])
@pytest.mark.parametrize("count", [1, 64, 65, 200])
def test_the_random_numbers_of_a_text_do_not_depend_on_the_others(first, count):
    whole = np.array(list(itertools.islice(generate.uniform_numbers(7, 0, 400), 3)))
    assert len(np.unique(whole)) == whole.size
    some = np.array(list(itertools.islice(generate.uniform_numbers(7, first, count), 3)))
    np.testing.assert_array_equal(some, whole[:, first : first + count])
    assert not np.isin(next(generate.uniform_numbers(8, 0, 400)), whole).any()


# Texts


@CELLS
def test_column_major_weights_have_the_same_values(lab, cell):
    _, params = random_model(cell)
    lab.close(lab.call(lambda nested: tree.tree_map(ops.column_major, nested), params), params, 1e-7)
    if lab.name == "numpy":
        assert all(W.T.flags.c_contiguous for _, W in tree.named_leaves(tree.tree_map(ops.column_major, params)))


@CELLS
@pytest.mark.parametrize("choice", [Choice(0.0), Choice(1.0, 1), Choice(1.0, None, 1e-9)])
def test_each_character_is_fed_back_and_the_state_is_carried(lab, cell, choice):
    """Greedy generation equals the whole text so far through `forward`, its most likely next character appended."""
    config, params = random_model(cell, layers=2, seed=2)
    drawn = generated_ids(config, lab.put(params), lab.backend, [2, 6, 1], choice, StopCriteria(6), count=3)
    text = [2, 6, 1]
    for _ in range(6):
        logits, _, _ = model.forward(config, params, np.array(text)[:, None])
        text.append(int(logits[-1, 0, :].argmax()))
    assert drawn == [text[3:]] * 3
    assert len(set(text[3:])) > 1


@CELLS
def test_equal_seeds_give_equal_text_on_every_backend(lab, cell):
    config, params = random_model(cell)
    how = Choice(0.9, 6, 0.95), StopCriteria(20, stop=np.array([2, 3])), 5
    expected = generated_ids(config, params, HERE, [0, 4], *how, count=70)
    got = generated_ids(config, lab.put(params), lab.backend, [0, 4], *how, count=70)
    if lab.backend.dtype == "float64":
        assert got == expected
    else:  # a number may fall between two rounded sums
        assert sum(map(list.__eq__, got, expected)) >= 69
    assert len(set(map(tuple, got))) > 60


def test_texts_of_a_batch_differ_and_a_seed_repeats_them():
    config, params = random_model()

    def texts(seed):
        return generated_ids(config, params, HERE, [0], Choice(), StopCriteria(12), seed, count=4)

    assert texts(0) == texts(0) != texts(1)
    assert len(set(map(tuple, texts(0)))) == 4


@CELLS
def test_a_text_depends_only_on_the_seed_and_its_number(cell):
    """Neither on how many are written beside it, nor on which of these have ended."""
    config, params = random_model(cell)
    how = Choice(), StopCriteria(40, boundary=0), 2
    whole = generated_ids(config, params, HERE, [0], *how, count=150)
    assert len({len(text) for text in whole}) > 10  # they end one by one
    for first, count in [(0, 1), (5, 1), (60, 10), (64, 64), (149, 1)]:
        assert generated_ids(config, params, HERE, [0], *how, first=first, count=count) == whole[first : first + count]


def test_finished_texts_are_not_computed(monkeypatch):
    config, params = random_model()
    real, sizes = model.forward, []
    monkeypatch.setattr(model, "forward", lambda c, p, x, s=None: sizes.append(x.shape[1]) or real(c, p, x, s))
    texts = generated_ids(config, params, HERE, [0, 3], Choice(), StopCriteria(1000, boundary=0), count=100)
    assert all(text[-1] == 0 and 0 not in text[:-1] for text in texts)
    longest = max(map(len, texts))
    assert len(sizes) == longest  # the prompt, for all of them at once, and a step for each but the last character
    assert sizes[0] == 1
    for t, size in enumerate(sizes[1:], 1):
        going = sum(len(text) > t for text in texts)
        assert going <= size <= max(2 * going, 1)


def test_a_long_prompt_is_read_in_windows(monkeypatch):
    config, params = random_model("lstm")
    prompt = generator().integers(0, 7, 50)
    whole = generated_ids(config, params, HERE, prompt, Choice(), StopCriteria(9), count=2)
    monkeypatch.setattr(generate, "WINDOW", 7)
    assert generated_ids(config, params, HERE, prompt, Choice(), StopCriteria(9), count=2) == whole


@pytest.mark.parametrize("stop", [[3], [1, 1], [1, 2, 1], [2, 1, 2, 1], [0, 1]])
@pytest.mark.parametrize("seed", range(4))
def test_a_text_ends_with_the_first_stop_string(stop, seed):
    config, params = random_model(vocabulary=4)
    prompt = [0, *stop[:-1]]
    free = generated_ids(config, params, HERE, prompt, Choice(3.0), StopCriteria(200), seed, count=300)
    cut = generated_ids(config, params, HERE, prompt, Choice(3.0), StopCriteria(200, stop=np.array(stop)), seed, count=300)
    n = len(stop)
    for whole, text in zip(free, cut):
        ends = [t + n for t in range(len(whole) - n + 1) if whole[t : t + n] == stop]  # not with a part in the prompt
        assert text == whole[: ends[0] if ends else 200]
    assert len({len(text) for text in cut}) > 10


def hold_back(ids, stop, boundary=None):
    return list(generate.hold_back_stop(ids, StopCriteria(99, boundary, np.array(stop, np.int64))))


def test_hold_back_keeps_the_characters_that_cannot_be_removed():
    assert hold_back([1, 2, 3], []) == [1, 2, 3]
    assert hold_back([1, 2, 0, 3], [], boundary=0) == [1, 2]
    assert hold_back([1, 2, 3], [3]) == [1, 2]
    assert hold_back([1, 1, 1, 2], [1, 1, 2]) == [1]
    assert hold_back([1, 2, 1, 2, 1, 3], [1, 2, 1, 3]) == [1, 2]
    assert hold_back([1, 2, 0], [1, 2, 3], boundary=0) == [1, 2]
    assert hold_back([1, 2], [1, 2, 3]) == [1, 2]
    assert hold_back([5, 1, 2, 3, 4], [1, 2, 3]) == [5]


def test_a_character_is_given_as_soon_as_it_is_final():
    seen = []

    def draw():
        for i in [4, 1, 1, 5, 1, 2, 6]:
            seen.append(i)
            yield i

    pieces = generate.hold_back_stop(draw(), StopCriteria(99, None, np.array([1, 2, 3])))
    assert next(pieces) == 4
    assert seen == [4]
    assert [next(pieces), len(seen)] == [1, 3]  # the second 1 may begin the stop string, the first cannot any more
    assert [next(pieces), next(pieces), len(seen)] == [1, 5, 4]
    assert list(pieces) == [1, 2, 6]


def test_bytes_are_decoded_to_whole_characters():
    text = "aé日🦖\n"
    assert list(generate.decode_ids(list(text.encode()), BYTES)) == list(text)
    assert "".join(generate.decode_ids([0xE6, 0x97, 0x41, 0xFF, 0xF0, 0x9F], BYTES)) == b"\xe6\x97A\xff\xf0\x9f".decode(
        "utf-8", "replace"
    )
    assert list(generate.decode_ids([1, 0, 2], characters("ab"))) == ["a", "\n", "b"]


@pytest.mark.parametrize("vocabulary", [characters("abcdef"), BYTES])
@pytest.mark.parametrize("stop", ["", "ab", "é"])
def test_streaming_gives_the_same_text(vocabulary, stop):
    config, params = random_model(vocabulary=len(vocabulary))
    if not vocabulary.unknown(stop):
        ending = StopCriteria(400, None, vocabulary.encode(stop))
        task = GenerationRequest(np.concatenate([[vocabulary.start], vocabulary.encode("abc")]), Choice(), ending, 3)
        pieces = list(generate.stream_text(config, params, HERE, vocabulary, task))
        samples = generate.generate_texts(config, params, HERE, vocabulary, task, range(1))
        assert ["".join(pieces)] == [sample.text for sample in samples]
        assert pieces[0] == "abc"
        assert {len(piece) for piece in pieces[1:]} <= {1, 2}  # two where bytes are no character, and the next one is


@CELLS
def test_next_symbols_are_the_softmax_of_the_logits(lab, cell):
    vocabulary = characters("abcdef")
    config, params = random_model(cell)
    ids = np.array([vocabulary.start, 3, 1])
    got = generate.next_symbols(config, lab.put(params), lab.backend, vocabulary, ids, 0.7)
    logits, _, _ = model.forward(config, params, ids[:, None])
    expected = dict(zip(vocabulary.symbols, softmax(logits[-1, 0] / 0.7).tolist()))
    assert dict(got) == pytest.approx(expected, rel=10 * lab.tolerance)
    assert sum(p for _, p in got) == pytest.approx(1, abs=1e-12)
    assert [p for _, p in got] == sorted((p for _, p in got), reverse=True)
    greedy = generate.next_symbols(config, lab.put(params), lab.backend, vocabulary, ids, 0.0)
    assert greedy[0] == (got[0][0], 1.0)
    assert {p for _, p in greedy[1:]} == {0.0}


def test_symbol_names_name_characters_and_bytes():
    assert generate.symbol_names(characters("ab")) == ["\n", "a", "b"]
    assert [generate.symbol_names(BYTES)[i] for i in (10, 65, 0xE9)] == ["\n", "A", "\\xe9"]


def test_texts_of_different_seeds_share_no_random_numbers():
    """A list of numbers as a seed is read in words of 32 bits: [2**32 + 5, 0] was [5, 1], the seed of the texts from 64 on."""
    one, other = (next(generate.uniform_numbers(seed, first, 64)) for seed, first in ((2**32 + 5, 0), (5, 64)))
    assert not np.isin(one, other).any()


def test_sixty_four_texts_share_a_generator():
    """The random numbers of a text must not change from version to version."""
    block = np.random.default_rng(np.random.SeedSequence(7, spawn_key=(1,))).random((2, 64))
    numbers = generate.uniform_numbers(7, 60, 70)
    for row in block:
        u = next(numbers)
        assert u[4:68].tolist() == row.tolist()
        assert not np.isin(u[:4], block).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_random_number_that_is_rounded_to_one_gives_a_symbol(dtype):
    """As float32, some numbers below 1 are 1; nor may a symbol without weight be chosen."""
    w = generator().random((500, 9)).astype(dtype)
    w[::2, 6:] = 0.0
    ids = sampling.inverse_cdf(w, np.full(500, 1 - 2.0**-53).astype(dtype))
    np.testing.assert_array_equal(ids, np.where(np.arange(500) % 2, 8, 5))


def test_of_equally_likely_symbols_the_first_are_kept():
    """Three logits, each of about 300 symbols, of which the first 30 of the highest stay."""
    logits = generator().integers(0, 3, (2, 1000)).astype(float)
    w = sampling.unnormalized_probabilities(logits, Choice(1.0, 30))
    for row, kept in zip(logits, w):
        assert np.flatnonzero(kept).tolist() == np.flatnonzero(row == 2)[:30].tolist()
