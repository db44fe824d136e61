"""LangSmith: langchain traces runs there if the environment says so (``LANGSMITH_TRACING``).

What is left to do here is a run's own wish for a project or a dataset's example.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from treadle.errors import Invalid

if TYPE_CHECKING:
    from langchain_core.callbacks import BaseCallbackHandler


class LangSmithTracing(msgspec.Struct):
    """A run's ``langsmith_tracer``: where its trace is to go."""

    project_name: str | None = None
    example_id: str | None = None


def langsmith_tracing(given: object) -> LangSmithTracing | None:
    """The ``langsmith_tracer`` of a request. Raises ``Invalid`` naming what is wrong with it."""
    if not given:
        return None
    try:
        return msgspec.convert(given, LangSmithTracing)
    except msgspec.ValidationError as error:
        raise Invalid(
            f"langsmith_tracer is {given!r}: project_name and example_id have to be strings"
        ) from error


def langsmith_callbacks(kwargs: dict[str, Any]) -> list[BaseCallbackHandler]:
    """The tracer that a run asks for; none where nothing is traced to LangSmith."""
    wish = langsmith_tracing(kwargs.get("langsmith_tracer"))
    if wish is None:
        return []
    from langsmith.utils import tracing_is_enabled

    if not tracing_is_enabled():
        return []
    from langchain_core.tracers import LangChainTracer

    return [LangChainTracer(project_name=wish.project_name, example_id=wish.example_id)]
