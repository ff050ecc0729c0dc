"""Which instruction set runs, and who may choose it."""

import os
import subprocess
import sys

import pytest

import lstm_fastkernels as lfk
from isas import chosen


def test_scalar_is_always_there():
    assert "scalar" in lfk.supported_isas()


@pytest.mark.parametrize("name", lfk.supported_isas())
def test_set_isa(name):
    with chosen(name):
        assert lfk.get_isa() == name


def run(name):
    """A process of its own with LSTM_FASTKERNELS_ISA=name that prints what runs there."""
    return subprocess.run(
        [sys.executable, "-c", "import lstm_fastkernels as lfk; print(lfk.get_isa())"],
        env={**os.environ, "LSTM_FASTKERNELS_ISA": name},
        capture_output=True,
        text=True,
    )


def test_the_environment_lowers_it():
    """The NumPy runtime's golden file goes through all of them."""
    process = run("scalar")
    assert process.stdout.strip() == "scalar", process.stderr


def test_a_misspelt_environment_is_not_ignored():
    process = run("avx9")
    assert process.returncode != 0
    assert "LSTM_FASTKERNELS_ISA" in process.stderr
    assert "avx9" in process.stderr


def test_unknown_name_is_refused_and_changes_nothing():
    before = lfk.get_isa()
    with pytest.raises((ValueError, RuntimeError), match="avx9") as caught:
        lfk.set_isa("avx9")
    assert "scalar" in str(caught.value), "the message lists what there is"
    assert lfk.get_isa() == before
