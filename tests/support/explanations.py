"""What explain says, taken apart."""

import lstm_fastkernels as lfk


def explained(fast, *inputs, **options):
    """The first line, and the others by what stands before their colon."""
    first, *lines = lfk.explain(fast, *inputs, **options).splitlines()
    return first, dict(line.split(": ", 1) for line in lines)
