"""The graph behind the page: what the user writes is the script of the answer.

A model streams the words back, one by one. At a word ``@name`` it waits until the test has put a
file of that name into the folder GATES. An answer with ``ask`` in it is followed by a question.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt

WORD_SECONDS = 0.02


def is_open(gate: str) -> bool:
    return (Path(os.environ["GATES"]) / gate).exists()


class ScriptedModel(BaseChatModel):
    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        raise NotImplementedError("it only streams")

    async def _astream(
        self, messages: list[BaseMessage], *_: Any, **__: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        space = ""
        for word in str(messages[-1].text).split():
            if word.startswith("@"):
                while not is_open(word[1:]):  # noqa: ASYNC110  another process opens it
                    await asyncio.sleep(0.01)
                continue
            yield ChatGenerationChunk(message=AIMessageChunk(content=space + word))
            space = " "
            await asyncio.sleep(WORD_SECONDS)


async def speak(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await ScriptedModel().ainvoke(state["messages"])]}


def confirm(state: MessagesState) -> dict[str, Any]:
    answer = interrupt({"question": "Shall I?"})
    return {"messages": [AIMessage(f"you said {answer}")]}


def needs_leave(state: MessagesState) -> Literal["confirm", "__end__"]:
    return "confirm" if "ask" in str(state["messages"][-1].text).split() else END


chat = (
    StateGraph(MessagesState)
    .add_node(speak)
    .add_node(confirm)
    .add_edge(START, "speak")
    .add_conditional_edges("speak", needs_leave)
    .compile()
)
