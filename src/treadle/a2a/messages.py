"""Messages: from the wire to a graph's input, and from a graph's state to the wire."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from treadle.a2a.errors import UNSUPPORTED_CONTENT, RpcError, invalid
from treadle.a2a.params import text_of

Json = dict[str, Any]

SUPPORTED = "A2A agents support 'text', 'data', and 'file' parts only."
MARK = "a2a"
"""The key, in metadata of runs and in ``additional_kwargs`` of messages, of what is this room's."""
_FILE_BLOCKS = ("image", "audio", "video")


@dataclass
class Incoming:
    """A message that a client sends: its texts and files as content blocks, its data as one."""

    message_id: str
    is_user: bool
    task_id: str | None
    context_id: str | None
    blocks: list[Json] = field(default_factory=list[Json])
    data: Json = field(default_factory=dict[str, Any])
    parts: list[Json] = field(default_factory=list[Json])
    """Its parts in the words of 0.3."""

    @property
    def content(self) -> str | list[Json]:
        """One text alone is a text."""
        if len(self.blocks) == 1 and self.blocks[0]["type"] == "text":
            return self.blocks[0]["text"]
        return self.blocks

    def graph_input(self, task_start_id: str) -> Json:
        """What a graph is given: the message, beside the data."""
        if not self.blocks:
            return self.data
        message = {
            "role": "human" if self.is_user else "ai",
            "content": self.content,
            "id": self.message_id,
            "additional_kwargs": {MARK: {"task_start_id": task_start_id}},
        }
        before = self.data.get("messages")
        earlier = cast("list[Any]", before) if isinstance(before, list) else [before]
        if before is None:
            earlier = []
        return {**self.data, "messages": [*earlier, message]}

    @property
    def answer(self) -> Any:
        """What the message answers to a question: its text, its data, or both in one object."""
        if not self.blocks:
            return self.data
        texts = [block["text"] for block in self.blocks if block["type"] == "text"]
        said = "\n".join(texts) if len(texts) == len(self.blocks) else self.blocks
        return {**self.data, "text": said} if self.data else said

    def wire(self, task_id: str, context_id: str) -> Json:
        """The message as a task's history has it."""
        return message_json(
            "user" if self.is_user else "agent", self.parts, self.message_id, task_id, context_id
        )


# -- from the wire -----------------------------------------------------------------------------


def parse_message(params: Json) -> Incoming:
    """The message of a send."""
    message = params.get("message")
    if not isinstance(message, dict):
        raise invalid("Missing or invalid 'message' in params")
    fields = cast("Json", message)
    message_id = fields.get("messageId")
    parts: Any = fields.get("parts")
    if parts is not None and not isinstance(parts, list):
        raise invalid("Invalid params: 'parts' must be an array")
    if not parts:
        raise invalid("Message must contain at least one part")
    if not isinstance(message_id, str) or not message_id:
        raise invalid("Missing required 'messageId' in message")
    if text_of(fields, "role") is None:
        raise invalid("Missing required 'role' in message")
    incoming = Incoming(
        message_id,
        fields.get("role") in ("user", "ROLE_USER"),
        text_of(fields, "taskId"),
        text_of(fields, "contextId"),
    )
    for number, part in enumerate(cast("list[Any]", parts)):
        _take_part(incoming, part, f"message.parts[{number}]")
    return incoming


def _take_part(incoming: Incoming, given: Any, where: str) -> None:
    if not isinstance(given, dict):
        raise RpcError(UNSUPPORTED_CONTENT, f"Each message part must be an object. {SUPPORTED}")
    part = cast("Json", given)
    kind = _kind(part)
    if kind == "text":
        if not isinstance(part.get("text"), str):
            raise invalid(f"{where}.text must be a string")
        incoming.blocks.append({"type": "text", "text": part["text"]})
        incoming.parts.append({"kind": "text", "text": part["text"]})
    elif kind == "data":
        data = part.get("data")
        if not isinstance(data, dict):
            raise RpcError(
                UNSUPPORTED_CONTENT, "DataPart must contain a JSON object in the 'data' field"
            )
        incoming.data.update(cast("Json", data))
        incoming.parts.append({"kind": "data", "data": data})
    else:
        file = _file(part, where)
        incoming.blocks.append(_file_block(file))
        incoming.parts.append({"kind": "file", "file": file})


