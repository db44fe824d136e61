"""The graph of ``protocol_v2.py``: a chat model that streams one-word chunks without waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import START, MessagesState, StateGraph


class TokenModel(BaseChatModel):
    """Streams as many words as the last message says."""

    @property
    def _llm_type(self) -> str:
        return "token-model"

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        text = "word " * int(messages[-1].content)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=text))])

    async def _astream(
        self, messages: Any, *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for index in range(int(messages[-1].content)):
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"word{index} "))
            await asyncio.sleep(0)


async def call_model(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await TokenModel().ainvoke(state["messages"])]}


tokens = StateGraph(MessagesState).add_node(call_model).add_edge(START, "call_model").compile()
