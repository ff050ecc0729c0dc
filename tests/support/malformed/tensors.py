"""Tensors that are not those of the LSTM that the configuration describes."""

import math
import struct
from collections.abc import Iterator
from functools import partial

from malformed.parts import LAST, NO_FILE, Change, Malformed, Parts, made

EVERY = [
    "int8-projected",
    "int8-blocks",
    "int4",
    "float32",
    "float32-blocks",
    "int16-blocks",
    "mixture",
    "table",
    "table-halves",
]
ENDS = ("_scale", "_table", "_values", "_crow_indices", "_col_indices")


def matrix_of(name: str) -> str:
    """Without what follows weight_ih_l0."""
    return next((name.removesuffix(end) for end in ENDS if name.endswith(end)), name)


def tensors() -> Iterator[Malformed]:
    for base in EVERY:
        parts = Parts(base)
        for name in parts.tensors():
            yield from of_tensor(base, name, **parts.header[name])
        for n, more in enumerate(
            ["more", "weight_ih", "weight_ih_l1", "bias_l0_scale", "a.b", "."]
        ):
            yield made(
                f"{base}-more-{n}",
                base,
                lambda p, more=more: p.change(more, "U8", [0], b""),
                f"{more} does not belong to an LSTM of this configuration",
                f"no place for {more}",
            )
    for base in ("int8-bidirectional", "model"):
        for name in Parts(base).tensors():
            if "weight" in name and "head" not in name:
                yield made(
                    f"{base}-without-{name}",
                    base,
                    lambda p, name=name: p.remove(name),
                    f"{name} is missing",
                    "lacks",
                    name.rpartition(".")[2],
                )
    for name, value, message, word in (
        ("encoder.second.weight_hh_l0_scale", b"\xff" * 4, "scales must be finite", "finite"),
    ):
        yield made(
            f"model-{name}",
            "model",
            lambda p, name=name, value=value: p.put(name, 0, value),
            f"{name.removesuffix('_scale')}: {message}",
            repr(name.rpartition(".")[0]),
            word,
        )
    yield from packed()
    yield made(
        "no-bias",
        "int8",
        lambda p: p.options.update(bias=False),
        "bias_l0 does not belong to an LSTM of this",
        "no place for bias_l0",
    )
    for base in ("int8-blocks", "int16-blocks", "float32-blocks"):
        yield made(
            f"{base}-and-dense",
            base,
            lambda p: p.change(LAST, "U8", [0], b""),
            f"{LAST} does not belong to an LSTM of this configuration",
            f"no place for {LAST}",
        )
    yield from groups()
    yield from blocks()


def packed() -> Iterator[Malformed]:
    """What is wrong with packed weights before they are looked at."""
    base = "packed-int8"
    yield made(
        "packed-missing", base, lambda p: p.remove("packed"), "packed is missing", "lacks packed"
    )
    yield made(
        "packed-from-nothing",
        base,
        lambda p: p.options.pop("packed_from") and None,
        "packed does not belong to an LSTM of this configuration",
        "no place for packed",
    )
    for dtype, shape in (("I8", [64]), ("F16", [32]), ("U8", [1, 64]), ("U8", [64, 0]), ("U8", [])):
        yield made(
            f"packed-{dtype}-{'x'.join(map(str, shape))}",
            base,
            lambda p, dtype=dtype, shape=shape: p.change(
                "packed", dtype, shape, b"\0" * (math.prod(shape) * (2 if dtype == "F16" else 1))
            ),
            f"packed: expected U8 of one dimension, got {dtype} of {len(shape)}",
            "packed: expected torch.uint8 of one dimension, got ",
        )


