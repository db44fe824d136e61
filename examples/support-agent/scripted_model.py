"""A chat model that follows a script: no network, no key, and it streams word by word."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult

GREETING = "Hello! Tell me the number of your order, and I'll see what I can do."
ASK = "Which order is it about? It's a number of four digits."
REFUND = re.compile(r"refund|money back|broken|damaged|return", re.IGNORECASE)
GREET = re.compile(r"\b(hi|hello|hey|good (morning|evening))\b", re.IGNORECASE)
ORDER = re.compile(r"\b\d{4}\b")


class ScriptedModel(BaseChatModel):
    """Reacts to the words of the conversation as a support agent's model would."""

    seconds_per_word: float = 0.02

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> "ScriptedModel":
        return self

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any
    ) -> ChatResult:
        return generate_from_stream(iter(chunks(reply(messages))))

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in chunks(reply(messages)):
            yield chunk
            await asyncio.sleep(self.seconds_per_word)


def reply(messages: list[BaseMessage]) -> str | dict[str, Any]:
    """What the model says next: a text, or a tool's name and arguments."""
    last = messages[-1]
    if isinstance(last, ToolMessage):
        return after_tool(last)
    said = [message.text for message in messages if isinstance(message, HumanMessage)]
    orders = ORDER.findall(" ".join(said))
    if GREET.search(said[-1]) and not ORDER.search(said[-1]):
        return GREETING
    if not orders:
        return ASK
    if REFUND.search(said[-1]):
        return {"name": "refund_order", "args": {"order_id": orders[-1], "reason": said[-1]}}
    return {"name": "lookup_order", "args": {"order_id": orders[-1]}}


def after_tool(result: ToolMessage) -> str:
    if result.text.startswith("There is no order"):
        return f"{result.text} Could you check the number?"
    if result.name == "lookup_order":
        return f"{result.text} Is there anything wrong with it?"
    if "declined" in result.text:
        return "I'm sorry, I may not refund this order. A colleague will write to you."
    return f"{result.text} You'll have the money within five days."


def chunks(said: str | dict[str, Any]) -> list[ChatGenerationChunk]:
    """``said`` as a model streams it: word by word, or the call of a tool."""
    if isinstance(said, dict):
        call = {
            "name": said["name"],
            "args": json.dumps(said["args"]),
            "id": f"call_{uuid.uuid4().hex[:8]}",
            "index": 0,
        }
        return [ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[call]))]
    words = re.findall(r"\S+\s*", said)
    return [ChatGenerationChunk(message=AIMessageChunk(content=word)) for word in words]
