"""The two dialects on the wire.

Everything inside this room is in the words of 0.3; ``V1`` puts it into those of 1.0: enum names,
no ``kind``, and an envelope that says what a result is.
"""

from __future__ import annotations

from typing import Any, Protocol

Json = dict[str, Any]

STATES = (
    "submitted",
    "working",
    "completed",
    "failed",
    "canceled",
    "input-required",
    "rejected",
    "auth-required",
)
_ROLES = {"user": "ROLE_USER", "agent": "ROLE_AGENT"}
_WRAPPERS = {
    "task": "task",
    "message": "message",
    "status-update": "statusUpdate",
    "artifact-update": "artifactUpdate",
}


class Dialect(Protocol):
    """How a dialect says things that are given in the words of 0.3."""

    is_v1: bool

    def task(self, task: Json) -> Json: ...

    def event(self, event: Json) -> Json:
        """The result of a send, or one event of a stream."""
        ...


class V03:
    """0.3, as it is."""

    is_v1 = False

    def task(self, task: Json) -> Json:
        return task

    def event(self, event: Json) -> Json:
        return event


class V1:
    """1.0, as protobuf's JSON has it."""

    is_v1 = True

    def task(self, task: Json) -> Json:
        said = {key: value for key, value in task.items() if key != "kind"}
        said["status"] = _status(task["status"])
        if "history" in task:
            said["history"] = [_message(message) for message in task["history"]]
        if "artifacts" in task:
            said["artifacts"] = [_artifact(artifact) for artifact in task["artifacts"]]
        return said

    def event(self, event: Json) -> Json:
        kind = event["kind"]
        if kind == "task":
            return {"task": self.task(event)}
        said = {key: value for key, value in event.items() if key not in ("kind", "final")}
        if "status" in said:
            said["status"] = _status(said["status"])
        if "artifact" in said:
            said["artifact"] = _artifact(said["artifact"])
        return {_WRAPPERS[kind]: said}


def state_name(state: str) -> str:
    """A state in the words of 1.0."""
    return "TASK_STATE_" + state.replace("-", "_").upper()


STATE_NAMES = {**{state: state for state in STATES}, **{state_name(s): s for s in STATES}}
"""The states in the words of both dialects."""


def _status(status: Json) -> Json:
    said = {**status, "state": state_name(status["state"])}
    if "message" in status:
        said["message"] = _message(status["message"])
    return said


def _message(message: Json) -> Json:
    said = {key: value for key, value in message.items() if key != "kind"}
    said["role"] = _ROLES[message["role"]]
    said["parts"] = [_part(part) for part in message["parts"]]
    return said


def _artifact(artifact: Json) -> Json:
    return {**artifact, "parts": [_part(part) for part in artifact["parts"]]}


def _part(part: Json) -> Json:
    if part["kind"] != "file":
        return {part["kind"]: part[part["kind"]]}
    file = part["file"]
    named = {"raw": "bytes", "url": "uri", "mediaType": "mimeType", "filename": "name"}
    return {new: file[old] for new, old in named.items() if old in file}
