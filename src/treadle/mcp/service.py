"""The rules of tools: which there are for a caller, calling one, taking a call back."""

from __future__ import annotations

from collections.abc import Container
from hashlib import sha256
from typing import Any

import structlog

from treadle.assistants.models import AssistantSearch
from treadle.assistants.service import AssistantService
from treadle.auth import Caller
from treadle.errors import Denied, Forbidden, NotFound, Refused
from treadle.mcp.messages import INVALID_PARAMS, RpcError, RpcId
from treadle.mcp.tools import (
    LONGEST_NAME,
    Json,
    Names,
    Tool,
    input_schema,
    output_schema,
    part_of_title,
)
from treadle.runs.created import Created
from treadle.runs.models import StatelessRunCreate
from treadle.runs.service import RunService
from treadle.serialization import dumps

logger = structlog.get_logger("treadle.mcp")

PAGE = 1000
CALL = "mcp_call"
"""Under this key the metadata of a call's run says which call it is."""
Schemas = tuple[Json, Json | None]
MAX_SCHEMAS = 1000


class McpService:
    """Tools over assistants and runs. ``served`` are the graphs that this server has."""

    def __init__(
        self, assistants: AssistantService, runs: RunService, served: Container[str]
    ) -> None:
        self._assistants, self._runs, self._served = assistants, runs, served
        self._schemas: dict[tuple[str, int, str], Schemas] = {}

    async def tools(self, caller: Caller) -> list[Tool]:
        """All tools that the caller may use, the newest first."""
        names = Names(await self._search(caller))
        tools: list[Tool] = []
        for name, assistant in names.tools.items():
            try:
                schemas = await self._look(caller, assistant)
            except (NotFound, Forbidden):
                continue  # it may be searched for, but not used; or it is gone meanwhile
            except Denied as error:  # by a handler, in words of its own
                if error.status not in (Forbidden.status, NotFound.status):
                    raise
                continue
            tools.append(Tool(name, assistant, *schemas))
        return tools

    async def tool(self, caller: Caller, name: str | None) -> Tool:
        """The tool of a name. Raises ``RpcError`` if there is none, or more than one."""
        if name is None:
            raise RpcError(INVALID_PARAMS, "Unknown tool: params.name is missing")
        unknown = RpcError(INVALID_PARAMS, f"Unknown tool: {name}")
        if len(name) > LONGEST_NAME:
            raise unknown
        names = Names(await self._search(caller, part_of_title(name)))
        if name in names.shared:
            told_apart = {"tools": names.shared[name]}
            text = "Multiple tools found with the same name."
            raise RpcError(INVALID_PARAMS, text, told_apart)
        if (assistant := names.tools.get(name)) is None:
            raise unknown
        key = _schemas_key(caller, assistant)
        try:
            schemas = self._schemas.get(key) or await self._look(caller, assistant)
        except NotFound:
            raise unknown from None
        return Tool(name, assistant, *schemas)

    async def call(
        self,
        caller: Caller,
        request_id: str,
        tool: Tool,
        arguments: Json,
        *,
        call_key: str,
        shows_progress: bool,
    ) -> Created:
        """Accept a call: a run that leaves no thread, with a reader that will find its end.

        The reader gets the run's events too if the call ``shows_progress``.
        """
        body = StatelessRunCreate(
            assistant_id=tool.assistant["assistant_id"],
            input=tool.input_of(arguments),
            metadata={CALL: call_key},
            stream_mode=["tasks", "custom"] if shows_progress else ["values"],
        )
        watch = "events" if shows_progress else "end"
        return await self._runs.create(caller, request_id, None, body, watch)

    async def cancel(self, caller: Caller, call_key: str) -> None:
        """Cancel the run of a call, on whichever process it is.

        Nothing happens if it has ended, and if it cannot be told from another client's.
        """
        found = await self._runs.in_flight({CALL: call_key})
        if len(found) == 1:
            await self._runs.hung_up(caller, *found[0])
        elif found:
            logger.info("a cancelled call is one of several: all go on", calls=len(found))

    async def _search(self, caller: Caller, part_of_name: str = "") -> list[Json]:
        """The assistants that the caller may search for, the newest first."""
        found: list[Json] = []
        total = 1
        while len(found) < total:
            wanted = AssistantSearch(limit=PAGE, offset=len(found), name=part_of_name)
            page, total = await self._assistants.search(caller, wanted)
            if not page:
                break
            found += page
        return [one for one in found if one["graph_id"] in self._served]

    async def _look(self, caller: Caller, assistant: Json) -> Schemas:
        """What the assistant takes and gives. Raises ``NotFound`` and ``Forbidden``."""
        assistant_id: str = assistant["assistant_id"]
        try:
            found = await self._assistants.schemas(caller, assistant_id)
            reason = "its types have no JSON schema"
        except Refused as error:
            found, reason = {}, str(error)
        schemas = input_schema(found.get("input_schema")), output_schema(found.get("output_schema"))
        key = _schemas_key(caller, assistant)
        if found.get("input_schema") is None and key not in self._schemas:
            told = {"assistant_id": assistant_id, "graph_id": assistant["graph_id"]}
            logger.warning("a tool takes whatever it is sent", reason=reason, **told)
        if len(self._schemas) >= MAX_SCHEMAS:
            self._schemas.clear()
        self._schemas[key] = schemas
        return schemas


def _schemas_key(caller: Caller, assistant: Json) -> tuple[str, int, str]:
    return assistant["assistant_id"], assistant["version"], caller.identity


def call_key(caller: Caller, client: str, agent: str | None, id: RpcId) -> str:
    """What tells a call from those of others: who calls, from where, with what, and its id.

    There are no sessions, and clients count their requests from one on: the id is not enough.
    """
    who: list[Any] = [caller.identity, client, agent, id]
    return sha256(dumps(who)).hexdigest()[:32]
