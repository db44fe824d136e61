"""Every operation, walked by one user over all that is another's: nothing of it is seen, changed,
counted, or told apart from what does not exist. An operation without a row fails."""

from __future__ import annotations

import inspect
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count, takewhile
from typing import Any

import pytest
import wire
from auth_house import House, owner
from belongings import ID_COLUMNS, SECRET, Row, belongings, own, unknown
from matrix_rows import ROWS
from matrix_rows import Row as Asked

from treadle.mcp import routes as mcp_routes

ALICE = owner("alice")
NUMBERS = count()

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIMES = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00|Z)?")
EVENT_ID = re.compile(r"^id: .*$", re.MULTILINE)
HEX = re.compile(r"[0-9a-f]{32}")
MILLISECONDS = re.compile(r"\b\d{13}\b")
ERROR = re.compile(r'\{"jsonrpc":"2.0","id":1,"error":\{"code":(-\d+)')
REFUSED = '{"type":"error"'
AT_ONCE = 20
"""How many requests are sent before all rows of the database are looked at."""
SHOWN = 300
UNTOLD = {"content-length", "x-request-id"}
WORDS = re.compile(r"\{(\w+)\}")


def filled(given: Any, ids: dict[str, str]) -> Any:
    text = json.dumps(given)
    for name, value in ids.items():
        text = text.replace(f"{{{name}}}", value)
    return json.loads(text)


async def ask(house: House, user: Any, row: Asked, ids: dict[str, str]) -> tuple[int, str]:
    """The status (of JSON-RPC an error's code) and the text of an answer, or of all of a socket."""
    path, body, headers = filled([row.path, row.body, row.headers], ids)
    headers["authorization"] = json.dumps(user)
    if row.method == "SOCKET":
        told = await wire.socket(house.app, path, body, headers)
        closed = [one["closed"] for one in told if "closed" in one]
        return closed[0] if closed else 200, json.dumps(told)
    answer = await wire.request(house.app, row.method, path, body, headers, endless=row.endless)
    kept = [pair for pair in answer.headers if pair[0] not in UNTOLD]
    error = ERROR.search(answer.body)
    status = int(error[1]) if error and answer.status == 200 else answer.status
    return status, wire.Answer(answer.status, sorted(kept), answer.body).text


def plain(text: str, ids: dict[str, str], user: Any) -> str:
    """An answer without what is different each time."""
    for name, value in ids.items():
        text = text.replace(value, name)
    text = text.replace(user["identity"], "me")
    for pattern, word in (
        (UUID, "uuid"),
        (TIMES, "time"),
        (EVENT_ID, "id:"),
        (HEX, "hex"),
        (MILLISECONDS, "time"),
    ):
        text = pattern.sub(word, text)
    return text


def names_in(row: Asked) -> set[str]:
    return set(WORDS.findall(json.dumps([row.path, row.body, row.headers])))


