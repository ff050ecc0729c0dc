"""What real_models.py hears: recordings of several speakers, at 16 kHz.

A folder has a sub-folder for each speaker, with recordings in any format that FFmpeg reads.
/usr/share/asterisk/sounds is such a folder where Debian's packages
asterisk-core-sounds-{en,es,fr,it,ru}-g722 are installed: 500 and more short prompts in each of five
languages, spoken by four people (CC-BY-SA 3.0).
"""

import zlib
from pathlib import Path

import av
import torch
from torch import Tensor

SAMPLE_RATE = 16_000
QUIETEST = 1e-3  # root mean square, full scale is 1; some recordings have nothing but silence
SUFFIXES = {".flac", ".g722", ".mp3", ".ogg", ".opus", ".wav"}


def speakers(folder: Path) -> tuple[list[Path], list[Path]]:
    """Split the folder's sub-folders, by name: the first half calibrates, the others evaluate."""
    found = sorted(p for p in folder.iterdir() if p.is_dir() and not p.is_symlink())
    if len(found) < 2:
        raise FileNotFoundError(
            f"{folder}: needs a sub-folder of recordings for each of two or more speakers"
        )
    return found[: len(found) // 2], found[len(found) // 2 :]


def read(path: Path) -> Tensor:
    """Return a recording as mono samples [N] in [-1, 1], float32."""
    with av.open(str(path)) as file:
        resampler = av.AudioResampler("fltp", "mono", SAMPLE_RATE)
        resampled = [part for frame in file.decode(audio=0) for part in resampler.resample(frame)]
        resampled += resampler.resample(None)
    parts = [torch.from_numpy(part.to_ndarray()[0]) for part in resampled]
    return torch.cat(parts) if parts else torch.empty(0)


def speech(speaker: Path, seconds: int, pause: float) -> Tensor:
    """Join recordings of a speaker, in an order that depends on their names alone.

    `pause` seconds of silence follow each. Returns [seconds * SAMPLE_RATE].
    """
    names = [p.relative_to(speaker).as_posix() for p in speaker.rglob("*") if p.suffix in SUFFIXES]
    silence = torch.zeros(round(pause * SAMPLE_RATE))
    parts: list[Tensor] = []
    length = 0
    for name in sorted(names, key=lambda name: (zlib.crc32(name.encode()), name)):
        recording = read(speaker / name)
        if recording.square().mean() < QUIETEST**2:
            continue
        parts += [recording, silence]
        length += len(recording) + len(silence)
        if length >= seconds * SAMPLE_RATE:
            return torch.cat(parts)[: seconds * SAMPLE_RATE]
    raise ValueError(f"{speaker}: {length / SAMPLE_RATE:.0f} s of speech, {seconds} s are needed")


def crowd(folders: list[Path], seconds: int, pause: float = 0.0) -> Tensor:
    """Return [speakers, seconds * SAMPLE_RATE], a row for each speaker."""
    return torch.stack([speech(folder, seconds, pause) for folder in folders])
