"""examples/real_models.py: its models are those of their packages, and ours are faithful on them.

Skipped without PyAV, the packages and speech: the example says what to install. The folder of
speech is LSTM_FASTKERNELS_SPEECH.
"""

import os
from functools import cache
from pathlib import Path

import pytest
import torch

pytest.importorskip("av", exc_type=ImportError)

from measuring import snr_db
from quantizers import saved_bytes
from real_models import NextCharacter, SpeakerIdentity, VoiceActivity, quantized, run, run_exactly
from speech import speakers
from speech_models import SileroVAD, package_file

SPEECH = Path(os.environ.get("LSTM_FASTKERNELS_SPEECH", "/usr/share/asterisk/sounds"))

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real_models")]


@pytest.fixture(scope="module", autouse=True)
def _installed():
    try:
        for package, name in (
            ("silero_vad", "data/silero_vad.jit"),
            ("resemblyzer", "pretrained.pt"),
        ):
            package_file(package, name)
        speakers(SPEECH)
    except FileNotFoundError as error:
        pytest.skip(str(error))


@cache
def made(task):
    """The task and its float64 outputs."""
    made = task() if task is NextCharacter else task(*speakers(SPEECH))
    return made, run_exactly(made)[0]


def snr_and_bytes(task, name):
    task, exact = made(task)
    model = quantized(task, name)
    return snr_db(run(task, model)[0], exact), saved_bytes(model.lstm)


def test_silero_vad_is_that_of_the_package():
    """Within float32's rounding, through an LSTM."""
    task, _ = made(VoiceActivity)
    script = torch.jit.load(package_file("silero_vad", "data/silero_vad.jit"))
    script.reset_states()
    windows = task.speech[:, : 100 * SileroVAD.WINDOW]
    expected = [script(window, 16_000) for window in windows.split(SileroVAD.WINDOW, dim=1)]
    actual, _ = task.model(windows)
    assert (actual - torch.cat(expected, dim=1)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("int8, without data", 35),  # with Debian's speech 35.4
        ("int8, without data, pair_safe=False", 36),  # 38.5
        ("int8, calibrated", 38.5),  # 43.6
    ],
)
def test_silero_vad(name, least):
    snr, _ = snr_and_bytes(VoiceActivity, name)
    assert snr >= least


def test_resemblyzer_mixed():
    snr, _ = snr_and_bytes(SpeakerIdentity, "mixed, calibrated")
    assert snr >= 17  # with Debian's speech 18.8


def test_resemblyzer_with_min_sqnr():
    snr, size = snr_and_bytes(SpeakerIdentity, "min_sqnr=30")
    _, int8_size = snr_and_bytes(SpeakerIdentity, "int8, without data")
    assert snr >= 30  # with Debian's speech 32.6, and 1.09 times the bytes
    assert size <= 1.15 * int8_size


@pytest.mark.parametrize(
    ("task", "least"),
    [
        (VoiceActivity, 24),  # with Debian's speech 26.0, without data 15.2
        (SpeakerIdentity, 6.5),  # 7.8, without data 3.1
        (NextCharacter, 16.5),  # 17.6, without data 15.3
    ],
)
def test_4_bits_need_data(task, least):
    plain, _ = snr_and_bytes(task, "int4, without data")
    calibrated, size = snr_and_bytes(task, "int4 in groups of 64, calibrated")
    _, int8_size = snr_and_bytes(task, "int8, without data")
    assert calibrated >= max(least, plain + 1.5)
    assert size <= 0.57 * int8_size


def test_resemblyzer_is_better_in_some_4_bits_than_in_mixed():
    """4 bits where they cost least, float32 for the matrix that 8 bits ruin."""
    mixed, mixed_size = snr_and_bytes(SpeakerIdentity, "mixed, calibrated")
    snr, size = snr_and_bytes(SpeakerIdentity, "int4, min_sqnr=20")
    assert snr >= mixed  # with Debian's speech 19.7 and 18.8
    assert size <= 0.8 * mixed_size
