"""What a graph looks like: its drawing, its subgraphs, its JSON schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from treadle.errors import Invalid

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.pregel import Pregel

    Graph = Pregel[Any, Any, Any, Any]

logger = structlog.get_logger("treadle.assistants")

_SCHEMAS = ("input_schema", "output_schema", "state_schema", "config_schema", "context_schema")


def parse_xray(text: str | None) -> bool | int:
    """How many levels of subgraphs a drawing opens: none, all (``true``), or a number."""
    match (text or "").lower():
        case "" | "false":
            return False
        case "true":
            return True
        case number if number.isascii() and number.isdigit() and int(number[:9]) > 0:
            return int(number[:9])
        case _:
            raise Invalid("Invalid xray value")


async def draw(graph: Graph, config: RunnableConfig, xray: bool | int) -> dict[str, Any]:
    """The nodes and edges of a graph, as its ``to_json`` has them, with names for data."""
    drawn = (await graph.aget_graph(config, xray=xray)).to_json()
    for node in drawn["nodes"]:
        if isinstance(data := node.get("data"), dict):
            node["data"] = {"name": data.get("name", node["id"])}
    return drawn


async def subgraphs(graph: Graph, namespace: str | None, recurse: bool) -> dict[str, Any]:
    """The schemas of each subgraph by its path, such as ``child|grandchild``."""
    found = graph.aget_subgraphs(namespace=namespace, recurse=recurse)
    return {path: schemas(subgraph) async for path, subgraph in found}


async def outputs(graph: Any) -> dict[str, Any]:
    """The names of the values that a graph gives out; null if it gives out one without a name."""
    channels = getattr(graph, "output_channels", None)
    return {"names": None if channels is None or isinstance(channels, str) else [*channels]}


def schemas(graph: Any) -> dict[str, Any]:
    """The JSON schemas of a graph; what a graph cannot tell (a remote one) is null."""
    context = _or_none(graph, "get_context_jsonschema")
    found = (
        _or_none(graph, "get_input_jsonschema"),
        _or_none(graph, "get_output_jsonschema"),
        _state_schema(graph),
        context or {},
        context,
    )
    return dict(zip(_SCHEMAS, found, strict=True))


def _or_none(graph: Any, method: str) -> dict[str, Any] | None:
    """The schema, or None for a type that has none, such as one that pydantic doesn't know."""
    from pydantic.errors import PydanticUserError

    try:
        return getattr(graph, method)()
    except (AttributeError, NotImplementedError, TypeError, ValueError, PydanticUserError) as error:
        name = getattr(graph, "name", None)
        logger.info("a graph does not tell a schema", graph=name, asked=method, reason=str(error))
        return None


def _state_schema(graph: Any) -> dict[str, Any] | None:
    """All channels of the graph as one model, each null unless written."""
    from langgraph._internal._pydantic import create_model
    from langgraph.channels.base import BaseChannel
    from pydantic.errors import PydanticUserError

    try:
        channels = {
            name: (channel.UpdateType, None)
            for name in graph.stream_channels_list
            if isinstance(channel := graph.channels[name], BaseChannel)
        }
        model = create_model(graph.get_name("State"), field_definitions=channels)
        return model.model_json_schema()
    except (AttributeError, KeyError, PydanticUserError):
        return None
