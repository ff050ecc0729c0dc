"""Compare ways to quantize trained models on real data: accuracy, bytes, time.

    pip install -e '.[real-models]'
    pip install --no-deps silero-vad Resemblyzer
    python examples/real_models.py --speech /usr/share/asterisk/sounds

Two public models hear speech, calibration other speakers than evaluation (speech.py says which);
the character model of these examples reads Python. SNR is that of the LSTM's outputs, against the
model in float64.
"""

import argparse
import copy
import math
import statistics
import sys
import timeit
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import lstm_fastkernels as lfk

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # what is compared with, and reports

from char_lm import load_corpus, load_model, text_sample
from comparison import cpu_name
from measuring import publish, snr_db, surroundings
from quantizers import available_quantizers, saved_bytes
from report import number, table
from speech import SAMPLE_RATE, crowd, speakers
from speech_models import SileroVAD, SpeakerEncoder

SECONDS = 40  # of each speaker that evaluates
CALIBRATION_SECONDS = 60
BATCH_SECONDS = 5
PAUSE_SECONDS = 0.3  # between recordings, where silence has to be told from speech
TIMED_STEPS = 160

INT8, INT4 = lfk.Int8Config(), lfk.Int4Config()

# Ours: how, whether it is calibrated, and min_sqnr.
OURS: dict[str, tuple[lfk.Int8Config | lfk.Int4Config, bool, float | None]] = {
    "int8, without data": (INT8, False, None),
    "int8, without data, pair_safe=False": (lfk.Int8Config(pair_safe=False), False, None),
    "int16, without data": (lfk.Int8Config("int16"), False, None),
    "int8, calibrated": (INT8, True, None),
    "mixed, calibrated": (lfk.Int8Config("mixed"), True, None),
    "min_sqnr=30": (INT8, True, 30),
    "min_sqnr=35": (INT8, True, 35),
    "int4, without data": (INT4, False, None),
    **{
        f"int4 in groups of {size}, calibrated": (lfk.Int4Config(group_size=size), True, None)
        for size in (128, 64, 32)
    },
    "int4 in weight_hh, calibrated": (lfk.Int8Config(precision={"weight_hh*": "int4"}), True, None),
    "int4 in weight_ih, calibrated": (lfk.Int8Config(precision={"weight_ih*": "int4"}), True, None),
    **{f"int4, min_sqnr={target}": (INT4, True, target) for target in (20, 25, 30)},
}


class VoiceActivity:
    """Silero VAD in streaming: a call for each window of 32 ms of all speakers, the state carried.

    The answers are its decisions [speakers, windows].
    """

    name = "Silero VAD"
    streaming = True

    def __init__(self, calibration: list[Path], evaluation: list[Path]) -> None:
        self.model: nn.Module = SileroVAD.pretrained()
        samples = BATCH_SECONDS * SAMPLE_RATE // SileroVAD.WINDOW * SileroVAD.WINDOW
        heard = crowd(calibration, CALIBRATION_SECONDS, PAUSE_SECONDS)
        self.calibration = [batch for batch in heard.split(samples, 1) if batch.shape[1] == samples]
        self.speech = crowd(evaluation, SECONDS, PAUSE_SECONDS)

    def answers(self, model: nn.Module, dtype: torch.dtype) -> Tensor:
        """Run the model on what evaluates."""
        state, probabilities = None, []
        for window in self.speech.to(dtype).split(SileroVAD.WINDOW, dim=1):
            probability, state = model(window, state)
            probabilities.append(probability)
        return torch.cat(probabilities, dim=1) > 0.5

    def judge(self, answers: Tensor, exact: Tensor) -> dict[str, float]:
        """Count the decisions that differ from the float64 model's."""
        return {f"decisions flipped, of {exact.numel():,}": int((answers != exact).sum())}


class SpeakerIdentity:
    """Resemblyzer's speaker encoder, a call for 1.6 s of each speaker.

    The answers are its embeddings [pieces, 256].
    """

    name = "Resemblyzer"
    streaming = False

    def __init__(
        self,
        calibration: list[Path],
        evaluation: list[Path],
        loudness: float = SpeakerEncoder.LOUDNESS,
    ) -> None:
        self.model: nn.Module = SpeakerEncoder.pretrained()
        heard = SpeakerEncoder.spectrograms(crowd(calibration, CALIBRATION_SECONDS), loudness)
        self.calibration = list(heard.split(BATCH_SECONDS))
        self.speech = SpeakerEncoder.spectrograms(crowd(evaluation, SECONDS), loudness)

    def answers(self, model: nn.Module, dtype: torch.dtype) -> Tensor:
        """Run the model on what evaluates."""
        embeddings: Tensor = model(self.speech.to(dtype))
        return embeddings

    def judge(self, answers: Tensor, exact: Tensor) -> dict[str, float]:
        """Take the cosine distances between embeddings and the float64 model's."""
        distances = 1 - (answers.double() * exact).sum(1)
        return {"cosine moved, mean": distances.mean().item(), "worst": distances.max().item()}


