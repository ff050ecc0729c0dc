"""Files that are no safetensors file, or one that contradicts itself."""

import struct
from collections.abc import Iterator

from malformed.parts import LAST, NO_FILE, Malformed, Parts, container, made, raw, to_json

# What the header of the file int8 says of LAST.
ENTRY = '{"dtype":"I8","shape":[20,3],"data_offsets":[340,400]}'


def entry(name: str, text: str, cpp: str, python: tuple[str, ...] = NO_FILE) -> Malformed:
    """LAST is described by this JSON text."""
    return made(name, "int8", lambda p: p.header.update({LAST: raw(text)}), f"{LAST}{cpp}", *python)


def header(name: str, text: str | bytes, cpp: str, python: tuple[str, ...] = NO_FILE) -> Malformed:
    """The whole header is this text."""
    return made(name, "int8", lambda p: container(text, p.data), cpp, *python)


def containers() -> Iterator[Malformed]:
    for size in range(8):
        message = f"too short for a safetensors file, {size} bytes"
        yield made(f"short-{size}", "int8", lambda p, n=size: b"{" * n, message, *NO_FILE)
    yield made("cut", "int8", lambda p: p.bytes()[:-1], f"{LAST}: ends at byte 400", *NO_FILE)
    beyond = "not a safetensors file, or cut short: its header takes"
    yield made("cut-header", "int8", lambda p: p.bytes()[:100], beyond, *NO_FILE)
    for n, length in enumerate([2000, 2**32, 2**63, 2**64 - 1]):
        yield made(
            f"length-{n}",
            "int8",
            lambda p, length=length: struct.pack("<Q", length) + p.bytes()[8:],
            f"{beyond} {length} bytes, the file has ",
            *NO_FILE,
        )
    yield made("pickle", "int8", lambda p: b"\x80\x02}q\x00." * 20, beyond, *NO_FILE)
    yield from json_texts()
    yield from entries()
    yield from offsets()
    for n, metadata in enumerate(["[]", '""', "3"]):
        text = f'{{"__metadata__":{metadata}}}'
        yield header(f"metadata-{n}", text, "__metadata__ must be an object")
    for n, value in enumerate(["null", "1", "[]", "{}", "true"]):
        text = f'{{"__metadata__":{{"k":{value}}}}}'
        yield header(f"metadata-value-{n}", text, "__metadata__: 'k' must be a string")


def json_texts() -> Iterator[Malformed]:
    broken = ["{", "{]", "{}x", "{}{}", '{"a":}', "{'a':1}", '{"a":NaN}', '{"a":01}', '{"a":[1,]}']
    for n, text in enumerate([*broken, '{"a":"\n"}', "{/**/}", b'{"a":"\xff"}']):
        yield header(f"json-{n}", text, "the header is not JSON from byte ")
    yield header("large-number", '{"a":1e999}', "the header has a number that is too large")
    for n, text in enumerate(["{}\0", "{}\0}", "{\0}"]):
        yield header(f"zero-byte-{n}", text, "the header is not JSON: it has a zero byte")
    for n, text in enumerate(["", " ", "[]", "null", "3", " {}", "\n{}", "\ufeff{}"]):
        message = "not a safetensors file: its header must start with '{'"
        yield header(f"no-object-{n}", text, message)
    for depth in (9, 100, 100_000):
        text = '{"a":' + "".join("[" if n % 2 else '{"b":' for n in range(depth))
        yield header(f"deep-{depth}", text, "the header is nested too deeply")
    twice = "the header has the key {} twice"
    for n, key in enumerate([r"weight_hh_l0", r"weight_hh_l\u0030"]):
        yield made(
            f"tensor-twice-{n}",
            "int8",
            lambda p, key=key: container(
                to_json(p.header).replace(f'"{LAST}":', f'"{key}":'), p.data
            ),
            twice.format("'weight_hh_l0'"),
            *NO_FILE,
        )
    same = '"a":{"dtype":"%s","shape":[1],"data_offsets":[0,1]}'
    yield made(
        "one-place-twice",
        "int8",
        lambda p: container("{" + same % "U8" + "," + same % "I8" + "}", b"x"),
        twice.format("'a'"),
        "'a' is there twice",
    )
    text = ENTRY.replace('"dtype":"I8"', '"dtype":"I8","dtype":"I8"')
    yield made(
        "dtype-twice",
        "int8",
        lambda p: p.header.update({LAST: raw(text)}),
        twice.format("'dtype'"),
        *NO_FILE,
    )
    text = '{"__metadata__":{},"__metadata__":{}}'
    yield header("metadata-twice", text, twice.format("'__metadata__'"))
    text = '{"__metadata__":{"k":"","k":""}}'
    yield header("metadata-key-twice", text, twice.format("'k'"))


