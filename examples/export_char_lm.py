"""Write what the C++ example reads: the quickstart's model in int8, and text it has never seen.

The LSTM reads tokens: its embedding is folded into it.

python examples/export_char_lm.py
"""

import argparse
from pathlib import Path

from torch import nn

import lstm_fastkernels as lfk
from char_lm import decode, load_corpus, load_model, text_sample

WEIGHTS = Path(__file__).with_name("char_lm.safetensors")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Write the quickstart's model in int8, and text that it has never seen.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--model", type=Path, default=Path("build/char_lm_int8.safetensors"), help="to write")
    add("--text", type=Path, default=Path("build/held_out.txt"), help="to write")
    return parser.parse_args()


def main() -> None:
    """Write both files."""
    arguments = parse_arguments()
    for path in (arguments.model, arguments.text):
        path.parent.mkdir(parents=True, exist_ok=True)

    model, _ = load_model(WEIGHTS)
    model.lstm = lfk.fold_embedding(model.embedding, model.lstm)  # int8, but for the table
    model.embedding = nn.Identity()
    lfk.save_file(model, arguments.model, other_tensors=True)

    _, held_out = load_corpus()
    tokens = text_sample(held_out).flatten().tolist()
    arguments.text.write_text("".join(map(decode, tokens)), encoding="utf-8")
    print(f"wrote {arguments.model} and {arguments.text}, {len(tokens):,} characters")


if __name__ == "__main__":
    main()