class Walk:
    """Other users over alice's things; what was wrong is in ``wrong``."""

    def __init__(self, house: House, rows: Callable[[], Counter[Row]], hers: dict[str, str],
                 before: Counter[Row]) -> None:  # fmt: skip
        self.house, self.rows, self.hers = house, rows, hers
        self.known = rows()
        self.her_rows = self.known - before
        self.wrong: list[str] = []

    async def take(self, row: Asked, empty: tuple[int, str]) -> None:
        """``empty`` is the answer to the same when alice had nothing yet."""
        user, ids = await asker(self.house, row, self.hers)
        nobody, none = await asker(self.house, row, unknown(self.hers))
        status, text = await ask(self.house, user, row, ids)
        other_status, other = await ask(self.house, nobody, row, none)
        found = status, plain(text, ids, user)
        expected = other_status, plain(other, none, nobody)
        if row.status is not None:
            self.expect(row, "status", (status, row.status))
        else:
            self.expect(row, "unlike what does not exist", (found, expected))
            self.expect(row, "unlike a server without hers", (found, empty))
        self.expect(row, "a 5xx", (status // 100 == 5, False))
        sent = names_in(row)
        told = {name for name, value in self.hers.items() if value in text and name not in sent}
        told -= {"thread"} if "task" in sent else set()
        if sent & {"task", "context"}:
            told -= {"context"}
        self.expect(row, "told", (told, set()))
        self.expect(row, "the secret", (SECRET in text, False))

    def check_rows(self, asked: Sequence[Asked]) -> None:
        """Nothing that was asked has changed her rows, or has made rows with what is hers."""
        now = self.rows()
        gone = self.her_rows - now
        names = "one of:\n" + "\n".join(map(str, asked))
        self.expect(names, "changed", (list(gone), []))
        ids = set(self.hers.values())
        for table, fields in now - self.known:
            touched = [(k, v) for k, v in fields if k in ID_COLUMNS and v in ids]
            if touched or any(SECRET in value for _, value in fields):
                self.wrong.append(f"{names}\n  added to {table}: {fields}")
        self.known = now

    def expect(self, row: Asked | str, what: str, pair: tuple[Any, Any]) -> None:
        found, expected = map(repr, pair)
        if found != expected:
            alike = (a == b for a, b in zip(found, expected, strict=False))
            begin = max(0, sum(takewhile(bool, alike)) - 60)
            shown = f"{found[begin:][:SHOWN]}\n  expected: {expected[begin:][:SHOWN]}"
            self.wrong.append(f"{row}\n  {what}: {shown}")


async def asker(house: House, row: Asked, ids: dict[str, str]) -> tuple[Any, dict[str, str]]:
    """Somebody new, and what their request names: what is theirs is their own."""
    user = owner(f"bob{next(NUMBERS):06}", answers=row.answers)
    mine = await own(house, user) if "mine" in names_in(row) else {"mine": "none"}
    return user, {**ids, **mine}


@pytest.mark.timeout(300)
async def test_nothing_of_anothers_is_seen_changed_or_told_apart(
    house: House, rows: Callable[[], Counter[Row]]
):
    empty: list[tuple[int, str]] = []
    for row in ROWS:
        names = dict.fromkeys(WORDS.findall(json.dumps(row)), "")
        user, ids = await asker(house, row, unknown(names))
        status, text = await ask(house, user, row, ids)
        empty.append((status, plain(text, ids, user)))
    before = rows()
    walk = Walk(house, rows, await belongings(house, ALICE), before)
    for begin in range(0, len(ROWS), AT_ONCE):
        asked = slice(begin, begin + AT_ONCE)
        for row, answer in zip(ROWS[asked], empty[asked], strict=True):
            await walk.take(row, answer)
        walk.check_rows(ROWS[asked])
    assert not walk.wrong, f"{len(walk.wrong)}:\n" + "\n".join(walk.wrong[:40])


def succeeded(row: Asked, status: int, text: str) -> bool:
    if row.method == "SOCKET":
        told = json.loads(text)
        return all(one.get("type") != "error" and "closed" not in one for one in told)
    if row.ends > 200:
        return status < row.ends + 100
    return 200 <= status < 300 and not text.partition("\n\n")[2].startswith(REFUSED)


@pytest.mark.timeout(300)
async def test_its_owner_may_do_what_each_row_asks(house: House, rows: Callable[[], Counter[Row]]):
    """So no row is refused for a reason of its own."""
    wrong: list[str] = []
    hers: dict[str, str] = {}
    before: Counter[Row] | None = None
    for row in ROWS:
        if before is None:
            hers = await belongings(house, ALICE)
            before = rows()
        instead = {name: hers.get(other, other) for name, other in row.control.items()}
        alice = {**ALICE, "answers": {**row.answers, **row.owners}}
        status, text = await ask(house, alice, row, {**hers, **instead})
        if not succeeded(row, status, text):
            wrong.append(f"{row}\n  {status} {text}")
        if row.method != "GET":
            before = before if rows() == before else None
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong[:40])


# A row for everything -----------------------------------------------------------------------------

IDS = {"thread_id", "run_id", "assistant_id", "cron_id", "checkpoint_id", "checkpoint", "ids",
       "thread_ids", "run_ids", "task_id"}  # fmt: skip


def _handled(app: Any, method: str, path: str) -> Any:
    return app._router.find(method, path)[0].handler.__self__


async def operations(house: House) -> tuple[set[str], dict[str, set[str]]]:
    """What the running application answers to, and where each operation takes ids."""
    document = (await house(ALICE, "GET", "/openapi.json")).json()
    found: set[str] = set()
    places: dict[str, set[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            name = f"{method.upper()} {path}"
            found.add(name)
            taken = {p["name"] for p in operation.get("parameters", ())}
            schema = operation.get("requestBody", {}).get("content", {})
            schema = schema.get("application/json", {}).get("schema", {})
            schema = schema.get("items", schema)
            if "$ref" in schema:
                part = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
                taken |= set(part.get("properties", {}))
            places[name] = taken & IDS
    app = house.app
    commands = _handled(app, "POST", "/threads/x/commands")._commands._handlers
    found |= {f"command {name}" for name in commands}
    calls = _handled(app, "POST", "/a2a/x")._calls._methods
    found |= {f"a2a {name}" for name in calls}
    messages = re.findall(r'(?:case|==) "([a-z/]+)"', inspect.getsource(mcp_routes))
    assert {"tools/call", "notifications/cancelled"} <= set(messages)
    found |= {f"mcp {name}" for name in messages}
    found |= {f"socket {template}" for template in _templates(app._sockets._root)}
    return found, places


def _templates(node: Any) -> list[str]:
    here = [node.route.template] if node.route else []
    below = [*node.literals.values(), *([node.parameter] if node.parameter else [])]
    return here + [template for one in below for template in _templates(one)]


@pytest.mark.parametrize("house", ["sqlite"], indirect=True)
async def test_every_operation_has_its_rows(house: House):
    found, places = await operations(house)
    assert {row.operation for row in ROWS} == found
    missing: list[tuple[str, str]] = []
    for operation, taken in places.items():
        of_it = [row for row in ROWS if row.operation == operation]
        text = json.dumps([[row.path, row.body] for row in of_it])
        in_path = set(WORDS.findall(operation)) - {"namespace"}
        unnamed = {
            name
            for name in taken - in_path
            if not re.search(rf'"{name}": ["\[{{]+[^}}\]]*\{{\w+\}}|{name}=\{{', text)
        }
        if in_path and not any(WORDS.search(row.path) for row in of_it):
            unnamed |= in_path
        missing += [(operation, name) for name in unnamed]
    assert not missing
