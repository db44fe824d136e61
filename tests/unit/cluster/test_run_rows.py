"""What rows of runs say to other processes."""

from __future__ import annotations

import socket

from treadle.cluster.run_rows import is_kept, owner_of, process_of


def test_a_process_is_found_by_what_its_leases_go_by(monkeypatch):
    assert [process_of(owner_of("0a1b", number)) for number in (1, 12)] == ["0a1b", "0a1b"]
    assert owner_of("0a1b", 1) != owner_of("0a1b", 2)
    monkeypatch.setattr(socket, "gethostname", lambda: "host:of.many.parts")
    assert process_of(owner_of("0a1b", 1)) == "0a1b"
    assert process_of(None) is None


def test_events_are_kept_of_resumable_runs():
    assert is_kept('{"resumable": true, "input": null}') is True
    assert is_kept('{"resumable": false}') is False
