"""Promise: any A2A client can talk to an assistant. The example, and the official client."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a import types
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.utils.errors import TaskNotFoundError
from guides import PATIENCE_SECONDS, ROOT, printed_by, shown_in
from promise_server import Server

WORKING = types.TaskState.TASK_STATE_WORKING
COMPLETED = types.TaskState.TASK_STATE_COMPLETED
CANCELED = types.TaskState.TASK_STATE_CANCELED


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[Path], str]) -> Any:
    """A server of the example agent."""
    folder = tmp_path_factory.mktemp("agents")
    server = Server(folder, new_database(folder))
    shutil.copytree(ROOT / "examples" / "support-agent", folder, dirs_exist_ok=True)
    config = json.loads((folder / "langgraph.json").read_text())
    config["webhooks"] = {"url": {"require_https": False, "disable_loopback": False}}
    (folder / "langgraph.json").write_text(json.dumps(config))
    yield server.start()
    server.kill()


@pytest.fixture
async def agent(agents: Server) -> AsyncIterator[Client]:
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as http:
        card = await A2ACardResolver(http, f"{agents.url}/a2a/support").get_agent_card()
        yield ClientFactory(ClientConfig(httpx_client=http)).create(card)


def request(text: str, **fields: Any) -> types.SendMessageRequest:
    message = types.Message(
        message_id=str(uuid.uuid4()),
        role=types.Role.ROLE_USER,
        parts=[types.Part(text=text)],
        **fields,
    )
    return types.SendMessageRequest(message=message)


def test_the_guide_shows_what_the_example_prints(agents: Server):
    assert printed_by("a2a_client", agents.url) == shown_in("a2a", "support:")


async def test_a_client_that_comes_back_gets_the_rest(agent: Client):
    sent = agent.send_message(request("Where is my order 1042?"))
    task_id = (await anext(sent)).task.id
    await sent.aclose()
    events = [e async for e in agent.subscribe(types.SubscribeToTaskRequest(id=task_id))]
    assert events[0].task.id == task_id
    assert events[-1].status_update.status.state == COMPLETED
    [artifact] = [e.artifact_update.artifact for e in events if e.HasField("artifact_update")]
    assert artifact.parts[0].text.startswith("Order 1042: espresso machine")
    texts = [
        event.status_update.status.message.parts[0].text
        for event in events
        if event.HasField("status_update") and event.status_update.status.state == WORKING
    ]
    assert not texts or texts[-1] == artifact.parts[0].text


async def test_a_client_lists_reads_and_cancels_tasks(agent: Client):
    asked = [e async for e in agent.send_message(request("1042 is broken, I want a refund"))]
    task = asked[0].task
    found = await agent.list_tasks(types.ListTasksRequest(context_id=task.context_id))
    assert [listed.id for listed in found.tasks] == [task.id]
    canceled = await agent.cancel_task(types.CancelTaskRequest(id=task.id))
    assert canceled.status.state == CANCELED
    assert (await agent.get_task(types.GetTaskRequest(id=task.id))).status.state == CANCELED
    with pytest.raises(TaskNotFoundError):
        await agent.get_task(types.GetTaskRequest(id="nope"))


async def test_a_client_hears_by_a_push_notification(agent: Client):
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.findall(rb"content-length: (\d+)", head.lower())[0])
        got.set_result(head + await reader.readexactly(length))
        writer.write(b"HTTP/1.1 204 X\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hear, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        wanted = request("Where is my order 1043?")
        config = wanted.configuration.task_push_notification_config
        config.url, config.token = f"http://127.0.0.1:{port}/", "token"
        sent = agent.send_message(wanted)
        task = (await anext(sent)).task
        await sent.aclose()
        configs = await agent.list_task_push_notification_configs(
            types.ListTaskPushNotificationConfigsRequest(task_id=task.id)
        )
        assert [found.url for found in configs.configs] == [config.url]
        async with asyncio.timeout(PATIENCE_SECONDS):
            told = await got
    assert b"x-a2a-notification-token: token" in told.lower()
    assert b'"state":"TASK_STATE_COMPLETED"' in told
    assert b"Order 1043: coffee grinder" in told


async def test_errors_reach_the_client(agent: Client):
    with pytest.raises(TaskNotFoundError, match="Task not found: nope"):
        async for _ in agent.send_message(request("x", task_id="nope")):
            pass
