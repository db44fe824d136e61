from __future__ import annotations

from typing import Any

import pytest
from langgraph_sdk import Auth

from treadle.auth import Caller
from treadle.auth.studio import StudioAuthentication
from treadle.errors import Denied


async def refuse(scope: Any) -> Caller:
    raise Denied(401, "who?")


async def test_who_says_to_be_studio_is_studio():
    studio = StudioAuthentication(refuse, None)
    caller = await studio({"headers": [(b"host", b"x"), (b"x-auth-scheme", b"langsmith")]})
    user: Any = caller.user
    assert isinstance(user, Auth.types.StudioUser)
    assert (caller.identity, caller.permissions) == ("langgraph-studio-user", ())
    assert (user.identity, user.is_authenticated) == ("langgraph-studio-user", False)
    assert user.permissions == []
    assert dict(user)["kind"] == user.kind == "StudioUser"
    assert dict(user)["is_authenticated"] is False


@pytest.mark.parametrize("value", [b"LangSmith", b"langsmith2", b""])
async def test_all_others_are_asked(value: bytes):
    with pytest.raises(Denied):
        await StudioAuthentication(refuse, None)({"headers": [(b"x-auth-scheme", value)]})
