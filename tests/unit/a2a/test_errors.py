"""Which code a refusal of the rooms below has."""

from __future__ import annotations

import pytest

from treadle.a2a.errors import INTERNAL_ERROR, INVALID_PARAMS, refusal
from treadle.errors import Denied, Forbidden, NotFound, Unavailable


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("gone"), INVALID_PARAMS),
        (Forbidden("Forbidden"), INVALID_PARAMS),
        (Denied(402, "pay"), INVALID_PARAMS),
        (Denied(500, "an authorization handler failed"), INTERNAL_ERROR),
        (Unavailable("not now"), INTERNAL_ERROR),
    ],
)
def test_what_is_the_servers_fault_is_no_fault_of_the_params(error, code):
    assert refusal(error).code == code
