from __future__ import annotations

import pytest
from langgraph_sdk import Auth
from starlette.exceptions import HTTPException as StarletteHTTPException

from treadle.auth.denials import denial

HTTPException = Auth.exceptions.HTTPException


def test_status_detail_and_headers_are_passed_on():
    found = denial(HTTPException(403, "No teapots", {"X-Reason": "teapot"}))
    assert found is not None
    assert (found.status, found.detail, found.headers) == (
        403,
        "No teapots",
        {"X-Reason": "teapot"},
    )
    found = denial(StarletteHTTPException(418, "short and stout"))
    assert found is not None
    assert (found.status, found.detail, found.headers) == (418, "short and stout", {})


def test_the_default_is_unauthorized():
    found = denial(HTTPException())
    assert found is not None
    assert (found.status, found.detail) == (401, "Unauthorized")


def test_a_detail_may_be_any_json():
    found = denial(StarletteHTTPException(503, {"down": ["directory"]}))  # pyright: ignore
    assert found is not None
    assert (found.status, found.detail) == (503, {"down": ["directory"]})


@pytest.mark.parametrize(
    "error",
    [RuntimeError("x"), AssertionError("x"), HTTPException(200, "x"), HTTPException(204, "x")],
)
def test_what_refuses_nothing_is_a_failure(error: Exception):
    assert denial(error) is None
