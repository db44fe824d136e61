"""Which handler is asked, what it is given, and what its results and exceptions mean."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from langgraph_sdk import Auth
from starlette.exceptions import HTTPException as StarletteHTTPException
from structlog.testing import capture_logs

from treadle.auth import ANYONE, Caller, authorize
from treadle.auth.filters import Equals
from treadle.auth.policy import HandlerPolicy
from treadle.auth.users import user_of
from treadle.errors import Denied, Forbidden, RequestError


def caller_of(auth: Auth, user: Any = "me", permissions: tuple[str, ...] = ()) -> Caller:
    return Caller("me", permissions, user_of(user), HandlerPolicy(auth))


def answering(result: Any) -> Auth:
    """An ``Auth`` with one handler, which returns this, or calls it with the value."""
    auth = Auth()

    @auth.on
    async def handler(ctx: Any, value: Any) -> Any:
        return result(value) if callable(result) else result

    return auth


async def ask(auth: Auth, value: Any = None, check: str = "threads.read") -> Any:
    value = {} if value is None else value
    return await authorize(caller_of(auth), *check.split("."), value)


async def test_without_a_policy_all_is_allowed():
    assert await authorize(ANYONE, "threads", "read", {}) is None


async def test_the_most_specific_handler_is_asked_and_no_other():
    auth, asked = Auth(), []

    def register(decorator: Any, name: str) -> None:
        @decorator
        async def handler(ctx: Any, value: Any) -> None:
            asked.append(name)

    async def asks(check: str) -> list[str]:
        asked.clear()
        await ask(auth, check=check)
        return list(asked)

    assert await asks("threads.read") == []
    register(auth.on, "global")
    register(auth.on(actions="read"), "*.read")
    register(auth.on.threads, "threads.*")
    register(auth.on.threads.read, "threads.read")
    register(auth.on.store.put, "store.put")
    auth_checks = {
        "threads.read": "threads.read", "threads.update": "threads.*",
        "assistants.read": "*.read", "assistants.update": "global", "store.put": "store.put",
        "store.get": "global",
    }  # fmt: skip
    for check, name in auth_checks.items():
        assert await asks(check) == [name], check


async def test_a_handler_that_is_not_async_is_asked_too():
    auth = Auth()
    auth._global_handlers.append(lambda ctx, value: {"owner": ctx.user.identity})
    assert await ask(auth) == Equals("owner", "me")


async def test_what_a_handler_is_given():
    auth, given = Auth(), []

    @auth.on
    async def handler(ctx: Any, value: Any) -> None:
        given.append((ctx, dict(value)))

    thread_id, run_id = str(uuid4()), str(uuid4())
    caller = caller_of(auth, {"identity": "me", "team": "red"}, ("a", "b"))
    value = {"thread_id": thread_id, "run_id": run_id, "ids": [thread_id], "assistant_id": None}
    await authorize(caller, "threads", "create_run", value)
    [(ctx, seen)] = given
    assert isinstance(ctx, Auth.types.AuthContext)
    assert (ctx.resource, ctx.action, ctx.permissions) == ("threads", "create_run", ["a", "b"])
    assert ctx.user.identity == "me"
    assert ctx.user["team"] == "red"
    assert seen == {"thread_id": UUID(thread_id), "run_id": UUID(run_id),
                    "ids": [UUID(thread_id)], "assistant_id": None}  # fmt: skip


@pytest.mark.parametrize(("result", "allowed"), [
    (None, None), (True, None), ({}, None), ({"k": 1}, Equals("k", 1)),
])  # fmt: skip
async def test_what_is_allowed(result: Any, allowed: Any):
    assert await ask(answering(result)) == allowed


async def test_false_is_forbidden():
    with pytest.raises(Forbidden, match=r"^Forbidden$"):
        await ask(answering(False))


@pytest.mark.parametrize("result", ["yes", 1, 0, [], (), [{"k": 1}], object(), {"k": {"$ne": 1}},
                                    {"k": {"n": 1}}, {"k": object()}, {1: 1}])  # fmt: skip
async def test_a_result_that_is_not_understood_allows_nothing(result: Any):
    with capture_logs() as logged, pytest.raises(Denied) as denied:
        await ask(answering(result))
    assert denied.value.status == 500
    assert denied.value.detail.startswith("Auth handler returned")
    assert [line["log_level"] for line in logged] == ["error"]


async def test_a_result_of_another_type_is_named():
    with pytest.raises(Denied) as denied:
        await ask(answering("yes"))
    assert denied.value.detail == (
        "Auth handler returned invalid result. Expected filter dict, None, or boolean."
        " Got <class 'str'> instead."
    )


@pytest.mark.parametrize("error", [
    Auth.exceptions.HTTPException(status_code=418, detail="tea", headers={"X-Pot": "1"}),
    StarletteHTTPException(418, "tea", {"X-Pot": "1"}),
])  # fmt: skip
async def test_an_http_exception_is_passed_on(error: Exception):
    with pytest.raises(RequestError) as denied:
        await ask(answering(_raising(error)))
    told = denied.value
    assert (told.status, told.detail, told.headers) == (418, "tea", {"X-Pot": "1"})


async def test_an_assertion_forbids_and_keeps_its_text():
    with capture_logs() as logged, pytest.raises(Forbidden, match=r"^Forbidden$"):
        await ask(answering(_raising(AssertionError("the secret"))))
    assert logged[0]["reason"] == "the secret"


@pytest.mark.parametrize("error", [RuntimeError("the secret"), KeyError("k"), TypeError(),
                                   Auth.exceptions.HTTPException(status_code=200)])  # fmt: skip
async def test_a_handler_that_fails_allows_nothing_and_tells_nothing(error: Exception):
    with capture_logs() as logged, pytest.raises(Denied) as denied:
        await ask(answering(_raising(error)))
    assert (denied.value.status, denied.value.detail) == (500, "Internal Server Error")
    assert [line["log_level"] for line in logged] == ["error"]


def _raising(error: Exception) -> Any:
    def fail(value: Any) -> None:
        raise error

    return fail


async def test_metadata_may_be_changed_or_replaced():
    sent = {"a": 1}
    changed = {"metadata": sent}
    await ask(answering(lambda value: value["metadata"].update(b=UUID(int=0))), changed)
    assert changed["metadata"] == {"a": 1, "b": str(UUID(int=0))}
    assert sent == {"a": 1}
    replaced = {"metadata": sent}
    await ask(answering(lambda value: value.update(metadata={"c": (1,)})), replaced)
    assert replaced["metadata"] == {"c": [1]}


async def test_a_namespace_may_be_rewritten():
    value = {"namespace": ("n",)}
    rewrite = answering(lambda value: value.update(namespace=["me", *value["namespace"]]))
    await ask(rewrite, value, "store.get")
    assert value["namespace"] == ("me", "n")


@pytest.mark.parametrize("left", [
    {"metadata": None}, {"metadata": "x"}, {"metadata": [1]}, {"namespace": "me"},
    {"namespace": ("a.b",)}, {"namespace": ("",)}, {"namespace": (1,)}, {"namespace": ("a\0",)},
    {"namespace": {"me": 1}}, {"namespace": ("\ud800",)},
])  # fmt: skip
async def test_what_a_handler_leaves_has_to_be_of_use(left: Any):
    with capture_logs(), pytest.raises(Denied) as denied:
        await ask(answering(lambda value: value.update(left)), {"metadata": {}, "namespace": ()})
    assert denied.value.status == 500


async def list_namespaces(auth: Auth, given: Any, identity: str) -> Any:
    """The namespace that a caller lists, once the handler was asked."""
    value = {"namespace": given}
    caller = Caller(identity, (), user_of(identity), HandlerPolicy(auth))
    await authorize(caller, "store", "list_namespaces", value)
    return value["namespace"]


@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("given", [None, ("*",), ("*", "*"), ("notes", "*")])
async def test_an_identity_is_no_wildcard(given: Any, replaces: bool):
    async def own(ctx: Any, value: Any) -> None:
        rest = (value["namespace"] or ())[replaces:]
        value["namespace"] = (ctx.user.identity, *rest)

    auth = Auth()
    auth.on.store(own)
    rest = (given or ())[replaces:]
    assert await list_namespaces(auth, given, "me") == ("me", *rest)
    with capture_logs() as logs, pytest.raises(Denied) as denied:
        await list_namespaces(auth, given, "*")
    assert denied.value.status == 500
    assert "'*'" in str(logs[0]["exc_info"])


async def test_a_wildcard_that_a_handler_adds_is_refused():
    adds = answering(lambda value: value.update(namespace=("*", *value["namespace"])))
    with capture_logs(), pytest.raises(Denied):
        await list_namespaces(adds, ("*",), "me")


async def test_the_log_says_what_to_do_with_an_identity_that_has_a_period():
    mail = answering(lambda value: value.update(namespace=("ann@example.com",)))
    with capture_logs() as logs, pytest.raises(Denied):
        await ask(mail, {"namespace": ()}, "store.put")
    assert "ann@example.com" in str(logs[0]["exc_info"])
    assert "quote" in str(logs[0]["exc_info"])
