"""benchmarks/compare.py and run_all.py: who is left out, what is wrong, and the arithmetic."""

import math

import numpy as np
import pytest

import compare
import measuring
import peers
import plot
import report
import run_all
from peers import Peer
from peers.peer import as_array, run_module
from quantizers import int8_rows
from workloads import Workload, floor_seconds

TINY = Workload("tiny", 3, 5, batch=2, steps=4)
TINY_STREAM = Workload("stream", 3, 5, batch=1, steps=4, streaming=True)


def right(workload, lstm, threads):
    return run_module(workload, lstm)


def spoiled(change):
    """A peer that changes what nn.LSTM gives."""

    def make(workload, lstm, threads):
        run = run_module(workload, lstm)
        return lambda: change(as_array(run()))

    return make


def failing(workload, lstm, threads):
    raise RuntimeError("no such operator")


def failing_later(workload, lstm, threads):
    def run():
        raise RuntimeError("no memory")

    return run


def prepare(*makes, isa=None):
    named = [Peer(str(i), make, isa) for i, make in enumerate(makes)]
    runs, snr, faults = measuring.prepare(named, TINY, TINY.float_lstm(), 1)
    return [peer.name for peer in runs], [snr[peer] for peer in runs], faults


def result(peer, us, ours=False, snr_db=40.0, floor=2.0):
    return {
        "peer": peer,
        "ours": ours,
        "median_us": us,
        "min_us": us - 1,
        "gmacs": 1.0,
        "ratio_to_ours": us / 10,
        "ratio_to_floor": us / floor,
        "snr_db": snr_db,
    }


def text_of(*results):
    workload = {"name": "Q", "int8_bytes": 1000, "packed_bytes": 1100, "results": list(results)}
    return report.markdown(
        {
            **{"cpu": "X", "threads": 1, "repeats": 7, "date": "D", "versions": {"torch": "2"}},
            **{"notes": ["Z is left out: no Z."], "workloads": [workload | {"floors_us": {}}]},
        }
    )


# ---- which results are right ----


def test_outputs_are_compared_with_float64():
    names, snr, faults = prepare(right, lambda *_: None)
    assert (names, faults) == (["0"], [])
    assert snr[0] > 100


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y[:-1],
        lambda y: y[..., None],
        lambda y: np.where(y == y.max(), np.nan, y),
        lambda y: np.where(y == y.max(), np.inf, y),
    ],
)
def test_outputs_of_another_shape_or_that_are_not_finite_have_no_snr(change):
    names, snr, _ = prepare(spoiled(change))
    assert (names, snr) == (["0"], [None])
    assert report.is_wrong({"snr_db": None})


def test_the_snr_of_known_noise():
    expected = np.array([[[3.0, 4.0]]])
    assert measuring.snr_db(expected * 1.1, expected) == pytest.approx(20)
    assert measuring.snr_db(expected, expected) == math.inf


def test_where_wrong_begins():
    assert report.is_wrong({"snr_db": 14.9})
    assert report.is_wrong({"snr_db": math.nan})
    assert not report.is_wrong({"snr_db": 15.0})


# ---- who is left out ----


def test_a_peer_that_fails_is_left_out():
    names, _, faults = prepare(failing, right, failing_later)
    assert names == ["1"]
    assert faults == ["0 fails on tiny: no such operator.", "2 fails on tiny: no memory."]


def test_ours_must_not_fail():
    with pytest.raises(RuntimeError, match="no such operator"):
        prepare(failing, isa=measuring.lfk.get_isa())


def test_a_library_is_tried_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(peers, "LIBRARIES", {"torch": "pytorch", "Nothing": "nothing"})
    found, notes = peers.available()
    assert [peer.name for peer in found] == ["nn.LSTM", "nn.LSTMCell"]
    (note,) = notes
    assert note == ("Nothing is left out: ModuleNotFoundError: No module named 'peers.nothing'.")


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import os; os.kill(os.getpid(), 11)", "it ended with SIGSEGV"),
        ("import sys; sys.exit(3)", "exit status 3"),
        ("import time; time.sleep(9)", "it took more than 1 s"),
    ],
)
def test_why_a_library_does_not_run(code, fault, monkeypatch):
    run = peers.subprocess.run
    monkeypatch.setattr(peers, "TRIAL_SECONDS", 1)
    monkeypatch.setattr(
        peers.subprocess, "run", lambda command, **rest: run([command[0], "-c", code], **rest)
    )
    assert peers.fault_of("pytorch") == fault


# ---- the arithmetic ----