def of_tensor(
    base: str, name: str, dtype: str, shape: list[int], data_offsets: list[int]
) -> Iterator[Malformed]:
    """What may be wrong with a tensor of an LSTM."""
    size, matrix = data_offsets[1] - data_offsets[0], matrix_of(name)

    def changed(what: str, change: Change, cpp: str, *python: str) -> Malformed:
        return made(f"{base}-{what}-{name}", base, change, cpp, matrix, *python)

    # Without values, a matrix is taken for a dense one.
    lacking = matrix if name.endswith("_values") else name
    yield changed("without", lambda p: p.remove(name), f"{lacking} is missing", "lacks")
    expected = f"{name}: expected {dtype} ["
    others = {
        "I8": ["U8", "BOOL", "F8_E4M3"],
        "U8": ["I8", "BOOL"],
        "F16": ["BF16", "I16"],
        "F32": ["I32"],
        "I32": ["F32"],
    }
    for other in others[dtype]:
        yield changed(
            f"{other}-as", lambda p, other=other: p.header[name].update(dtype=other), expected
        )
    other, itemsize, *words = {
        "I8": ("F32", 4, "int8", "float32"),
        "U8": ("F32", 4, "uint8", "float32"),
        "F16": ("F32", 4, "float16", "float32"),
        "F32": ("F16", 2, "float32", "float16"),
        "I32": ("I64", 8, "int32", "int64"),
    }[dtype]
    zeros = bytes(itemsize * math.prod(shape))
    yield changed("wide", lambda p: p.change(name, other, shape, zeros), expected, *words)
    for what, another in (("row", [*shape, 1]), ("leading", [1, *shape])):
        yield changed(
            what, lambda p, another=another: p.header[name].update(shape=another), expected
        )
    yield changed("empty", lambda p: p.change(name, dtype, [0], b""), expected)
    if len(shape) < 3:  # values may have any
        longer = [shape[0] + 1, *shape[1:]]
        zeros_more = bytes(size + size // shape[0])
        yield changed(
            "longer",
            lambda p: p.change(name, dtype, longer, zeros_more),
            expected,
            str(shape[0]),
            str(longer[0]),
        )
    if dtype == "F16":
        for what, value in (("nan", b"\0\x7e"), ("inf", b"\0\x7c"), ("-inf", b"\0\xfc")):
            message = f"{matrix}: weights must be finite, those of token id 0 are not"
            yield changed(what, lambda p, v=value: p.put(name, 2, v), message, "finite")
    if dtype == "F32":
        is_scale, is_bias = name.endswith("_scale"), name.startswith("bias")
        message = f"{matrix} must be finite" if is_bias else f"{matrix}: weights must be finite"
        if is_scale:
            row = 1 // shape[1] if len(shape) == 2 else 1
            message = f"{matrix}: scales must be finite and not negative, row {row} is not"
        for what, number in (("nan", "nan"), ("inf", "inf"), ("-inf", "-inf"), ("-1", "-1")):
            value = struct.pack("<f", float(number))
            if is_scale or what != "-1":
                word = "not negative" if what == "-1" else "finite"
                yield changed(what, lambda p, v=value: p.put(name, 4, v), message, word)


def groups() -> Iterator[Malformed]:
    """4-bit weights: the wrong number of scales, and a half byte that belongs to no column."""
    name = "weight_ih_l0"  # of 35 columns
    for count in (3, 35):
        yield made(
            f"int4-{count}-groups",
            "int4",
            lambda p, n=count: p.change(f"{name}_scale", "F32", [36, n], bytes(4 * 36 * n)),
            f"{name}_scale: {count} scales a row are not those of groups of",
            name,
            str(count),
        )
    yield made(
        "int4-half",
        "int4",
        lambda p: p.put(name, 17, b"\x10"),
        f"{name}: the half byte behind the last column must be zero, row 0",
        name,
        "half byte",
    )


def blocks() -> Iterator[Malformed]:
    for base in ("int8-blocks", "int16-blocks", "float32-blocks"):
        for n, far in enumerate([-1, 1000, 2**31 - 1, -(2**31)]):
            value = struct.pack("<i", far)
            for at, name, message, word in (
                (0, "crow_indices", "must start with 0", "start with 0"),
                (4, "crow_indices", "must not decrease nor exceed", ""),
                (0, "col_indices", "must be in 0..", "0.."),
            ):
                yield made(
                    f"{base}-{name}-{at}-{n}",
                    base,
                    lambda p, name=name, at=at, v=value: p.put(f"{LAST}_{name}", at, v),
                    f"{LAST}_{name} {message}",
                    LAST,
                    word,
                )
    for base in ("int8-blocks", "int16-blocks", "float32-blocks", "int8-large-blocks"):
        matrix = "weight_hh_l0" if base == "int8-large-blocks" else LAST
        yield made(
            f"{base}-padding",
            base,
            lambda p, name=f"{matrix}_values": p.put(name, -1, b"\1"),
            f"{matrix}_values must be zero in the padding",
            matrix,
            "zero in the padding",
        )
    # Of no bytes: nothing but the sizes says that they are impossible.
    rows, shape = ": blocks must have 1..65535 rows", ": blocks must have a multiple of 8 rows"
    many = "_col_indices: expected I32 [144115188075855872], got I32 [0]"
    for n, (values, message) in enumerate(
        [
            ([0, 0, 4], rows),
            ([0, 2**62, 4], rows),
            ([0, 65536, 4], rows),
            ([2**57, 0, 4], rows),
            ([0, 0, 2**62], rows),
            ([0, 8, 0], shape),
            ([0, 8, 2**62], shape),
            ([0, 8, 65536], shape),
            ([0, 12, 4], shape),
            ([2**57, 8, 0], many),
        ]
    ):
        for base in ("int8-blocks", "float32-blocks"):
            said = NO_FILE if 2**62 in values and values[1] > 0 else (LAST,)
            change = partial(no_blocks, values=values)
            yield made(f"{base}-none-{n}", base, change, LAST + message, *said)
    sizes = {"input_size": 65_535, "hidden_size": 32_000, "num_layers": 100, "bidirectional": True}
    precision = {
        f"weight_{kind}_l{layer}{direction}": "float32"
        for layer in range(100)
        for direction in ("", "_reverse")
        for kind in ("ih", "hh")
    }
    yield made(  # 3 TB of weights
        "huge",
        "float32-blocks",
        lambda p: p.options.update(sizes | {"precision": precision}),
        "the LSTM's sizes are not possible with tensors of",
        "lacks",
        "weight_ih_l99_reverse",
    )

    yield made(  # a file of kilobytes, and gigabytes of rows
        "empty-layers",
        "float32-blocks",
        empty_layers,
        "the LSTM's sizes are not possible with tensors of 1440 bytes",
        "the LSTM's sizes are not possible with tensors of 1440 bytes",
    )


def empty_layers(p: Parts) -> None:
    """20 layers of 65,535 units without any block, block rows as high as they can be."""
    for name in p.tensors():
        p.remove(name)
    names = [f"weight_{kind}_l{layer}" for layer in range(20) for kind in ("ih", "hh")]
    p.options.update(dict.fromkeys(("input_size", "hidden_size"), 65_535))
    p.options.update({"num_layers": 20, "precision": dict.fromkeys(names, "float32")})
    for name in names:
        no_blocks(p, [0, 65_528, 65_532], name)


def no_blocks(p: Parts, values: list[int], matrix: str = LAST) -> None:
    """The matrix holds no block, of that shape."""
    hidden, rows = p.options["hidden_size"], values[1]
    block_rows = 4 * (-(-hidden // rows) if 0 < rows < 2**31 else 1)
    dtype = "F32" if p.options["precision"][matrix] == "float32" else "I8"
    p.change(f"{matrix}_values", dtype, values, b"")
    p.change(f"{matrix}_col_indices", "I32", [0], b"")
    p.change(f"{matrix}_crow_indices", "I32", [block_rows + 1], bytes(4 * block_rows + 4))
