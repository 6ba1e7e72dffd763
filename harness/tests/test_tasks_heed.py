"""Tasks that had to be cancelled fail a run, unless their node was hindered shortly before."""

import pytest

from harness.backend import Event
from harness.checkers.tasks_heed import EXCUSED_FOR_S, check_tasks_heed
from harness.errors import CheckFailed


def deaf(at_s, node="ps0"):
    return Event(at_s, node, "deaf_task", {"task": "wal_receiver", "name": "tl"})


def test_run_without_cancellations_passes():
    assert check_tasks_heed([Event(1.0, "ps0", "process", {"state": "started"})]) == 0


def test_cancelled_task_is_named():
    with pytest.raises(CheckFailed, match="on ps0: task wal_receiver tl was asked to stop"):
        check_tasks_heed([deaf(1.0)])


@pytest.mark.parametrize(
    "hindrance",
    [
        Event(10.0, "ps0", "process", {"state": "resumed"}),
        Event(10.0, "harness", "process", {"node": "ps0", "state": "paused"}),
        Event(10.0, "harness", "fault", {"verb": "end", "target": "sk0 ps0"}),
    ],
)
def test_hindered_node_is_excused_for_a_while(hindrance):
    assert check_tasks_heed([hindrance, deaf(10.0 + EXCUSED_FOR_S - 0.001)]) == 1
    with pytest.raises(CheckFailed):
        check_tasks_heed([hindrance, deaf(10.0 + EXCUSED_FOR_S)])
    with pytest.raises(CheckFailed):
        check_tasks_heed([hindrance, deaf(10.0, "ps1")])


def test_work_for_a_client_may_be_cut_short():
    cut = Event(1.0, "ps0", "deaf_task", {"task": "http_request", "name": "POST /v1/checkpoint"})

    assert check_tasks_heed([cut]) == 0
