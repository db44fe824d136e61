"""``treadle chat``: a conversation with an agent of a running server, by the public SDK."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

import click

HELP = "/new starts a new thread, /quit ends."
LONGEST_RESULT = 500


@click.command()
@click.argument("assistant", required=False)
@click.option("--url", default="http://127.0.0.1:2024", show_default=True, help="The server.")
@click.option("--thread", "thread_id", metavar="ID", help="Go on with this thread.")
def chat(assistant: str | None, url: str, thread_id: str | None) -> None:
    """Talk to ASSISTANT, a graph's name or an assistant's id; the server's first by default.

    Reads a line per turn, from a terminal or from a pipe. When the graph asks, the next line is
    the answer: JSON if it is an object, an array, a number, true, false or null, else text.
    """
    import httpx
    from langgraph_sdk import get_client
    from langgraph_sdk.errors import LangGraphError

    try:
        asyncio.run(_chat(get_client(url=url), url, assistant, thread_id))
    except (httpx.ConnectError, httpx.ConnectTimeout):
        raise click.ClickException(
            f"No server answers at {url}. Start one with treadle dev, or name it with --url."
        ) from None
    except (httpx.HTTPError, LangGraphError) as error:
        raise click.ClickException(f"{url}: {error}") from error


async def _chat(client: Any, url: str, assistant: str | None, thread_id: str | None) -> None:
    async with client:
        name = assistant or await _first_assistant(client)
        if thread_id is None:
            thread_id = cast("str", (await client.threads.create())["thread_id"])
        conversation = Conversation(client, name, thread_id)
        click.secho(f"{name} at {url}, thread {thread_id}. {HELP}", dim=True, err=True)
        await conversation.answer_what_is_open()
        while (line := ask("you> ")) is not None and line != "/quit":
            if line == "/new":
                conversation.thread_id = (await client.threads.create())["thread_id"]
                click.secho(f"Thread {conversation.thread_id}.", dim=True, err=True)
            elif line:
                message = {"role": "user", "content": line}
                await conversation.turn(input={"messages": [message]})


async def _first_assistant(client: Any) -> str:
    found = await client.assistants.search(limit=1, sort_by="created_at", sort_order="asc")
    if not found:
        raise click.ClickException("The server has no assistants.")
    return found[0]["graph_id"]


def ask(prompt: str) -> str | None:
    """The next line without its blanks, None at the end of the input. A piped line is echoed."""
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            importlib.import_module("readline")  # line editing and history for input()
        try:
            return input(prompt).strip()
        except EOFError:
            click.echo()
            return None
    line = sys.stdin.readline()
    if not line:
        return None
    click.echo(f"{prompt}{line.strip()}")
    return line.strip()


class Conversation:
    """A thread, and the turns on it."""

    def __init__(self, client: Any, assistant: str, thread_id: str) -> None:
        self._client, self._assistant, self.thread_id = client, assistant, thread_id

    async def turn(self, **payload: Any) -> None:
        """One run, and one more for each round of questions that the graph asks."""
        while True:
            questions = await self._run(payload)
            if not questions:
                return
            if (answers := ask_all(questions)) is None:
                return
            payload = {"command": {"resume": answers}}

    async def answer_what_is_open(self) -> None:
        """Answer the questions at which the thread stands, if it does."""
        state = await self._client.threads.get_state(self.thread_id)
        if (questions := state.get("interrupts")) and (answers := ask_all(questions)) is not None:
            await self.turn(command={"resume": answers})

    async def _run(self, payload: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Show one run as it streams; the questions at which it stopped."""
        parts: AsyncIterator[Any] = self._client.runs.stream(
            self.thread_id,
            self._assistant,
            stream_mode=["messages-tuple", "updates"],
            on_disconnect="cancel",
            **payload,
        )
        screen, questions = Screen(), list[dict[str, Any]]()
        async for part in parts:
            if part.event == "messages":
                screen.message(part.data[0])
            elif part.event == "updates" and "__interrupt__" in (part.data or {}):
                questions += part.data["__interrupt__"]
            elif part.event == "error":
                screen.error(part.data)
        screen.end_line()
        return questions


class Screen:
    """What one run has printed so far."""

    def __init__(self) -> None:
        self._open: str | None = None
        """What the line under way belongs to: a message's id and kind."""

    def message(self, message: Mapping[str, Any]) -> None:
        """Show a message, or a chunk of one."""
        if message["type"] == "tool":
            self._line(f"  {shorten(text_of(message.get('content')))}", dim=True)
        elif message["type"] in ("AIMessageChunk", "ai"):
            if text := text_of(message.get("content")):
                self._stream(f"{message.get('id')} text", text, "agent> ")
            for call in message.get("tool_call_chunks") or self._whole_calls(message):
                key = f"{message.get('id')} call {call.get('index')}"
                heading = f"  {call.get('name') or 'tool'} "
                self._stream(key, call.get("args") or "", heading, "cyan")

    @staticmethod
    def _whole_calls(message: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        if message["type"] != "ai":
            return ()
        calls = cast("list[dict[str, Any]]", message.get("tool_calls") or [])
        return [
            {**call, "args": json.dumps(call.get("args"), ensure_ascii=False), "index": index}
            for index, call in enumerate(calls)
        ]

    def error(self, data: Any) -> None:
        """Show why the run failed."""
        known = isinstance(data, dict)
        text = f"{data.get('error')}: {data.get('message')}" if known else str(data)
        self._line(f"error> {text}", fg="red")

    def end_line(self) -> None:
        """Finish the line under way, if there is one."""
        if self._open is not None:
            click.echo()
        self._open = None

    def _stream(self, key: str, text: str, heading: str, colour: str | None = None) -> None:
        if self._open != key:
            self.end_line()
            self._open = key
            click.secho(heading, nl=False, fg=colour, bold=colour is None)
        click.secho(text, nl=False, fg=colour)
        sys.stdout.flush()

    def _line(self, text: str, **style: Any) -> None:
        self.end_line()
        click.secho(text, **style)


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or a list of blocks."""
    if isinstance(content, str):
        return content
    blocks = cast("list[Any]", content or [])
    return "".join(block if isinstance(block, str) else block.get("text") or "" for block in blocks)


def shorten(text: str) -> str:
    """``text`` up to a length that leaves the conversation readable."""
    return text if len(text) <= LONGEST_RESULT else text[:LONGEST_RESULT] + " ..."


def ask_all(questions: Sequence[Mapping[str, Any]]) -> Any:
    """The answers as ``resume`` takes them; None at the end of the input."""
    answers: dict[str, Any] = {}
    for question in questions:
        value = question.get("value")
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if isinstance(value, dict) and isinstance(value.get("question"), str):
            rest = {name: item for name, item in value.items() if name != "question"}
            shown = value["question"] + (f" {json.dumps(rest, ensure_ascii=False)}" if rest else "")
        click.secho(f"asked> {shown}", fg="yellow")
        if (line := ask("answer> ")) is None:
            return None
        answers[cast("str", question["id"])] = parse_answer(line)
    return answers


def parse_answer(line: str) -> Any:
    """JSON where the line is JSON, else the line itself."""
    try:
        return json.loads(line)
    except ValueError:
        return line
