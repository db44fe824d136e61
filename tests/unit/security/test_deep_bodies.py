"""No body is nested so deeply that an endpoint fails on it."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from auth_house import ALL, House

DEEP = 100_000
BODIES = (
    "[" * DEEP,
    "[" * DEEP + "]" * DEEP,
    '{"a":' * DEEP + "1" + "}" * DEEP,
    '{"metadata":' + '{"a":' * DEEP + "1" + "}" * (DEEP + 1),
    '{"assistant_id":"echo","input":' + "[" * DEEP + "]" * DEEP + "}",
    '{"namespace":["n"],"key":"k","value":{"a":' + "[" * DEEP + "]" * DEEP + "}}",
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":' + '{"a":' * DEEP,
    '{"id":1,"method":"run.start","params":{"input":' + "[" * DEEP + "]" * DEEP + "}}",
)


async def taking_bodies(house: House) -> list[tuple[str, str]]:
    document: Any = (await house(ALL, "GET", "/openapi.json")).json()
    return [
        (method.upper(), "/".join(str(uuid4()) if "{" in part else part
                                  for part in path.split("/")))
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "requestBody" in operation
    ]  # fmt: skip


@pytest.mark.parametrize("house", ["sqlite"], indirect=True)
async def test_a_deep_body_is_refused(house: House):
    headers = {"authorization": json.dumps(ALL)}
    wrong: list[Any] = []
    for method, path in await taking_bodies(house):
        for body in BODIES:
            answer = await house.http.request(method, path, content=body, headers=headers)
            said = answer.json()
            is_error = answer.is_client_error or "error" in said
            if not is_error:
                wrong.append((method, path, body[:60], answer.status_code, answer.text[:200]))
    assert not wrong
