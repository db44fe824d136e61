"""The OpenAPI document of a list of endpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import inspect

from treadle import __version__
from treadle.http.endpoint import Endpoint

DESCRIPTION = "Serves LangGraph graphs over the Agent Server API: threads, runs, streaming."
TAGS = {
    "Assistants": "A graph with a configuration, in versions.",
    "Threads": "What the runs of a conversation add up to: its state and its history.",
    "Thread Runs": "Runs of an assistant on a thread.",
    "Stateless Runs": "Runs without a thread of their own.",
    "Crons": "Runs by the clock.",
    "Store": "Items that outlive threads, for graphs and clients alike.",
    "A2A": "Assistants as A2A agents.",
    "MCP": "Assistants as MCP tools.",
    "System": "Health, versions, figures.",
    "Streaming": "The events of a thread as they happen.",
}
_REASONS = {
    400: "It is well formed, but cannot be done.",
    401: "Who calls is not known.",
    403: "The caller may not do this.",
    404: "There is no such thing.",
    409: "It is at odds with what is there now.",
    410: "It was there, and is no more.",
    413: "The body is too large.",
    422: "A field or parameter is not what it has to be.",
}
_PARAMETER = re.compile(r"\{(\w+)\}")


class Error(msgspec.Struct):
    """What every refused request is answered with."""

    detail: str


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The OpenAPI 3.1 document: paths in the order of ``endpoints``, schemas by name."""
    kinds = list(_kinds(endpoints))
    found, components = msgspec.json.schema_components(
        kinds, ref_template="#/components/schemas/{name}"
    )
    schemas = dict(zip(kinds, found, strict=True))
    paths: dict[str, Any] = {}
    names: set[str] = set()
    for endpoint in endpoints:
        operation = _operation(endpoint, schemas, components)
        operation["operationId"] = _unique(endpoint, names)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    used = {endpoint.tag for endpoint in endpoints}
    tags = [{"name": name, "description": text} for name, text in TAGS.items() if name in used]
    tags += [{"name": name} for name in sorted(used - TAGS.keys())]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Treadle", "version": __version__, "description": DESCRIPTION},
        "tags": tags,
        "paths": paths,
        "components": {"schemas": dict(sorted(components.items()))},
    }


def with_security(
    document: dict[str, Any], endpoints: Sequence[Endpoint], given: Mapping[str, Any]
) -> dict[str, Any]:
    """``document`` with what ``given`` says: ``securitySchemes``, ``security`` and ``paths``.

    Operations of ``paths`` are laid over those that are there. What is public says that it is.
    """
    merged = {**document, "paths": {path: {**item} for path, item in document["paths"].items()}}
    if given.get("securitySchemes"):
        schemes = {"securitySchemes": given["securitySchemes"]}
        merged["components"] = {**document["components"], **schemes}
    if given.get("security"):
        merged["security"] = given["security"]
        for endpoint in endpoints:
            if endpoint.public:
                item, method = merged["paths"][endpoint.path], endpoint.method.lower()
                item[method] = {**item[method], "security": []}
    for path, item in given.get("paths", {}).items():
        there = merged["paths"].setdefault(path, {})
        for method, operation in item.items():
            is_both = isinstance(operation, dict) and isinstance(there.get(method), dict)
            there[method] = {**there[method], **operation} if is_both else operation
    return merged


def _kinds(endpoints: Sequence[Endpoint]) -> dict[Any, None]:
    """All types of the endpoints, each once."""
    kinds: dict[Any, None] = {Error: None}
    for endpoint in endpoints:
        for kind in (endpoint.body, endpoint.query, endpoint.answer):
            if kind is not None:
                kinds[kind] = None
    return kinds


def _unique(endpoint: Endpoint, names: set[str]) -> str:
    """An operation id: the summary in snake case, the path's words where that is taken."""
    name = "_".join(re.findall(r"[a-z0-9]+", endpoint.summary.lower()))
    if name in names:
        words = re.findall(r"[a-z0-9]+", endpoint.path.lower()) or ["root"]
        name = "_".join([endpoint.method.lower(), *words])
    names.add(name)
    return name


def _operation(
    endpoint: Endpoint, schemas: dict[Any, Any], components: dict[str, Any]
) -> dict[str, Any]:
    operation: dict[str, Any] = {"tags": [endpoint.tag], "summary": endpoint.summary}
    if endpoint.handler.__doc__:
        operation["description"] = endpoint.handler.__doc__
    parameters = [_path_parameter(name) for name in _PARAMETER.findall(endpoint.path)]
    if endpoint.query is not None:
        parameters += _query_parameters(endpoint.query, components)
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": not endpoint.optional_body,
            "content": {"application/json": {"schema": schemas[endpoint.body]}},
        }
    operation["responses"] = {
        str(endpoint.status): _success(endpoint, schemas),
        **{str(status): _refusal(status, schemas) for status in endpoint.errors},
    }
    return operation


def _success(endpoint: Endpoint, schemas: dict[Any, Any]) -> dict[str, Any]:
    if endpoint.stream:
        stream = {"type": "string", "description": "Server-sent events"}
        return {"description": "Events", "content": {"text/event-stream": {"schema": stream}}}
    if endpoint.media_type != "application/json":
        text = {"schema": {"type": "string"}}
        return {"description": "Success", "content": {endpoint.media_type: text}}
    if endpoint.answer is None:
        return {"description": "Success"}
    content = {"application/json": {"schema": schemas[endpoint.answer]}}
    return {"description": "Success", "content": content}


def _refusal(status: int, schemas: dict[Any, Any]) -> dict[str, Any]:
    return {
        "description": _REASONS.get(status, "Refused."),
        "content": {"application/json": {"schema": schemas[Error]}},
    }


def _path_parameter(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if name.endswith("_id"):
        schema["format"] = "uuid"
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(
    kind: type[msgspec.Struct], components: dict[str, Any]
) -> list[dict[str, Any]]:
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    properties = components[kind.__name__]["properties"]
    return [
        {
            "name": field.encode_name,
            "in": "query",
            "required": field.required,
            "schema": properties[field.encode_name],
        }
        for field in described.fields
    ]
