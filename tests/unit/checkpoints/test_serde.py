from __future__ import annotations

import logging
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import ormsgpack
import pytest
from checkpointed import Colour, Log, Model, Pair, Plain, Point, chain
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.types import Interrupt, Send

from treadle.checkpoints import RunSaver, Saver
from treadle.checkpoints.serde import state_serializer
from treadle.ids import new_id

VALUES: list[Any] = [
    None,
    True,
    2**63,
    1.5,
    "text \x00 \U0001f600",
    b"bytes",
    [1, [2]],
    {"a": {"b": None}, 3: "number as key"},
    {1, 2},
    datetime(2024, 1, 2, 3, tzinfo=UTC),
    date(2024, 1, 2),
    time(3, 4, 5),
    timedelta(seconds=5),
    Decimal("1.50"),
    uuid4(),
    Path("/a"),
    Point(1, 2),
    Model(name="m", points=[Point(1, 2)], colour=Colour.RED),
    Colour.RED,
    Pair(1, 2),
    AIMessage("hello", id="1"),
    [HumanMessage([{"type": "text", "text": "hi"}])],
    Document("page"),
    Send("node", {"point": Point(3, 4)}),
    Interrupt("question", id="1"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_a_state_may_hold_comes_back_as_it_was(
    value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        serde = state_serializer()
        back = serde.loads_typed(serde.dumps_typed(value))
    assert back == value
    assert type(back) is type(value)
    assert not caplog.records


async def test_objects_that_no_schema_names_come_back_in_a_state(saver: Saver) -> None:
    thread: Any = {"configurable": {"thread_id": (thread_id := new_id())}}
    run = RunSaver(saver, thread_id, sync=False)
    value = {"point": Point(1, 2), "model": Model(name="m", points=[])}
    await chain(Log, "a", checkpointer=run).ainvoke({"log": [value]}, thread)
    await run.settle()
    state = await chain(Log, "a", checkpointer=saver).aget_state(thread)
    assert state.values["log"] == [value, "a"]


@pytest.mark.parametrize("value", [Plain(), lambda: 1, object()])
def test_what_nobody_knows_how_to_write_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        state_serializer().dumps_typed({"value": value})


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("checkpointed", "never_to_be_called"),
        ("checkpointed", "Plain"),
        ("checkpointed", "nothing"),
        ("os", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("antigravity", "fly"),
        ("not.there", "At_all"),
        ("treadle.not_there", "At_all"),
    ],
)
def test_bytes_never_make_anything_but_data(module: str, name: str) -> None:
    serde = state_serializer()
    for code, payload in ((0, "true"), (1, ["true"]), (2, {"x": 1}), (5, {"x": 1})):
        inner = ormsgpack.packb((module, name, payload, "model_validate_json"))
        data = ormsgpack.packb(ormsgpack.Ext(code, inner))
        assert serde.loads_typed(("msgpack", data)) == payload
    assert "antigravity" not in sys.modules


def test_there_is_no_pickle() -> None:
    with pytest.raises(NotImplementedError):
        state_serializer().loads_typed(("pickle", b"\x80\x04N."))


def test_a_class_that_is_gone_leaves_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    data = state_serializer().dumps_typed(Point(1, 2))
    monkeypatch.delattr("checkpointed.Point")
    assert state_serializer().loads_typed(data) == {"x": 1, "y": 2}


def test_graphs_have_nothing_to_add_to_the_serializer(saver: Saver) -> None:
    assert saver.with_allowlist([("checkpointed", "Point")]) is saver
