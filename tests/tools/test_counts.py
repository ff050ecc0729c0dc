"""The instructions of our kernels and calls, counted by callgrind, are those of the repository."""

import json

import pytest

from callgrind import counts

DUMP = "version: 1\ndesc: Trigger: Client Request: step, 3 -> 8\nfn=(1)\n0 7\nsummary: 4321\n"


@pytest.mark.slow
def test_no_count_has_grown():
    if reason := counts.missing():
        pytest.skip(reason)
    recorded = json.loads(counts.FILE.read_text())
    if recorded["made_with"] != counts.made_with():
        pytest.skip(
            f"counts.json is of {recorded['made_with']}, this is {counts.made_with()}; "
            f"`{counts.WRITE}` writes new ones"
        )
    faults = counts.faults(recorded["instructions"], counts.measure())
    advice = f"If that is meant, write new counts: {counts.WRITE}"
    assert not faults, "\n".join([*faults, advice])


def test_what_has_grown_is_named():
    before = {"same": 1000, "faster": 1000, "within": 1000, "slower": 1000, "gone": 1}
    now = {"same": 1000, "faster": 500, "within": 1030, "slower": 1031, "new": 1}
    slower, *others = counts.faults(before, now)
    assert slower == "slower: 1,000 instructions have become 1,031 (+3.1%)"
    assert sorted(others) == ["gone: not counted on both sides", "new: not counted on both sides"]


def test_a_dump_of_callgrind():
    assert counts.parsed(DUMP) == ("step, 3 -> 8", 4321)


@pytest.mark.parametrize("dump", ["", DUMP.replace("4321", "0"), DUMP.replace("Client", "No")])
def test_a_count_that_is_none(dump):
    with pytest.raises(RuntimeError, match="has counted nothing"):
        counts.parsed(dump)
