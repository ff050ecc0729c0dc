"""LowRankConfig: which matrices it means, and what it refuses."""

import pytest

import lstm_fastkernels as lfk

NAMES = ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0", "weight_ih_l1", "weight_hh_l1"]


def test_which_matrices_are_meant():
    expected = {name: 8 for name in NAMES if "hr" not in name}
    assert lfk.LowRankConfig(8).of(NAMES) == expected
    assert lfk.LowRankConfig(energy=0.5).of(NAMES) == dict.fromkeys(expected, 0.5)
    assert lfk.LowRankConfig(8, matrices=["*_l1", "weight_hr_l0"]).of(NAMES) == {
        "weight_hr_l0": 8,
        "weight_ih_l1": 8,
        "weight_hh_l1": 8,
    }
    mapping = {"weight_hh_*": 3, "weight_*_l1": 4, "weight_hh_l1": 5}
    assert lfk.LowRankConfig(mapping).of(NAMES) == {
        "weight_hh_l0": 3,
        "weight_ih_l1": 4,
        "weight_hh_l1": 5,
    }
    assert lfk.LowRankConfig(energy={"weight_hr*": 1}).of(NAMES) == {"weight_hr_l0": 1}


BAD = {
    "nothing": ({}, "exactly one of rank and energy"),
    "both": ({"rank": 3, "energy": 0.5}, "exactly one of rank and energy"),
    "rank 0": ({"rank": 0}, "rank must be an integer of at least 1, got 0 for weight_ih"),
    "half a rank": ({"rank": {"weight_hh*": 2.5}}, r"integer .*, got 2\.5 for weight_hh\*"),
    "True": ({"rank": True}, "rank must be an integer"),
    "energy 0": ({"energy": 0.0}, r"energy must be in \(0, 1\], got 0.0"),
    "energy above 1": ({"energy": 1.5}, r"energy must be in \(0, 1\], got 1.5"),
    "energy nan": ({"energy": float("nan")}, "energy must be in"),
    "no number": ({"energy": {"*": "0.5"}}, "energy must be in .* got '0.5'"),
    "a word for a list": ({"rank": 3, "matrices": "weight_hh*"}, "matrices must be a list"),
    "two lists": ({"rank": {"*": 3}, "matrices": ["*"]}, "matrices goes without a mapping"),
    "no pattern": ({"rank": 3, "matrices": [3]}, "expected names of matrices or patterns, got 3"),
    "empty mapping": ({"rank": {}}, "expected a matrix"),
    "empty list": ({"energy": 0.5, "matrices": []}, "expected a matrix"),
}


@pytest.mark.parametrize("what", BAD)
def test_refusals(what):
    options, message = BAD[what]
    with pytest.raises(ValueError, match=message):
        lfk.LowRankConfig(**options)


def test_patterns_must_match():
    with pytest.raises(ValueError, match=r"'weight_hh_l2' matches none of .*weight_ih_l0"):
        lfk.LowRankConfig({"weight_ih*": 3, "weight_hh_l2": 3}).check_matches(NAMES)
    lfk.LowRankConfig({"weight_ih*": 3}).check_matches(NAMES)