def _kind(part: Json) -> str:
    """What a part is: by its ``kind``, or as in 1.0 by the field that it has."""
    kind = part.get("kind")
    if kind is None:
        kind = next((key for key in ("text", "data", "file", "raw", "url") if key in part), None)
        if kind in ("raw", "url"):
            kind = "file"
    if kind not in ("text", "data", "file"):
        raise RpcError(UNSUPPORTED_CONTENT, f"Unsupported part type. {SUPPORTED}")
    return kind


def _file(part: Json, where: str) -> Json:
    """A file in the words of 0.3, from those of either dialect."""
    names = {"bytes": "raw", "uri": "url", "mimeType": "mediaType", "name": "filename"}
    file: Any = part.get("file")
    if file is None:
        file = {old: part[new] for old, new in names.items() if new in part}
    elif not isinstance(file, dict):
        raise invalid(f"{where}.file must be an object")
    found: Json = {}
    for key in names:
        value = cast("Json", file).get(key)
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise invalid(f"{where}.file.{key} must be a string")
        found[key] = value
    if ("bytes" in found) == ("uri" in found):
        raise invalid(f"{where}.file must have either bytes (in base64) or a uri")
    if "bytes" in found:
        try:
            base64.b64decode(found["bytes"], validate=True)
        except (binascii.Error, ValueError):
            raise invalid(f"{where}.file.bytes must be base64") from None
    return found


def _file_block(file: Json) -> Json:
    mime_type: str | None = file.get("mimeType")
    family = (mime_type or "").partition("/")[0]
    block: Json = {"type": family if family in _FILE_BLOCKS else "file"}
    block |= {"base64": file["bytes"]} if "bytes" in file else {"url": file["uri"]}
    if mime_type is not None:
        block["mime_type"] = mime_type
    if "name" in file:
        block["extras"] = {"filename": file["name"]}
    return block


# -- from a state ------------------------------------------------------------------------------


def message_json(
    role: str, parts: Sequence[Json], message_id: str, task_id: str, context_id: str
) -> Json:
    """A message of a task, in the words of 0.3."""
    return {
        "kind": "message",
        "role": role,
        "parts": [*parts],
        "messageId": message_id,
        "taskId": task_id,
        "contextId": context_id,
    }


def messages_of(values: Any) -> list[Json]:
    """The messages that a state holds, as JSON."""
    if not isinstance(values, dict):
        return []
    found = cast("Json", values).get("messages")
    listed = cast("list[Any]", found) if isinstance(found, list) else []
    return [cast("Json", message) for message in listed if isinstance(message, dict)]


def role_of(message: Json) -> str | None:
    """Who speaks; None is nobody whom the other agent hears: a tool, the system."""
    kind = message.get("type")
    if kind in ("human", "HumanMessageChunk"):
        return "user"
    return "agent" if kind in ("ai", "AIMessageChunk") else None


def mark_of(message: Json) -> str | None:
    """The start id of the task that a message began."""
    extra = message.get("additional_kwargs")
    mark = cast("Json", extra).get(MARK) if isinstance(extra, dict) else None
    start = cast("Json", mark).get("task_start_id") if isinstance(mark, dict) else None
    return start if isinstance(start, str) else None


def parts_of(message: Json) -> list[Json]:
    """What a message says, in parts; tool calls and the like are left out."""
    content = message.get("content")
    if isinstance(content, str):
        return [{"kind": "text", "text": content}] if content else []
    blocks: Iterable[Any] = cast("list[Any]", content) if isinstance(content, list) else ()
    return [part for block in blocks if (part := _part_of(block)) is not None]


def text_in(message: Json) -> str:
    """The text of a message."""
    return "".join(part["text"] for part in parts_of(message) if part["kind"] == "text")


def _part_of(block: Any) -> Json | None:
    if isinstance(block, str):
        return {"kind": "text", "text": block} if block else None
    if not isinstance(block, dict):
        return None
    fields = cast("Json", block)
    kind = fields.get("type")
    if kind == "text":
        text = fields.get("text")
        return {"kind": "text", "text": text} if isinstance(text, str) and text else None
    if kind not in (*_FILE_BLOCKS, "file"):
        return None
    file: Json = {}
    if isinstance(fields.get("base64"), str):
        file["bytes"] = fields["base64"]
    elif isinstance(fields.get("url"), str):
        file["uri"] = fields["url"]
    else:
        return None
    if isinstance(fields.get("mime_type"), str):
        file["mimeType"] = fields["mime_type"]
    extras = fields.get("extras")
    name = cast("Json", extras).get("filename") if isinstance(extras, dict) else None
    if isinstance(name, str):
        file["name"] = name
    return {"kind": "file", "file": file}
