"""Files that hold packed weights beside the canonical tensors, and changes of them."""

import json
from pathlib import Path

import lstm_fastkernels as lfk
from malformed.parts import Parts


def write_packed(module, path, **options):
    lfk.save_file(module, path, packed=True, **options)


def change(path, edit):
    """Takes the file apart, and puts it together again after edit(parts)."""
    parts = Parts(path)
    edit(parts)
    path.write_bytes(parts.bytes())


def change_bias(parts):
    """As another tool would, which knows nothing of packed weights."""
    name = next(name for name in parts.tensors() if "bias" in name)
    parts.put(name, 0, b"\0\0\0\x3f")


def change_version(parts):
    name = next(name for name in parts.tensors() if name.endswith("packed"))
    parts.put(name, 8, b"\xff")


def change_precision(parts):
    parts.options["precision"] = dict.fromkeys(parts.options["precision"], "int16")


def remove_packed(parts):
    parts.remove("packed")
    del parts.options["packed_from"]


# Files of an int8 LSTM whose packed weights are not those of its canonical tensors any more.
OUTDATED = {
    "another bias": change_bias,
    "another version": change_version,
    "another precision": change_precision,
    "nothing packed": remove_packed,
}


def mappings(path, process="self"):
    """Of this file, in a process: what smaps counts in KiB, summed, such as Rss and Pss; empty
    where it is not mapped."""
    total = {}
    ours = False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        key, _, value = line.partition(":")
        if " " in key or "-" in key:  # the line that names a mapping
            ours = line.endswith(str(path))
        elif ours and value.endswith(" kB"):
            total[key] = total.get(key, 0) + int(value.split()[0])
    return total


def header_of(path):
    """The header, and where the data begins."""
    contents = path.read_bytes()
    begin = 8 + int.from_bytes(contents[:8], "little")
    return json.loads(contents[8:begin]), begin
