"""The spans of a run: the run, its nodes, and the models and tools that they call.

LangChain tells of them by callbacks. Within a node, its span is OpenTelemetry's present one, so
that what else is instrumented there (an HTTP client, a database) has its place in the trace. What
models are asked and what they answer is not recorded: only names, figures and errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

Attributes = dict[str, Any]
_PROVIDERS = {
    "amazon_bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "google_genai": "gcp.gen_ai",
    "google_vertexai": "gcp.vertex_ai",
    "mistral": "mistral_ai",
}
"""LangChain's names of providers where OpenTelemetry has others."""


class RunTrace:
    """The span of one attempt at a run; ``handler`` is to be among the callbacks of its graph."""

    def __init__(
        self,
        tracer: Tracer,
        attributes: Mapping[str, Any],
        parent: Context,
        *,
        run_seconds: Histogram,
        model_seconds: Histogram,
        model_tokens: Histogram,
    ) -> None:
        self._begun = perf_counter()
        self._seconds = run_seconds
        self._graph_id: str = attributes["graph_id"]
        own = {f"treadle.{name}": value for name, value in attributes.items()}
        agent = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": self._graph_id,
            "gen_ai.agent.id": attributes["assistant_id"],
            "gen_ai.conversation.id": attributes["thread_id"],
        }
        self._span = tracer.start_span(
            f"invoke_agent {self._graph_id}", parent, attributes={**agent, **own}
        )
        context = trace.set_span_in_context(self._span, parent)
        # For the task that executes the run, and all that it starts.
        contexts.attach(context)
        self.handler = SpanHandler(tracer, context, own, model_seconds, model_tokens)

    def end(self, status: str, failure: BaseException | None) -> None:
        """The attempt is over: the run ended in ``status``, or goes on elsewhere."""
        self.handler.end_all()
        self._span.set_attribute("treadle.status", status)
        if status in ("error", "timeout"):
            _fail(self._span, failure, status)
        self._span.end()
        labels = {"treadle.graph_id": self._graph_id, "treadle.status": status}
        self._seconds.record(perf_counter() - self._begun, labels)


class _Open:
    """Something that goes on: its context and, unless it is its parent's, its span."""

    __slots__ = ("attributes", "before", "begun", "context", "span")

    def __init__(self, context: Context, span: Span | None, attributes: Attributes) -> None:
        self.context, self.span, self.attributes = context, span, attributes
        self.before = contexts.get_current()
        self.begun = perf_counter()


