"""Let Silero VAD teach its own compressed LSTM: no labels, some minutes of any speech.

    pip install -e '.[real-models]'
    pip install --no-deps silero-vad Resemblyzer
    python examples/teach_silero.py --speech /usr/share/asterisk/sounds

Compresses the LSTM to 4 bits, and to 80% zeros in 8 bits, by calibration alone and by training:
quantization-aware, with the zeros growing, until its hidden states and decisions are those of the
float model. It hears the speakers of the first half of the folder, at random speeds and loudness;
decisions of the others are counted that differ from the float64 model's.
"""

import argparse
import copy
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import lstm_fastkernels as lfk
from real_models import VoiceActivity, run_exactly
from speech import crowd, speakers
from speech_models import SileroVAD

TRAINING_SECONDS = 480  # of each speaker
STREAMS, STEPS = 16, 100  # of a batch: rows, and windows of each
SPEEDS = (0.8, 1.25)  # a voice becomes deeper or higher with it
LOUDNESS_DB = (-25.0, 5.0)


@dataclass(frozen=True)
class Recipe:
    """The precision of the LSTM and its share of zeros."""

    base: lfk.Int8Config | lfk.Int4Config
    zeros: float = 0.0


RECIPES = {"4 bits": Recipe(lfk.Int4Config()), "80% zeros, 8 bits": Recipe(lfk.Int8Config(), 0.8)}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Let Silero VAD teach its own compressed LSTM.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--speech", type=Path, required=True, help="a sub-folder of recordings for each speaker")
    add("--recipe", nargs="+", choices=RECIPES, default=list(RECIPES), help="what to make")
    add("--seeds", type=int, default=3, help="runs of each")
    add("--steps", type=int, default=1500, help="optimizer steps")
    add("--learning-rate", type=float, default=2e-3, help="its peak; it falls along a cosine")
    add("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    return parser.parse_args()


def batch(speech: Tensor) -> Tensor:
    """Cut [STREAMS, samples] at random out of [speakers, N], at random speeds and loudness."""
    samples = STEPS * SileroVAD.WINDOW
    rows = []
    for _ in range(STREAMS):
        speed = torch.empty(()).uniform_(*SPEEDS).item()
        length = round(samples * speed)
        row = speech[torch.randint(len(speech), ())]
        start = int(torch.randint(len(row) - length, ()))
        piece = row[None, None, start : start + length]
        gain = 10 ** (torch.empty(()).uniform_(*LOUDNESS_DB) / 20)
        rows.append(gain * F.interpolate(piece, size=samples, mode="linear")[0, 0])
    return torch.stack(rows)


def logits(model: SileroVAD, y: Tensor) -> Tensor:
    """Return the logits of silence and speech [B, n, 2] for outputs of the LSTM [B, n, 128]."""
    z = model.logits(y)
    return torch.stack((torch.zeros_like(z), z), -1)


def calibrated(recipe: Recipe, task: VoiceActivity) -> nn.Module:
    """Compress the model without training it."""
    model = copy.deepcopy(task.model)
    if recipe.zeros:
        lfk.prune_(model, lfk.PruneConfig(recipe.zeros))
        lfk.remove_pruning_(model)
    lfk.quantize_(model, recipe.base, calibration=task.calibration)
    return model


def taught(
    recipe: Recipe, task: VoiceActivity, speech: Tensor, steps: int, rate: float
) -> nn.Module:
    """Compress the model while it is taught by what it was before."""
    teacher, student = task.model, copy.deepcopy(task.model)
    student.lstm.requires_grad_(True)
    pruner = None
    if recipe.zeros:
        schedule = lfk.CubicSchedule(0, steps // 2, max(1, steps // 100))
        pruner = lfk.prune_(student, lfk.PruneConfig(recipe.zeros, schedule=schedule))
    config = lfk.QATConfig(recipe.base, "prepare")
    lfk.quantize_(student, config, calibration=task.calibration)
    optimizer = torch.optim.Adam(student.lstm.parameters(), lr=rate)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in tqdm(range(steps), "training", unit="step", disable=None):
        with torch.no_grad():
            x = teacher.hear(F.pad(batch(speech), (SileroVAD.CONTEXT, 0)))
            expected, _ = teacher.lstm(x)
        y, _ = student.lstm(x)
        loss = lfk.hidden_state_loss(y, expected) + lfk.distillation_loss(
            logits(teacher, y), logits(teacher, expected), temperature=1.0
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        annealing.step()
        if pruner:
            pruner.step()
    lfk.quantize_(student, lfk.QATConfig(recipe.base, "convert"))
    return student.eval()


def flips(task: VoiceActivity, model: nn.Module, exact: Tensor) -> int:
    """Count the decisions that differ from the float64 model's."""
    with torch.inference_mode():
        return int((task.answers(model, torch.float32) != exact).sum())


def main() -> None:
    """Compress in every way and count."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    training, evaluation = speakers(arguments.speech)
    task = VoiceActivity(training, evaluation)
    _, exact = run_exactly(task)
    speech = crowd(training, TRAINING_SECONDS, 0.3)
    print(f"of {exact.numel():,} decisions differ from the float model's:", flush=True)
    for name in arguments.recipe:
        recipe = RECIPES[name]
        before = flips(task, calibrated(recipe, task), exact)
        after = []
        for seed in range(arguments.seeds):
            torch.manual_seed(seed)
            model = taught(recipe, task, speech, arguments.steps, arguments.learning_rate)
            after.append(flips(task, model, exact))
        print(
            f"{name}: calibrated {before}; taught by itself {statistics.mean(after):.1f} "
            f"({', '.join(map(str, after))}), {model.lstm.packed_bytes():,} bytes",
            flush=True,
        )


if __name__ == "__main__":
    main()
