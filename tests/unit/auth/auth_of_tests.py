"""An ``Auth`` whose tokens say what its handlers do, and graphs to run under it.

A token is JSON: the fields of the user. ``answers`` has what the handlers return, by
``resource.action``, ``filter`` what they return otherwise; ``stamp`` is merged into the metadata
of what is made, ``namespace`` begins all namespaces of the store.
"""

from __future__ import annotations

import json
from typing import Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from langgraph_sdk import Auth

ASKED: list[tuple[str, str, dict[str, Any]]] = []
"""Who was asked what, with a copy of the value: identity, ``resource.action``, value."""

auth = Auth()


@auth.authenticate
async def authenticate(authorization: str | None) -> Any:
    return json.loads(authorization or "null")


@auth.on
async def everything(ctx: Auth.types.AuthContext, value: dict[str, Any]) -> Any:
    user: Any = ctx.user
    check = f"{ctx.resource}.{ctx.action}"
    ASKED.append((user.identity, check, {**value}))
    if "stamp" in user and ctx.action in ("create", "create_run", "update"):
        value.setdefault("metadata", {}).update(user["stamp"])
    if "namespace" in user and ctx.resource == "store":
        value["namespace"] = (*user["namespace"], *(value["namespace"] or ()))
    answers: dict[str, Any] = user.get("answers", {})
    return answers[check] if check in answers else user.get("filter")


class State(TypedDict, total=False):
    out: Any


def build(node: Any) -> Any:
    return StateGraph(State).add_node("node", node).add_edge(START, "node").compile()


async def say(state: State) -> State:
    return {"out": "said"}


async def ask(state: State) -> State:
    return {"out": interrupt("sure?")}


echo, approval = build(say), build(ask)