def test_a_part_of_the_report(monkeypatch):
    seconds = {"ours": [1e-6, 2e-6, 3e-6], "peer": [4e-6, 4e-6, 4e-6]}
    monkeypatch.setattr(
        compare,
        "time_in_turns",
        lambda runs, *_: {peer: [4 * s for s in seconds[peer.name]] for peer in runs},
    )
    limits = {
        "gmacs": {"int8_maddubs": 1.0, "float32_fma": 1.0},
        "bandwidth_gbs": {"16384": 100.0},
    }
    contestants = [
        Peer("ours", right, measuring.lfk.get_isa(), "int8 avx2"),
        Peer("peer", right),
        Peer("none", failing),
    ]
    part, faults = compare.compare(TINY, contestants, limits, 1, 3)
    assert len(faults) == 1
    assert part["int8_bytes"] == 4 * 5 * (3 + 5)
    ours, peer = part["results"]
    floor = floor_seconds(TINY, limits)["int8 avx2"] * 1e6
    assert (ours["ours"], peer["ours"]) == (True, False)
    assert (ours["median_us"], ours["min_us"]) == (pytest.approx(2), pytest.approx(1))
    assert ours["ratio_to_floor"] == pytest.approx(2 / floor)
    assert peer["ratio_to_floor"] == pytest.approx(4 / min(part["floors_us"].values()))
    assert peer["ratio_to_ours"] == pytest.approx(2)  # the median of 4, 2 and 4 / 3
    assert ours["gmacs"] == pytest.approx(160 * 2 / 2e-6 * 1e-9)


def test_streaming_peers_of_ours_and_of_torch_agree(monkeypatch):
    isas = measuring.instruction_sets()
    if not isas:
        pytest.skip("only the scalar kernels run here")
    monkeypatch.setattr(peers, "LIBRARIES", {"torch": "pytorch", "torch int8": "torch_ao"})
    contestants = peers.ours(isas) + peers.available()[0]
    for workload in (TINY_STREAM, TINY):
        runs, snr, faults = measuring.prepare(contestants, workload, workload.float_lstm(), 1)
        assert faults == []
        assert len(runs) == len(contestants) - (0 if workload.streaming else 3)
        assert all(db > 20 for db in snr.values()), snr
        ours = [db for peer, db in snr.items() if peer.isa and "int16" not in peer.name]
        assert len(set(ours)) == 1


# ---- the report ----


def test_a_wrong_result_is_called_wrong_and_is_not_the_best_peer():
    text = text_of(
        result("ours", 10.0, ours=True),
        result("ours too", 1.0, ours=True),
        result("fast", 2.0, snr_db=3.0),
        result("broken", 3.0, snr_db=None),
        result("slow", 25.0),
    )
    assert "| workload | ours | ours too | fast | broken | slow | best peer / ours |" in text
    assert "| Q | 10 | 1 | wrong | wrong | 25 | 2.5 slow | 5 |" in text
    assert "| Q | fast | wrong | wrong | wrong | wrong | wrong | 3 |" in text
    assert "| Q | broken | wrong | wrong | wrong | wrong | wrong | none |" in text
    assert "| Q | slow | 25 | 24 | 1 | 2.5 | 12.5 | 40 |" in text
    assert "- Z is left out: no Z." in text


def test_without_a_peer_that_is_right_there_is_no_ratio():
    text = text_of(result("ours", 10.0, ours=True), result("fast", 2.0, snr_db=3.0))
    assert "| Q | 10 | wrong |  | 5 |" in text


def test_when_ours_is_wrong():
    text = text_of(result("ours", 10.0, ours=True, snr_db=1.0), result("peer", 20.0))
    assert "| Q | wrong | 20 | wrong | wrong |" in text


def test_peers_are_given_weights_with_a_scale_for_each_row():
    weight = np.array([[[0.5, -2.0], [0.0, 0.0]]], np.float32)
    integers, scale = int8_rows(weight, 64)
    assert (integers.dtype, scale.dtype) == (np.int8, np.float32)
    assert integers.tolist() == [[[16, -64], [0, 0]]]
    assert scale.tolist() == [[2 / 64, 1.0]]


# ---- all together ----


def test_the_readme_keeps_what_stands_above_the_mark(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"method\n{run_all.MARK}old figures\n")
    run_all.write_last_run(readme, "new figures\n")
    assert readme.read_text() == f"method\n{run_all.MARK}\nnew figures\n"
    readme.write_text("method\n")
    with pytest.raises(ValueError, match="has no line"):
        run_all.write_last_run(readme, "new figures\n")
    assert run_all.README.read_text().count(run_all.MARK) == 1


def test_parts_without_such_a_workload_are_not_run():
    assert run_all.part_has(run_all.PARTS["sparse"], None)
    assert run_all.part_has(run_all.PARTS["sparse"], ["S_40_128", "S_256*"])
    assert not run_all.part_has(run_all.PARTS["sparse"], ["S_40_128"])


def test_a_plot(tmp_path):
    target = tmp_path / "plot.svg"
    workloads = [
        {"name": "Q_1", "results": [result("ours", 10.0, ours=True), result("x", 20.0)]},
        {"name": "Q_2", "results": [result("ours", 10.0, ours=True, snr_db=None)]},
    ]
    plot.draw({"One thread": workloads, "Two threads": workloads[:1]}, target)
    assert target.read_text().count("<svg") == 1
