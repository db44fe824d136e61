"""What the OpenAPI document says of authentication."""

from __future__ import annotations

import copy
from typing import Any

from treadle.http.endpoint import Endpoint
from treadle.http.openapi import document, with_security
from treadle.http.request import Request
from treadle.http.response import Response, no_content


async def nothing(request: Request) -> Response:
    return no_content()


ENDPOINTS = [
    Endpoint("GET", "/ok", nothing, "System", "Ok", public=True),
    Endpoint("GET", "/threads", nothing, "Threads", "List"),
]
SCHEMES = {"token": {"type": "http", "scheme": "bearer"}}


def test_schemes_and_security_are_merged_and_the_open_is_open():
    before = document(ENDPOINTS)
    untouched = copy.deepcopy(before)
    found = with_security(
        before, ENDPOINTS, {"securitySchemes": SCHEMES, "security": [{"token": []}]}
    )
    assert found["components"]["securitySchemes"] == SCHEMES
    assert "Error" in found["components"]["schemas"]
    assert found["security"] == [{"token": []}]
    assert found["paths"]["/ok"]["get"]["security"] == []
    assert "security" not in found["paths"]["/threads"]["get"]
    assert before == untouched


def test_paths_are_laid_over_those_that_are_there():
    paths: dict[str, Any] = {
        "/threads": {"get": {"security": []}, "parameters": []},
        "/mine": {"post": {"summary": "Mine"}},
    }
    found = with_security(document(ENDPOINTS), ENDPOINTS, {"paths": paths})
    assert found["paths"]["/threads"]["get"]["summary"] == "List"
    assert found["paths"]["/threads"]["get"]["security"] == []
    assert found["paths"]["/threads"]["parameters"] == []
    assert found["paths"]["/mine"] == {"post": {"summary": "Mine"}}
    assert "security" not in found
