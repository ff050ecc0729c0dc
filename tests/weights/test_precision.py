"""Which precision each matrix gets, from a word and from names and patterns."""

import pytest

import lstm_fastkernels as lfk
from lstm_fastkernels.weights.precision import PrecisionConfig, describe, word_for
from lstm_fastkernels.weights.shape import LstmShape

SHAPE = LstmShape(9, 31, proj_size=13, num_layers=2, num_directions=2)
WORDS = ("int8", "int16", "mixed")
ALL = ("int8", "int16", "float32")


def precision(activations=None, shape=SHAPE, **named):
    return PrecisionConfig(activations, named).of(shape, WORDS, ALL)


@pytest.mark.parametrize("word", ["int8", "int16"])
def test_one_word_for_all(word):
    assert precision(word) == dict.fromkeys(SHAPE.matrices, word)


def test_the_first_word_is_the_default():
    assert precision() == precision("int8")


def test_mixed_is_16_bits_for_the_input_of_the_first_layer():
    found = precision("mixed")
    assert list(found) == list(SHAPE.matrices)
    wide = {name for name, value in found.items() if value == "int16"}
    assert wide == {"weight_ih_l0", "weight_ih_l0_reverse"}
    assert set(found.values()) == {"int16", "int8"}


def test_mixed_is_about_the_first_of_many_layers():
    found = precision("mixed", LstmShape(3, 5, num_layers=12))
    assert [name for name, value in found.items() if value == "int16"] == ["weight_ih_l0"]


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("weight_hh_l1", lambda name: name == "weight_hh_l1"),
        ("weight_ih_*", lambda name: "ih" in name),
        ("weight_*_l0*", lambda name: "_l0" in name),
        ("*_reverse", lambda name: "reverse" in name),
        ("weight_h[hr]_l?", lambda name: "ih" not in name and "reverse" not in name),
        ("*", lambda name: True),
    ],
)
def test_names_and_patterns(pattern, matches):
    found = PrecisionConfig("int16", {pattern: "float32"}).of(SHAPE, WORDS, ALL)
    expected = {name: "float32" if matches(name) else "int16" for name in SHAPE.matrices}
    assert found == expected


def test_a_name_wins_over_patterns_and_the_first_pattern_over_the_next():
    named = {"weight_hh*": "int16", "weight_*": "float32", "weight_hh_l1": "int8"}
    found = PrecisionConfig("mixed", named).of(SHAPE, WORDS, ALL)
    assert found["weight_hh_l1"] == "int8"
    assert found["weight_hh_l0"] == found["weight_hh_l1_reverse"] == "int16"
    assert found["weight_ih_l0"] == found["weight_hr_l1"] == "float32"


@pytest.mark.parametrize("word", WORDS)
def test_words_are_found_again(word):
    assert word_for(precision(word)) == word
    assert describe(precision(word)).split(" ")[0] == word


def test_what_no_word_is_for():
    found = precision("mixed", weight_hr_l1="float32")
    assert word_for(found) == "custom"
    assert describe(found) == (
        "custom (weight_ih_l0: int16, weight_ih_l0_reverse: int16, weight_hr_l1: float32, "
        "all else int8)"
    )
    assert word_for(dict.fromkeys(SHAPE.matrices, "float32")) == "float32"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": {"weight_hh_l2": "int8"}}, ["'weight_hh_l2'", "weight_ih_l0, weight_hh_l0"]),
        ({"precision": {"weight_hr_*": "int8"}}, ["'weight_hr_*'", "weight_ih_l0, weight_hh_l0"]),
        ({"precision": {"WEIGHT_hh_l0": "int8"}}, ["'WEIGHT_hh_l0'"]),
        ({"precision": {3: "int8"}}, ["3", "weight_ih_l0, weight_hh_l0"]),
        ({"precision": {"*": "int2"}}, ["'int2'", "'int8', 'int16', 'int4', 'float32'"]),
        ({"group_size": 16}, ["group_size", "[32, 64, 128]", "16"]),
        ({"group_size": True}, ["group_size", "True"]),
        ({"group_size": None}, ["group_size", "None"]),
        ({"precision": {"weight_hh_l0": None}}, ["weight_hh_l0", "None", "'float32'"]),
        ({"precision": {"weight_hh_l0": ["int8"]}}, ["weight_hh_l0", "['int8']"]),
        ({"precision": "int16"}, ["'int16'", "names"]),
        ({"pair_safe": "always"}, ["'always'", "True or False"]),
        ({"pair_safe": 1}, ["pair_safe", "1"]),
        ({"pair_safe": None}, ["pair_safe", "None"]),
        ({"activations": "float32"}, ["'float32'", "'int8', 'int16', 'mixed'"]),
    ],
    ids=str,
)
def test_bad_options(options, words):
    for make in (lfk.FastQuantLSTM, lfk.FastQuantLSTMCell):
        with pytest.raises(ValueError, match=r"must be|must map|matches none") as error:
            make(5, 4, **options)
        assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("fast", [lfk.FastSparseLSTM, lfk.FastSparseLSTMCell])
def test_sparse_modules_have_float32_alone(fast):
    assert set(fast(5, 4).precision.values()) == {"float32"}
    with pytest.raises(ValueError, match=r"weight_hh_l0 must be one of \['float32'\], got 'int8'"):
        fast(5, 4, precision={"weight_hh_l0": "int8"})
