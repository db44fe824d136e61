"""Agent cards: what an assistant is called, what it takes, and where."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from treadle import __version__
from treadle.assistants.models import Assistant
from treadle.assistants.service import AssistantService
from treadle.auth import Caller

Json = dict[str, Any]

SCOPE_HEADER = "LangGraph-A2A-History-Scope"
SCOPES = ("context", "task")
_MODES = ["application/json", "text/plain"]
_HISTORY_SCOPE = {
    "uri": "https://langchain.com/a2a/extensions/history-scope/v1",
    "description": "Whether a task's history is that of its whole context, or its own",
    "required": False,
    "params": {
        "header": SCOPE_HEADER,
        "values": list(SCOPES),
        "default": "context",
        "methods": ["SendMessage", "GetTask", "ListTasks"],
    },
}


class InputSchema(NamedTuple):
    """The fields of a graph's input."""

    properties: list[str]
    required: list[str]

    @property
    def takes_messages(self) -> bool:
        return "messages" in self.properties

    def json(self) -> Json:
        return {
            "required": self.required,
            "properties": self.properties,
            "supportsA2A": self.takes_messages,
        }


async def input_schema(
    assistants: AssistantService, caller: Caller, assistant: Assistant
) -> InputSchema:
    """What the assistant's graph takes."""
    schemas = await assistants.schemas(caller, assistant.assistant_id)
    schema: Json = schemas["input_schema"] or {}
    properties, required = schema.get("properties"), schema.get("required")
    return InputSchema(
        list(cast("Json", properties)) if isinstance(properties, dict) else [],
        [str(name) for name in cast("list[Any]", required)] if isinstance(required, list) else [],
    )


def card_json(assistant: Assistant, schema: InputSchema, base_url: str) -> Json:
    """The card of an assistant that is reached below ``base_url``.

    Push notifications work, and are not said to: other servers of this API have none, and
    clients of theirs take the card as it is.
    """
    url = f"{base_url}/a2a/{assistant.assistant_id}"
    description = assistant.description or f"{assistant.name} assistant"
    skill: Json = {
        "id": f"{assistant.assistant_id}-main",
        "name": f"{assistant.name} Capabilities",
        "description": description,
        "tags": ["assistant", "langgraph"],
        "examples": [],
        "inputModes": _MODES,
        "outputModes": _MODES,
        "metadata": {"inputSchema": schema.json()},
    }
    return {
        "name": assistant.name,
        "description": description,
        "url": url,
        "supportedInterfaces": [
            {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
        ],
        "capabilities": {
            "streaming": True,
            "pushNotifications": False,
            "stateTransitionHistory": False,
            "extensions": [_HISTORY_SCOPE],
        },
        "defaultInputModes": _MODES,
        "defaultOutputModes": _MODES,
        "skills": [skill],
        "version": __version__,
    }