def entries() -> Iterator[Malformed]:
    for n, text in enumerate(["[]", "3", "null", '"I8"']):
        yield entry(f"entry-{n}", text, " must be an object")
    for key, text in (
        ("dtype", '"dtype":"I8",'),
        ("shape", '"shape":[20,3],'),
        ("data_offsets", ',"data_offsets":[340,400]'),
    ):
        yield entry(f"no-{key}", ENTRY.replace(text, ""), f": '{key}' is missing")
    for n, dtype in enumerate(["3", "null", '["I8"]']):
        text = ENTRY.replace('"I8"', dtype)
        yield entry(f"dtype-{n}", text, ": 'dtype' must be a string")
    for n, dtype in enumerate(["", "i8", "I8 ", "I4", "F128"]):
        text = ENTRY.replace("I8", dtype)
        yield entry(f"unknown-dtype-{n}", text, f": unknown dtype '{dtype}'")
    whole = ["[9223372036854775808]", "[18446744073709551616]"]
    shapes = ["3", "null", "{}", "[-3]", "[3.0]", '["3"]', "[true]", "[[3]]", "[3e0]", "[-0]"]
    for n, shape in enumerate([*shapes, *whole]):
        text = ENTRY.replace("[20,3]", shape)
        yield entry(f"shape-{n}", text, ": 'shape' must hold integers that are not negative")
    for n, shape in enumerate(
        [
            *("[4611686018427387904,2]", "[9223372036854775807,3]"),
            *("[2147483648,2147483648,2147483648]", "[4294967296,4294967296]"),
            "[9223372036854775807,9223372036854775807,0]",
        ]
    ):
        text = ENTRY.replace("[20,3]", shape)
        yield entry(f"large-shape-{n}", text, ": its shape is too large")
    text = '{"dtype":"F32","shape":[2305843009213693952],"data_offsets":[0,80]}'
    yield made(  # by the size of an element alone
        "large-element",
        "int8",
        lambda p: p.header.update(bias_l0=raw(text)),
        "bias_l0: its shape is too large",
        *NO_FILE,
    )
    for n, pair in enumerate(
        [
            *("8", "null", "[]", "[340]", "[340,400,400]", "[340,400.0]", "[340.0,400]"),
            *("[-340,400]", "[340,-400]", "[null,400]", "[340,9223372036854775808]"),
            '{"340":400}',
        ]
    ):
        yield entry(
            f"offsets-{n}",
            ENTRY.replace("[340,400]", pair),
            ": 'data_offsets' must hold two integers that are not negative",
        )


def offsets() -> Iterator[Malformed]:
    for n, (old, new, takes) in enumerate(
        [
            ("[20,3]", "[2]", "2 bytes, 'data_offsets' are 340 and 400"),
            ("[20,3]", "[]", "1 bytes"),
            ("[20,3]", "[3,0]", "0 bytes"),
            ("I8", "I16", "120 bytes"),
            ("[340,400]", "[400,340]", "60 bytes, 'data_offsets' are 400"),
            ("[340,400]", "[340,9223372036854775807]", "60 bytes"),
        ]
    ):
        yield entry(f"size-{n}", ENTRY.replace(old, new), f": its shape takes {takes}")
    for n, (old, new, end) in enumerate(
        [
            ("[340,400]", "[341,401]", 401),
            ("[340,400]", "[9223372036854775747,9223372036854775807]", 9223372036854775807),
            ('[20,3],"data_offsets":[340,400]', '[0],"data_offsets":[401,401]', 401),
        ]
    ):
        text = f": ends at byte {end} of the data, which has 400"
        yield entry(f"beyond-{n}", ENTRY.replace(old, new), text)
    yield entry(
        "overlap-0",
        ENTRY.replace("[340,400]", "[339,399]"),
        ": overlaps another tensor at byte 339 of the data",
    )
    yield made(
        "overlap-1",
        "int8",
        lambda p: p.header[LAST].update(data_offsets=[0, 60]),
        "bias_l0: overlaps another tensor at byte 0 of the data",
        *NO_FILE,
    )

    def hole(p: Parts) -> None:
        p.header[LAST]["data_offsets"] = [341, 401]
        p.data.append(0)

    after = "of the data, the tensor before it ends at"
    yield made("hole", "int8", hole, f"{LAST}: begins at byte 341 {after} 340", *NO_FILE)
    text = '{"b":{"dtype":"U8","shape":[399],"data_offsets":[1,400]}}'
    yield header("hole-first", text, f"b: begins at byte 1 {after} 0")
    yield made(
        "left-over",
        "int8",
        lambda p: p.data.append(0),
        "its tensors end at byte 400 of the data, which has 401",
        *NO_FILE,
    )
    yield header("no-tensors", "{}", "its tensors end at byte 0 of the data, which has 400")
