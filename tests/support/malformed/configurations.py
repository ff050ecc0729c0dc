"""Configurations that lack something, or whose options are mistyped or out of range."""

import json
from collections.abc import Iterator

from malformed.parts import KEY, Malformed, Parts, container, made, raw

VERSIONS = '{"format_version":2,"numeric_contract":2'  # what a configuration begins with


def configuration(name: str, text: str, cpp: str, *python: str) -> Malformed:
    """The configuration is this text."""

    def change(p: Parts) -> bytes:
        p.header["__metadata__"][KEY] = text
        return container(json.dumps(p.header), p.data)

    return made(name, "int8", change, f"metadata 'lstm_fastkernels'{cpp}", *python)


def option(
    name: str, option: str, value: str, cpp: str, *python: str, base: str = "int8", **others: object
) -> Malformed:
    """An option, besides others, has this JSON text as its value."""

    def change(p: Parts) -> None:
        p.options.update({**others, option: raw(value)})

    return made(f"{name}-{option}", base, change, f"LSTM '': {cpp}", "LSTM ''", *python)


def hashes() -> Iterator[Malformed]:
    """What packed weights cannot have been made from."""
    for n, value in enumerate(["null", "3", '["0123456789abcdef"]', "{}"]):
        message = "'packed_from' must be a string"
        yield option(
            f"hash-type-{n}", "packed_from", value, message, "packed_from must be a string"
        )
    for n, value in enumerate(["", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF"]):
        message = "'packed_from' must be 16 hexadecimal digits"
        yield option(
            f"hash-{n}", "packed_from", json.dumps(value), message, message.replace("'", "")
        )


def configurations() -> Iterator[Malformed]:
    yield from hashes()
    broken = ["", "{", "{]", '{"format_version":NaN}', "{}x"]
    for n, text in enumerate(broken):
        yield configuration(f"configuration-{n}", text, " is not JSON from byte ", "not JSON")
    yield configuration("zero", "{}\0", " is not JSON: it has a zero byte", "not JSON")
    yield configuration("deep", "[" * 100_000, " is nested too deeply", "not JSON", "deeply")
    text = '{"format_version":2,"format_version":2}'
    yield configuration("version-twice", text, " has the key 'format_version' twice", "twice")
    text = f'{VERSIONS},"lstms":{{"a":{{}},"a":{{}}}}}}'
    yield configuration("name-twice", text, " has the key 'a' twice", "'a'", "twice")
    for n, text in enumerate(["[]", "3", "null", '""']):
        yield configuration(f"no-object-configuration-{n}", text, " must be an object", "an object")
    text = '{"lstms":{}}'
    yield configuration("no-version", text, ": 'format_version' is missing", "format_version")
    for n, version in enumerate(["true", "1.0", '"1"', "null", "1e0"]):
        text = f'{{"format_version":{version}}}'
        message = ": 'format_version' must be an integer that is not negative"
        yield configuration(f"version-type-{n}", text, message, "format_version", "an integer")
    for n, version in enumerate([0, 3, 2**63 - 1]):
        text = f'{{"format_version":{version},"lstms":3}}'
        message = f": format version {version}; this library reads version 2"
        yield configuration(f"version-{n}", text, message, f"version {version}", "version 2")
    message = "format version 1 was made by an unreleased version: convert the model again"
    yield configuration("first-version", '{"format_version":1}', f": {message}", message)
    for n, contract in enumerate([0, 1, 3, 2**63 - 1]):
        text = f'{{"format_version":2,"numeric_contract":{contract},"lstms":3}}'
        message = "this library computes contract 2: convert the model again"
        words = f"contract {contract}", "contract 2: convert"
        yield configuration(
            f"contract-{n}", text, f": numeric contract {contract}; {message}", *words
        )
    message = ": 'numeric_contract' is missing"
    yield configuration("no-contract", '{"format_version":2}', message, "numeric_contract")
    yield configuration("no-lstms", f"{VERSIONS}}}", ": 'lstms' is missing", "lstms")
    for n, (lstms, said) in enumerate([("[]", "an object"), ("3", "an object"), ("{}", "no LSTM")]):
        text = f'{VERSIONS},"lstms":{lstms}}}'
        message = ": 'lstms' must be an object of at least one LSTM"
        yield configuration(f"lstms-{n}", text, message, said)
    for n, lstm in enumerate(["[]", "3", "null"]):
        yield made(
            f"lstm-{n}",
            "int8",
            lambda p, lstm=lstm: p.configuration["lstms"].update({"": raw(lstm)}),
            "LSTM '' must be an object",
            "an object",
        )
    yield from options()
    yield from names()


def options() -> Iterator[Malformed]:
    for name in Parts("int8").options:
        yield made(
            f"no-option-{name}",
            "int8",
            lambda p, name=name: p.options.__delitem__(name),
            f"LSTM '': '{name}' is missing",
            f"lacks '{name}'",
        )
    sizes = ["input_size", "hidden_size", "num_layers", "proj_size"]
    for name in sizes:
        for n, value in enumerate(["true", '"5"', "5.0", "null", "[5]", "5e0"]):
            message = f"'{name}' must be an integer that is not negative"
            yield option(f"type-{n}", name, value, message, name, "an integer")
        for n, value in enumerate([-1, 2**63, -(2**63), 10**30]):
            message = f"'{name}' must be an integer that is not negative"
            yield option(f"integer-{n}", name, str(value), message, name, "..")
    for n, value in enumerate([0, 65536, 2**32, 2**63 - 1]):
        for name in ("input_size", "hidden_size"):
            yield option(f"range-{n}", name, str(value), f"{name} must be in 1..65535", name)
    for n, value in enumerate([0, 1025, 2**32 + 1]):
        yield option(f"range-{n}", "num_layers", str(value), "num_layers must be in 1..1024")
    for n, value in enumerate([9, 10, 2**63 - 1]):
        message = "proj_size must be in 0..8"
        yield option(
            f"range-{n}", "proj_size", str(value), message, "proj_size", base="int8-projected"
        )
    for name in ("bias", "batch_first", "bidirectional"):
        for n, value in enumerate(["0", "1", "null", '"true"']):
            message = f"'{name}' must be true or false"
            yield option(f"type-{n}", name, value, message, name, "true or false")
    for name in ("class", "layout"):
        for n, value in enumerate(["8", "null", '["int8"]']):
            yield option(f"type-{n}", name, value, f"'{name}' must be a string", "a string")
    for n, word in enumerate(["LSTM", "fastquantlstm", "", "FastQuantLSTM "]):
        message = f"unknown class '{word}'"
        yield option(f"word-{n}", "class", f'"{word}"', message, "FastQuantLSTM", repr(word))
    yield from precisions()
    yield from tables()
    for n, word in enumerate(["sparse", "Dense", ""]):
        message = "'layout' must be auto, dense or block_sparse, got '"
        yield option(f"word-{n}", "layout", f'"{word}"', message, "block_sparse", repr(word))
    for name in ("FastSparseLSTM", "FastSparseLSTMCell"):
        for base in ("int8", "int16"):
            message = f"a {name} has no '{base}' matrices"
            yield option(f"other-{name}-{base}", "class", f'"{name}"', message, base, base=base)
    message = "a FastSparseLSTM has no 'int16' matrices"
    yield option("some-int16", "class", '"FastSparseLSTM"', message, "int16", base="mixture")
    for n, value in enumerate(["null", "1", '"always"', '"Auto"', "[]", "{}"]):
        message = "'pair_safe' must be \"auto\", true or false"
        yield option(f"value-{n}", "pair_safe", value, message, "pair_safe", "'auto'")
    for n, value in enumerate(["0", "16", "63", "256"]):
        message = f"'group_size' must be 32, 64 or 128, got {value}"
        yield option(f"value-{n}", "group_size", value, message, "group_size", value)
    for n, value in enumerate(["null", '"64"', "64.0", "true"]):
        message = "'group_size' must be an integer that is not negative"
        yield option(f"type-{n}", "group_size", value, message, "group_size", "an integer")
    for n, value in enumerate(["true", '"0"', "null"]):
        message = "'dropout' must be a number in 0..1"
        yield option(f"type-{n}", "dropout", value, message, "dropout", "a number")
    for n, value in enumerate(["-0.1", "1.1", "-1", "2", "1e300"]):
        yield option(
            f"range-{n}", "dropout", value, "'dropout' must be a number in 0..1", "dropout"
        )
    for n, value in enumerate(
        [
            *("8", "null", "[]", "[8]", "[8,4,1]", "[8.0,4]", '["8",4]', "[0,4]", "[8,0]"),
            *("[12,4]", "[8,6]", "[-8,4]", "[65536,4]", "[8,65536]", '{"8":4}', "[8,true]"),
        ]
    ):
        message = "'block_size' must be a multiple of 8 and a multiple of 4, up to 65535"
        yield option(f"value-{n}", "block_size", value, message, "block_size")
    for name, value in (
        ("num_layers", "2"),
        ("bidirectional", "true"),
        ("proj_size", "2"),
        ("batch_first", "true"),
        ("dropout", "0.5"),
    ):
        message = "a cell has one layer and direction"
        yield option("cell", name, value, message, name, "cell", base="cell")
    yield option(
        "wide",
        "hidden_size",
        "32768",
        "num_directions * output size must be in 1..65535",
        num_layers=2,
        bidirectional=True,
    )


def precisions() -> Iterator[Malformed]:
    """A precision for each matrix, of a known name."""
    ih, hh = '"weight_ih_l0":"int8"', '"weight_hh_l0":"int8"'
    for n, (value, message) in enumerate(
        [
            ("8", "'precision' must be an object"),
            ('"int8"', "'precision' must be an object"),
            ("{}", "'precision': 'weight_ih_l0' is missing"),
            (f"{{{ih}}}", "'precision': 'weight_hh_l0' is missing"),
            (f'{{{ih},"weight_hh_l0":8}}', "'precision': 'weight_hh_l0' must be a string"),
            (
                f'{{{ih},{hh},"weight_hr_l0":"int8"}}',
                "'precision' names 3 matrices, the LSTM has 2",
            ),
            (f'{{{ih},{hh},"weight_*":"int8"}}', "'precision' names 3 matrices, the LSTM has 2"),
            ('{"weight_*":"int8"}', "'precision': 'weight_ih_l0' is missing"),
        ]
    ):
        yield option(f"value-{n}", "precision", value, message, "precision")
    for n, word in enumerate(["int2", "INT8", ""]):
        value = f'{{"weight_ih_l0":"{word}","weight_hh_l0":"{word}"}}'
        known = "int8, int16, float32, int4, table, table_float16"
        message = f"precision must be one of: {known}; got '{word}'"
        yield option(f"word-{n}", "precision", value, message, "int8", repr(word))


def tables() -> Iterator[Malformed]:
    """Tables of token ids where there is none."""
    only = "only weight_ih of the first layer can be a table"
    both = "the first layer's weight_ih of both directions are tables or neither"
    for n, (base, name, word, message) in enumerate(
        [
            ("int8", "weight_hh_l0", "table", f"weight_hh_l0: {only}"),
            ("int8-projected", "weight_hr_l0", "table_float16", f"weight_hr_l0: {only}"),
            ("int8-bidirectional", "weight_ih_l1", "table", f"weight_ih_l1: {only}"),
            ("int8-bidirectional", "weight_ih_l0", "table", f"weight_ih_l0_reverse: {both}"),
            ("table", "weight_ih_l0_reverse", "float32", f"weight_ih_l0_reverse: {both}"),
        ]
    ):
        value = json.dumps(Parts(base).options["precision"] | {name: word})
        yield option(f"table-{n}", "precision", value, message, "tables of token ids", base=base)
    message = "a FastSparseLSTM has no 'table' matrices"
    yield option("table", "class", '"FastSparseLSTM"', message, "table", base="table")


def names() -> Iterator[Malformed]:
    """LSTMs inside each other."""
    for n, (outer, inner) in enumerate([("", "a"), ("a", "a.b"), ("a", "a."), ("a.b", "a.b.c.d")]):

        def change(p: Parts, pair: tuple[str, str] = (outer, inner)) -> None:
            options = p.options
            beside = ["a-", "a-b"] if pair[0] else []
            p.configuration["lstms"] = dict.fromkeys([*pair, *beside], options)

        message = f"LSTM '{inner}' lies inside LSTM '{outer}'"
        yield made(f"inside-{n}", "int8", change, message, message)
