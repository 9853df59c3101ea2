"""Running a network: tensors flow, every step is judged, an interrupted run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import numpy as np
import pytest

from isa.errors import UsageError
from simulator.network import run as network_run
from simulator.network.run import NetworkRun, run_network
from simulator.network.store import Store
from simulator.network.tensors import Tensors
from small_network import CHIP, Follower, plan

REQUEST = {"phase": "training", "batch": 3}


def train(store: Store | None = None, follower: Follower | None = None) -> NetworkRun:
    small = plan("training")
    tensors = Tensors(small, 0, shelf=store)
    return run_network(small, CHIP, tensors, store, follower or Follower())


@pytest.fixture(scope="module")
def trained() -> NetworkRun:
    return train()


def without_host(run: NetworkRun) -> list[object]:
    """Return what must be the same in two runs."""
    times = ("host_seconds", "place_seconds", "run_seconds", "readback_seconds")
    return [
        {key: value for key, value in row.to_dict().items() if key not in times} for row in run.rows
    ]


def test_every_kernel_is_judged_on_what_it_got(trained):
    assert [row.report.verified for row in trained.rows] == [True] * len(trained.rows)
    assert all(row.report.verification.startswith("all ") for row in trained.rows)
    assert len(trained.softmax["classes"]) == 3
    assert trained.softmax["loss"] > 0
    assert trained.resumed == 0


def test_without_numbers_the_cycles_are_the_same(trained):
    small = plan("training")
    chip = attrs.evolve(CHIP, timing_only=True)
    timed = run_network(small, chip, Tensors(small, 0), None, Follower())
    cycles = [row.report.cycles for row in timed.rows]
    assert cycles == [row.report.cycles for row in trained.rows]
    assert timed.softmax is None
    assert {row.report.verified for row in timed.rows} == {None}


def test_a_wrong_result_is_a_row_that_says_so(monkeypatch):
    simulate = network_run.simulate

    def spoilt(kernel, inputs, **options):
        run = simulate(kernel, inputs, **options)
        if kernel.name == "maxpool2d_forward":
            run.outputs["z"][1, 1, 0, 1] += 1
        return run

    monkeypatch.setattr(network_run, "simulate", spoilt)
    small = plan("inference")
    run = run_network(small, CHIP, Tensors(small, 0), None, Follower())
    verified = {row.name: row.report.verified for row in run.rows}
    assert verified == {"conv1": True, "conv2": True, "pool": False, "fc1": True, "fc2": True}
    assert "z[1, 1, 0, 1]" in run.rows[2].report.verification


@pytest.mark.parametrize("interrupted", [3, 9])
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, trained, interrupted):
    with pytest.raises(KeyboardInterrupt):
        train(Store(tmp_path, REQUEST), Follower(interrupted))
    store, follower = Store(tmp_path, REQUEST), Follower()
    run = train(store, follower)
    assert follower.begun == list(range(interrupted, len(trained.rows)))
    assert run.resumed == interrupted
    assert without_host(run) == without_host(trained)
    assert run.softmax == trained.softmax
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json"]


def test_a_finished_run_is_only_read(tmp_path, trained):
    train(Store(tmp_path, REQUEST))
    follower = Follower()
    run = train(Store(tmp_path, REQUEST), follower)
    assert follower.begun == []
    assert without_host(run) == without_host(trained)


def test_an_interrupt_while_files_are_written_loses_only_that_step(tmp_path, monkeypatch):
    small = plan("training")
    store = Store(tmp_path, REQUEST)
    written = network_run.Store.commit

    def torn(self, row, fresh, alive):
        if len(self.rows) == 2:
            monkeypatch.setattr("simulator.network.store.json.dumps", interrupt)
        written(self, row, fresh, alive)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(network_run.Store, "commit", torn)
        with pytest.raises(KeyboardInterrupt):
            run_network(small, CHIP, Tensors(small, 0, shelf=store), store, Follower())
    monkeypatch.undo()
    follower = Follower()
    train(Store(tmp_path, REQUEST), follower)
    assert follower.begun[0] == 2


def begun(folder: Path) -> bytes:
    with pytest.raises(KeyboardInterrupt):
        train(Store(folder, REQUEST), Follower(2))
    return (folder / "state.json").read_bytes()


@pytest.mark.parametrize(
    ("request_now", "message"),
    [
        ({"phase": "training", "batch": 4}, "holds a run with batch 3, here 4;"),
        ({"phase": "inference", "batch": 4}, "phase training, here inference; batch 3, here 4;"),
    ],
)
def test_leftovers_of_another_request_are_refused_and_kept(tmp_path, request_now, message):
    before = begun(tmp_path)
    with pytest.raises(UsageError, match=message) as refused:
        Store(tmp_path, request_now)
    assert "give --state another folder, or remove this one" in str(refused.value)
    assert (tmp_path / "state.json").read_bytes() == before
    assert Store(tmp_path, REQUEST).holds("conv2.z")


def test_leftovers_of_another_version_are_refused(tmp_path):
    state = json.loads(begun(tmp_path))
    state["request"]["version"] = "0123456789abcdef"
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(UsageError, match="holds a run with version 0123456789abcdef, here "):
        Store(tmp_path, REQUEST)


@pytest.mark.parametrize("text", ["", "[]", '{"rows": []}', "\x00\xff"])
def test_a_damaged_state_is_refused(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(UsageError, match=r"state.json' is no state of a run; nothing was changed"):
        Store(tmp_path, REQUEST)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rows", [{"name": "conv1"}]),
        ("rows", [{"name": "conv1", "report": {"kernel": "conv2d_forward"}, "softmax": None}]),
        ("rows", [3]),
        ("rows", "text"),
        ("tensors", ["conv2.z"]),
        ("tensors", {"conv2.z": "../important.npz"}),
        ("tensors", {"conv2.z": "/etc/important.npz"}),
        ("tensors", {"conv2.z": 7}),
    ],
)
def test_a_state_that_says_something_else_is_refused_and_nothing_removed(tmp_path, key, value):
    important = tmp_path / "important.npz"
    important.write_bytes(b"kept")
    folder = tmp_path / "state"
    state = json.loads(begun(folder))
    state[key] = value
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(UsageError, match=r"state.json' is no state of a run; nothing was changed"):
        train(Store(folder, REQUEST))
    assert important.read_bytes() == b"kept"


def test_more_rows_than_steps_are_refused(tmp_path):
    state = json.loads(begun(tmp_path))
    state["rows"] *= 100
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(UsageError, match=r"state.json' is no state of a run; nothing was changed"):
        train(Store(tmp_path, REQUEST))


def test_a_damaged_tensor_is_refused(tmp_path):
    begun(tmp_path)
    (file,) = tmp_path.glob("*-conv2.z.npz")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"conv2.z.npz' cannot be read: .*; nothing was changed"):
        train(Store(tmp_path, REQUEST))


def test_a_folder_with_something_else_is_not_used(tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(UsageError, match=r"holds 'thesis.tex' and no state.json"):
        Store(tmp_path, REQUEST)
    with pytest.raises(UsageError, match=r"cannot use folder '.*thesis.tex': File exists"):
        Store(tmp_path / "thesis.tex", REQUEST)


def test_what_is_kept_has_no_pickles(tmp_path):
    begun(tmp_path)
    (file,) = tmp_path.glob("*-conv2.z.npz")
    with np.load(file, allow_pickle=False) as archive:
        assert archive["tensor"].shape == (3, 2, 4, 4)
