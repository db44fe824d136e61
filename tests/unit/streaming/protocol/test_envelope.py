"""Events on the wire."""

from __future__ import annotations

import json

from treadle.streaming.entries import COUNTER_BITS, Entry
from treadle.streaming.protocol.envelope import Emission, envelope_of, lifecycle, named

ID = (1795251190247 << COUNTER_BITS) + 5


def test_an_entry_as_an_event():
    entry = Entry(ID, "r", "event", "values|a:1|b:2", b'{"x":1}', None, 3)
    assert json.loads(envelope_of(entry).json()) == {
        "type": "event",
        "event_id": "1795251190247-5",
        "seq": 3,
        "method": "values",
        "params": {
            "namespace": ["a:1", "b:2"],
            "timestamp": 1795251190247,
            "data": {"x": 1},
        },
    }


def test_a_frame_has_the_method_the_event_and_the_number():
    entry = Entry(ID, "r", "event", "values", b"{}", None, 3)
    envelope = envelope_of(entry)
    assert envelope.frame == b"event: values\r\ndata: %b\r\nid: 3\r\n\r\n" % envelope.json()
    assert envelope.text == envelope.json().decode()


def test_it_is_encoded_once_for_all():
    entry = Entry(ID, "r", "event", "values", b"{}", None, 3, "", b'"checkpoint":{"id":"c"}')
    assert envelope_of(entry) is envelope_of(entry)
    envelope = envelope_of(entry)
    assert envelope.frame is envelope.frame
    assert envelope.text is envelope.text
    assert envelope.checkpoint_json is envelope.checkpoint_json


def test_params_stand_beside_the_data():
    entry = Entry(ID, "r", "protocol", "updates", b"{}", None, 3, "", b'"node":"a"')
    assert json.loads(envelope_of(entry).json())["params"]["node"] == "a"


def test_a_checkpoint_has_the_number_of_the_event_before_its_values():
    entry = Entry(ID, "r", "event", "values|a:1", b"{}", None, 3, "", b'"checkpoint":{"id":"c"}')
    envelope = envelope_of(entry)
    found = json.loads(envelope.checkpoint_json)
    assert (found["method"], found["seq"]) == ("checkpoints", 2)
    assert found["params"]["namespace"] == ["a:1"]
    assert found["params"]["data"] == {"id": "c"}
    assert found["event_id"] != json.loads(envelope.json())["event_id"]
    assert envelope.checkpoint_frame.endswith(b"\r\nid: 2\r\n\r\n")


def test_the_events_of_a_runs_course_name_the_run():
    """The JS SDK reads from them which run began."""
    emission = lifecycle("running", "chat")
    entry = Entry(ID, "r1", emission.kind, emission.name, emission.data, None, 1, emission.label)
    assert json.loads(envelope_of(entry).json())["event_id"] == "synth:r1:lc||running"


def test_names():
    assert named("values", ()) == "values"
    assert named("values", ("a:1", "b:2")) == "values|a:1|b:2"
    assert lifecycle("failed", "g", "why").data == (
        b'{"event":"failed","graph_name":"g","error":"why"}'
    )
    assert Emission("a", b"").numbered is False
