"""An entry of the event log as an event on the wire, encoded once for all who get it.

The name of a numbered entry is its method and its namespace, joined with ``|``. Its label is
the state that a ``lifecycle`` event tells, the name that a ``custom`` one goes by, or the id of
an interrupt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from treadle.serialization import dumps
from treadle.streaming.entries import COUNTER_BITS, Entry, id_text

PROTOCOL = "protocol"
"""The kind of the entries that only this protocol shows."""

SEPARATOR = "|"
INPUT_REQUESTED = "input.requested"
INTERRUPT = "__interrupt__"
"""The key beside nodes and values under which langgraph streams interrupts."""

ENDS = frozenset(("completed", "failed", "interrupted"))
_CHECKPOINT = b'"checkpoint":'


class Emission(NamedTuple):
    """An event of a run on its way into the log; see ``ThreadLog.append``.

    ``urgent``: somebody has to act on it, so that it does not linger in a burst.
    """

    name: str
    data: bytes
    kind: str = "event"
    numbered: bool = False
    label: str = ""
    params: bytes = b""
    urgent: bool = False


class Envelope:
    """An event on the wire, and what filters look at."""

    __slots__ = ("_companion", "_entry", "_frame", "_text", "method", "namespace")

    def __init__(self, entry: Entry) -> None:
        method, *namespace = entry.name.split(SEPARATOR)
        self.method, self.namespace = method, namespace
        self._entry = entry
        self._frame: bytes | None = None
        self._text: str | None = None
        self._companion: bytes | None = None

    def json(self) -> bytes:
        """What is kept is only what is sent: the frame, or the text."""
        entry = self._entry
        assert entry.seq is not None
        params = b"%b," % entry.params if entry.params else b""
        return _event(
            self._event_id(), entry.seq, self.method, self.namespace, entry, params, entry.data
        )

    @property
    def frame(self) -> bytes:
        """As a server-sent event."""
        if self._frame is None:
            self._frame = _framed(self.method, self.json(), self._entry.seq or 0)
        return self._frame

    @property
    def text(self) -> str:
        """As a text message of a WebSocket."""
        if self._text is None:
            self._text = self.json().decode()
        return self._text

    # -- the checkpoint beside values ------------------------------------------------------

    @property
    def has_checkpoint(self) -> bool:
        return self._entry.params.startswith(_CHECKPOINT)

    @property
    def checkpoint_json(self) -> bytes:
        """The event of the channel ``checkpoints`` that comes right before these values.

        It is no event of its own: it goes wherever its values go. So it has the number of the
        event before them, and a client that was cut off between the two gets both again.
        """
        if self._companion is None:
            entry = self._entry
            assert entry.seq is not None
            checkpoint = entry.params.removeprefix(_CHECKPOINT)
            self._companion = _event(
                f"{id_text(entry.id)}-checkpoint",
                entry.seq - 1,
                "checkpoints",
                self.namespace,
                entry,
                b"",
                checkpoint,
            )
        return self._companion

    @property
    def checkpoint_frame(self) -> bytes:
        return _framed("checkpoints", self.checkpoint_json, (self._entry.seq or 1) - 1)

    def _event_id(self) -> str:
        if self.method == "lifecycle" and not self.namespace:
            # From this form the JS SDK reads which run an event began.
            return f"synth:{self._entry.run_id}:lc||{self._entry.label}"
        return id_text(self._entry.id)


def _event(
    event_id: str,
    seq: int,
    method: str,
    namespace: Sequence[str],
    entry: Entry,
    params: bytes,
    data: bytes,
) -> bytes:
    return (
        b'{"type":"event","event_id":"%b","seq":%d,"method":"%b",'
        b'"params":{"namespace":%b,"timestamp":%d,%b"data":%b}}'
        % (
            event_id.encode(),
            seq,
            method.encode(),
            dumps(namespace) if namespace else b"[]",
            entry.id >> COUNTER_BITS,
            params,
            data,
        )
    )


def _framed(method: str, json: bytes, seq: int) -> bytes:
    return b"event: %b\r\ndata: %b\r\nid: %d\r\n\r\n" % (method.encode(), json, seq)


def envelope_of(entry: Entry) -> Envelope:
    """The envelope of a numbered entry, made once."""
    envelope = entry.encoded
    if envelope is None:
        envelope = entry.encoded = Envelope(entry)
    return envelope


def named(method: str, namespace: Sequence[str]) -> str:
    """The name of an entry."""
    return SEPARATOR.join((method, *namespace)) if namespace else method


def checkpoint_param(json: bytes) -> bytes:
    """The params of values that a checkpoint holds."""
    return _CHECKPOINT + json


def lifecycle(event: str, graph_id: str, error: str | None = None) -> Emission:
    """What becomes of a run: ``running``, ``completed``, ``failed``, ``interrupted``."""
    data = {"event": event, "graph_name": graph_id}
    if error is not None:
        data["error"] = error
    return Emission("lifecycle", dumps(data), PROTOCOL, True, event)