class NextCharacter:
    """The character model of char_lm.py, a call for each row of modules that it was not trained on.

    The answers are its logits [rows, characters, symbols].
    """

    name = "Character model"
    streaming = False

    def __init__(self) -> None:
        model, _ = load_model(Path(__file__).with_name("char_lm.safetensors"))
        self.model: nn.Module = model.requires_grad_(False)
        training, held_out = load_corpus()
        self.calibration = list(text_sample(training, 16, 512).split(1))
        self.text = text_sample(held_out, 16, 1024)

    def answers(self, model: nn.Module, dtype: torch.dtype) -> Tensor:
        """Run the model on what evaluates."""
        logits: Tensor = model(self.text[:, :-1])[0]
        return logits

    def judge(self, answers: Tensor, exact: Tensor) -> dict[str, float]:
        """Compare bits per character with the float64 model's."""
        bits, exact_bits = (
            F.cross_entropy(logits.double().flatten(0, 1), self.text[:, 1:].flatten()) / math.log(2)
            for logits in (answers, exact)
        )
        return {"bits per character, change": (bits - exact_bits).item()}


Task = VoiceActivity | SpeakerIdentity | NextCharacter


def main() -> None:
    """Load, quantize, run, time, report."""
    arguments = parse_arguments()
    torch.set_num_threads(1)
    calibration, evaluation = speakers(arguments.speech)
    report = {
        "cpu": cpu_name(),
        **surroundings(),
        "calibration": [folder.name for folder in calibration],
        "evaluation": [folder.name for folder in evaluation],
        "models": [
            compare(task, arguments.rounds)
            for task in (
                VoiceActivity(calibration, evaluation),
                SpeakerIdentity(calibration, evaluation, arguments.loudness),
                NextCharacter(),
            )
        ],
    }
    publish(arguments, report, markdown(report))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--speech",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="has a sub-folder of recordings for each speaker",
    )
    parser.add_argument(
        "--loudness",
        type=float,
        default=SpeakerEncoder.LOUDNESS,
        metavar="DB",
        help="of the speech that Resemblyzer hears, in dB of full scale",
    )
    parser.add_argument("--rounds", type=int, default=25, help="of timing; 0: no times")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def compare(task: Task, rounds: int) -> dict[str, Any]:
    """Quantize a model in all ways; the report's part on it."""
    models = candidates(task)
    exact_outputs, exact_answers = run_exactly(task)
    rows = {}
    for name, model in tqdm(models.items(), desc=task.name, leave=False, disable=None):
        outputs, answers = run(task, model)
        rows[name] = {
            "SNR, dB": snr_db(outputs, exact_outputs),
            **task.judge(answers, exact_answers),
            "bytes": saved_bytes(model.lstm),
            "packed bytes": model.lstm.packed_bytes() if name.startswith("ours") else None,
        }
    for name, seconds in time_in_turns(task, models, rounds).items():
        rows[name]["us a step"] = 1e6 * statistics.median(seconds)
    return {"name": task.name, "rows": rows}


def candidates(task: Task) -> dict[str, nn.Module]:
    """Return the model in float32, and as everyone quantizes it."""
    models = {"nn.LSTM, float32": task.model}
    others = available_quantizers(task.model.lstm, streaming=task.streaming)
    for name, quantize in others.items():
        models[name] = copy.deepcopy(task.model)
        models[name].lstm = quantize(models[name].lstm)
    for name in OURS:
        models[f"ours, {name}"] = quantized(task, name)
    return models


def quantized(task: Task, name: str) -> nn.Module:
    """Return a copy of the task's model, quantized as OURS says."""
    config, calibrate, min_sqnr = OURS[name]
    model = copy.deepcopy(task.model)
    batches = task.calibration if calibrate else None
    lfk.quantize_(model, config, calibration=batches, min_sqnr=min_sqnr)
    return model


@torch.inference_mode()
def run(
    task: Task, model: nn.Module, dtype: torch.dtype = torch.float32
) -> tuple[np.ndarray, Tensor]:
    """Return the LSTM's outputs [rows, steps, H], in float64, and the model's answers."""
    outputs: list[Tensor] = []

    def record(module: nn.Module, arguments: Any, result: Any) -> None:
        outputs.append(result[0])

    hook = model.lstm.register_forward_hook(record)
    answers = task.answers(model, dtype)
    hook.remove()
    return torch.cat(outputs, dim=1).double().numpy(), answers


def run_exactly(task: Task) -> tuple[np.ndarray, Tensor]:
    """Return what the model gives in float64."""
    return run(task, copy.deepcopy(task.model).double(), torch.float64)


@torch.inference_mode()
def time_in_turns(task: Task, models: dict[str, nn.Module], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of a step of each model's LSTM, once for each round."""
    x = torch.randn(1, TIMED_STEPS, task.model.lstm.input_size)
    frames = x.split(1 if task.streaming else TIMED_STEPS, dim=1)

    def steps_of(lstm: nn.Module) -> Callable[[], None]:
        def steps() -> None:
            state = None
            for frame in frames:
                _, state = lstm(frame, state)

        return steps

    runs = {name: steps_of(model.lstm) for name, model in models.items()}
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in tqdm(range(rounds), desc=f"{task.name}, time", leave=False, disable=None):
        for name, steps in runs.items():
            steps()  # brings the weights back into the caches
            seconds[name].append(timeit.timeit(steps, number=1) / TIMED_STEPS)
    return seconds


def markdown(report: dict[str, Any]) -> str:
    """Write a table for each model."""
    sections = []
    for model in report["models"]:
        columns = list(next(iter(model["rows"].values())))
        rows = [[name, *map(show, row.values())] for name, row in model["rows"].items()]
        sections.append(f"### {model['name']}\n\n{table(['LSTM', *columns], rows)}\n")
    return "\n".join(sections)


def show(value: float | None) -> str:
    """Write a count in full, a measured figure with three digits."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else number(value)


if __name__ == "__main__":
    main()