class SpanHandler(BaseCallbackHandler):
    """Makes spans of a graph's nodes, models, tools and retrievers, below ``context``."""

    run_inline = True  # in the context of what it tells of

    def __init__(
        self,
        tracer: Tracer,
        context: Context,
        attributes: Mapping[str, Any],
        model_seconds: Histogram,
        model_tokens: Histogram,
    ) -> None:
        self._tracer, self._context, self._attributes = tracer, context, attributes
        self._model_seconds, self._model_tokens = model_seconds, model_tokens
        self._open: dict[UUID, _Open] = {}

    # -- nodes -----------------------------------------------------------------------------

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        said = metadata or {}
        if any(tag.startswith("graph:step:") for tag in tags or ()):
            node: str = said.get("langgraph_node") or kwargs.get("name") or ""
            attributes = {
                "langgraph.node": node,
                "langgraph.step": said.get("langgraph_step"),
                "langgraph.checkpoint_ns": said.get("langgraph_checkpoint_ns"),
            }
            self._begin(run_id, parent_run_id, f"node {node}", attributes)
        else:
            # A chain inside of a node, or the graph itself: what it calls is its parent's.
            self._open[run_id] = _Open(self._parent(parent_run_id), None, {})

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, error)

    # -- models ----------------------------------------------------------------------------

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._begin_model("chat", run_id, parent_run_id, metadata or {}, kwargs)

    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._begin_model("text_completion", run_id, parent_run_id, metadata or {}, kwargs)

    def _begin_model(
        self,
        operation: str,
        run_id: UUID,
        parent_run_id: UUID | None,
        metadata: Mapping[str, Any],
        told: Mapping[str, Any],
    ) -> None:
        asked: Mapping[str, Any] = told.get("invocation_params") or {}
        model = metadata.get("ls_model_name") or asked.get("model") or asked.get("model_name")
        provider = metadata.get("ls_provider")
        attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": _PROVIDERS.get(provider or "", provider),
            "gen_ai.request.model": model,
            "gen_ai.request.temperature": metadata.get("ls_temperature"),
            "gen_ai.request.max_tokens": metadata.get("ls_max_tokens"),
            "gen_ai.request.stop_sequences": metadata.get("ls_stop"),
            "gen_ai.conversation.id": self._attributes.get("treadle.thread_id"),
        }
        name = f"{operation} {model or told.get('name') or ''}".rstrip()
        self._begin(run_id, parent_run_id, name, attributes, SpanKind.CLIENT)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        opened = self._open.get(run_id)
        if opened is None:
            return
        answered = _answered(response)
        if opened.span is not None:
            opened.span.set_attributes(_given(answered))
        labels = self._model_labels(opened, answered)
        for kind in ("input", "output"):
            if (count := answered.get(f"gen_ai.usage.{kind}_tokens")) is not None:
                self._model_tokens.record(count, {**labels, "gen_ai.token.type": kind})
        self._model_seconds.record(perf_counter() - opened.begun, labels)
        self._end(run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        if (opened := self._open.get(run_id)) is not None:
            labels = {**self._model_labels(opened, {}), "error.type": type(error).__name__}
            self._model_seconds.record(perf_counter() - opened.begun, labels)
        self._end(run_id, error)

    @staticmethod
    def _model_labels(opened: _Open, answered: Attributes) -> Attributes:
        names = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model",
                 "gen_ai.response.model")  # fmt: skip
        both = {**opened.attributes, **answered}
        return _given({name: both.get(name) for name in names})

    # -- tools and retrievers --------------------------------------------------------------

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        name = kwargs.get("name") or (serialized or {}).get("name") or ""
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.id": kwargs.get("tool_call_id"),
        }
        self._begin(run_id, parent_run_id, f"execute_tool {name}", attributes)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, error)

    def on_retriever_start(
        self,
        serialized: dict[str, Any],
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        name = kwargs.get("name") or (serialized or {}).get("name") or ""
        self._begin(run_id, parent_run_id, f"retrieve {name}", {"treadle.retriever": name})

    def on_retriever_end(self, documents: Sequence[Any], *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, error)

    # -- spans -----------------------------------------------------------------------------

    def _parent(self, parent_run_id: UUID | None) -> Context:
        opened = self._open.get(parent_run_id) if parent_run_id is not None else None
        return self._context if opened is None else opened.context

    def _begin(
        self,
        run_id: UUID,
        parent_run_id: UUID | None,
        name: str,
        attributes: Attributes,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> None:
        parent = self._parent(parent_run_id)
        known = _given(attributes)
        span = self._tracer.start_span(name, parent, kind, attributes={**known, **self._attributes})
        context = trace.set_span_in_context(span, parent)
        self._open[run_id] = _Open(context, span, known)
        contexts.attach(context)

    def _end(self, run_id: UUID, error: BaseException | None = None) -> None:
        opened = self._open.pop(run_id, None)
        if opened is None or opened.span is None:
            return
        if error is not None and not _is_control(error):
            _fail(opened.span, error, type(error).__name__)
        opened.span.end()
        contexts.attach(opened.before)

    def end_all(self) -> None:
        """End what nobody has told the end of: it was cut off."""
        for run_id in reversed(list(self._open)):
            opened = self._open.pop(run_id, None)
            if opened is not None and opened.span is not None:
                opened.span.set_attribute("treadle.cut_off", True)
                opened.span.end()


def _is_control(error: BaseException) -> bool:
    """Whether an exception is langgraph's way to stop: an interrupt, a command for a parent."""
    from langgraph.errors import GraphBubbleUp

    return isinstance(error, GraphBubbleUp)


def _fail(span: Span, error: BaseException | None, kind: str) -> None:
    span.set_attribute("error.type", kind if error is None else type(error).__name__)
    if error is not None:
        span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, None if error is None else str(error)))


def _given(attributes: Attributes) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


def _answered(response: LLMResult) -> Attributes:
    """What a model's answer says of itself."""
    generation = next((first for batch in response.generations for first in batch[:1]), None)
    message = generation.message if isinstance(generation, ChatGeneration) else None
    if not isinstance(message, AIMessage):
        return {}
    said = cast("dict[str, Any]", message.response_metadata)
    finish = said.get("finish_reason") or said.get("stop_reason")
    found: Attributes = {
        "gen_ai.response.id": message.id,
        "gen_ai.response.model": said.get("model_name") or said.get("model"),
        "gen_ai.response.finish_reasons": None if finish is None else [str(finish)],
    }
    if (usage := message.usage_metadata) is not None:
        found["gen_ai.usage.input_tokens"] = usage["input_tokens"]
        found["gen_ai.usage.output_tokens"] = usage["output_tokens"]
        cached = usage.get("input_token_details", {}).get("cache_read")
        found["gen_ai.usage.cache_read.input_tokens"] = cached
    return found
