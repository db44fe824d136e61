"""The line that a request leaves in the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from treadle.http.access_log import AccessLog
from treadle.http.run_headers import HeaderPatterns

HEADERS = [
    (b"x-tenant", b"blue"),
    (b"x-tenant-secret", b"hush"),
    (b"x-internal", b"7"),
    (b"authorization", b"Bearer hush"),
    (b"cookie", b"session=hush"),
    (b"accept", b"*/*"),
]


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield lines


def write(log: AccessLog, template: str = "/threads/{thread_id}") -> None:
    scope = {"method": "GET", "path": "/a\nb", "raw_path": b"/a%0Ab", "headers": HEADERS}
    log.write(scope, template, 200, 1.23456, "request-7")


def test_a_request_is_told_by_its_route(lines):
    write(AccessLog())
    [line] = lines
    assert (line["method"], line["path"], line["status"]) == ("GET", "/threads/{thread_id}", 200)
    assert (line["latency_ms"], line["request_id"]) == (1.235, "request-7")
    assert "headers" not in line
    assert "hush" not in repr(lines)


def test_a_path_without_a_route_is_shown_as_it_was_sent(lines):
    write(AccessLog(), "")
    assert lines[0]["path"] == "/a%0Ab"


@pytest.mark.parametrize(
    ("includes", "excludes", "shown"),
    [
        (["X-Tenant"], [], {"x-tenant": "blue"}),
        (["x-*"], ["x-int*"], {"x-tenant": "blue", "x-tenant-secret": "***"}),
        (["a*"], [], {"authorization": "***", "accept": "*/*"}),
        (["cookie"], [], {"cookie": "***"}),
        (["*"], ["*"], {}),
    ],
)
def test_headers_are_logged_by_name_and_never_their_secrets(lines, includes, excludes, shown):
    write(AccessLog(HeaderPatterns(includes, excludes)))
    assert lines[0]["headers"] == shown
