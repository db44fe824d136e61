from __future__ import annotations

import sys
from typing import Any

import pytest
from checkpointed import THREAD, Log, chain
from langgraph.types import Command

from treadle.checkpoints import RunSaver, Saver
from treadle.checkpoints.aes import AesCipher
from treadle.checkpoints.encryption import check_readable, encrypted
from treadle.checkpoints.serde import state_serializer
from treadle.database import Database
from treadle.errors import StartupError, Unsupported
from treadle.ids import new_id

KEY, OTHER = "k" * 32, "o" * 16
SECRET = "the cat's name is Schnurrbert"


def serializer(**variables: str) -> Any:
    return encrypted(state_serializer(), cipher(**variables))


def cipher(**variables: str) -> AesCipher | None:
    return AesCipher.read({f"LANGGRAPH_AES_{name}": text for name, text in variables.items()})


@pytest.mark.parametrize("key", ["k" * 16, "k" * 24, "k" * 32, "ü" * 8])
def test_a_value_is_encrypted_and_comes_back(key):
    serde = serializer(KEY=key)
    first, second = (serde.dumps_typed({"said": SECRET}) for _ in range(2))
    assert first != second
    assert SECRET.encode() not in first[1]
    assert first[0].startswith("msgpack+aes-gcm:")
    assert serde.loads_typed(first) == serializer(KEY=key).loads_typed(second) == {"said": SECRET}


def test_what_is_in_the_clear_is_read_with_and_without_a_key():
    clear = serializer().dumps_typed(SECRET)
    assert clear == state_serializer().dumps_typed(SECRET)
    assert serializer(KEY=KEY).loads_typed(clear) == serializer().loads_typed(clear) == SECRET


@pytest.mark.parametrize("name", ["FALLBACK_KEYS", "LEGACY_KEY"])
def test_old_keys_read_what_they_wrote_and_write_nothing(name):
    old = serializer(KEY=OTHER).dumps_typed(SECRET)
    rotated = serializer(**{"KEY": KEY, name: OTHER})
    assert rotated.loads_typed(old) == SECRET
    assert serializer(KEY=KEY).loads_typed(rotated.dumps_typed(SECRET)) == SECRET
    leaving = serializer(**{name: OTHER})
    assert leaving.loads_typed(old) == SECRET
    assert leaving.dumps_typed(SECRET) == state_serializer().dumps_typed(SECRET)


def test_several_fallback_keys_stand_in_a_comma_list():
    values = [serializer(KEY=key).dumps_typed(SECRET) for key in ("a" * 16, "b" * 24)]
    serde = serializer(KEY=KEY, FALLBACK_KEYS=f"{'a' * 16}, {'b' * 24},")
    assert [serde.loads_typed(value) for value in values] == [SECRET, SECRET]


@pytest.mark.parametrize("variables", [{}, {"KEY": OTHER}, {"FALLBACK_KEYS": OTHER}])
def test_a_value_whose_key_is_missing_is_an_error_that_names_the_variable(variables):
    value = serializer(KEY=KEY).dumps_typed(SECRET)
    with pytest.raises(Unsupported, match=r"id \w{8}.*LANGGRAPH_AES_KEY"):
        serializer(**variables).loads_typed(value)


@pytest.mark.parametrize("cut", [0, 5, 30, -1])
def test_a_value_that_was_tampered_with_is_an_error(cut):
    serde = serializer(KEY=KEY)
    kind, data = serde.dumps_typed(SECRET)
    with pytest.raises(Unsupported, match="not those that were written"):
        serde.loads_typed((kind, data[:cut]))


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"KEY": "hush"}, "LANGGRAPH_AES_KEY has a key of 4 bytes"),
        ({"KEY": KEY, "LEGACY_KEY": "hush"}, "LANGGRAPH_AES_LEGACY_KEY has a key of 4 bytes"),
        ({"KEY": KEY, "FALLBACK_KEYS": f"{OTHER},hush"}, "LANGGRAPH_AES_FALLBACK_KEYS"),
        ({"KEY": KEY, "JSON_KEYS": "hush"}, "LANGGRAPH_AES_JSON_KEYS"),
    ],
)
def test_a_variable_that_is_wrong_stops_the_start_and_is_not_shown(variables, said):
    with pytest.raises(StartupError, match=said) as raised:
        cipher(**variables)
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("name", ["KEY", "LEGACY_KEY", "FALLBACK_KEYS"])
def test_a_key_without_cryptography_stops_the_start(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(StartupError, match=rf"LANGGRAPH_AES_{name} .*\n.*treadle\[encryption\]"):
        cipher(**{name: KEY})


async def run(database: Database, thread: str, asked: Any, **variables: str) -> Any:
    saver = RunSaver(Saver(database, serializer(**variables)), thread, sync=False)
    graph = chain(Log, "a", "b", checkpointer=saver, asks="b")
    output = await graph.ainvoke(asked, {"configurable": {"thread_id": thread}})
    await saver.settle()
    return output


async def test_a_thread_goes_on_over_a_change_of_keys(database: Database):
    """First in the clear, then with a key, then with the next one."""
    thread = new_id()
    await run(database, thread, {"log": [SECRET]})
    await run(database, thread, Command(resume="yes"), KEY=OTHER)
    await run(database, thread, {"log": ["more"]}, KEY=OTHER)
    output = await run(database, thread, Command(resume="no"), KEY=KEY, FALLBACK_KEYS=OTHER)
    assert output["log"] == [SECRET, "a", "yes", "more", "a", "no"]


async def test_the_start_finds_out_that_a_key_is_missing(database: Database):
    for number in range(2):
        thread = new_id()
        await database.write(lambda tx, t=thread, n=number: tx.send(THREAD, {"id": t, "now": n}))
        await run(database, thread, {"log": [SECRET]}, KEY=KEY if number else OTHER)
    await check_readable(database, cipher(KEY=KEY, FALLBACK_KEYS=OTHER), handlers=False)
    with pytest.raises(StartupError, match=r"with a key that is not there \(id \w+\)"):
        await check_readable(database, cipher(KEY=KEY), handlers=False)
    with pytest.raises(StartupError, match=r"keys that are not there \(id \w+, \w+\)"):
        await check_readable(database, None, handlers=False)


async def test_a_start_without_a_key_is_in_order_where_all_is_in_the_clear(database: Database):
    thread = new_id()
    await database.write(lambda tx: tx.send(THREAD, {"id": thread, "now": 1}))
    await run(database, thread, {"log": ["x"]})
    await check_readable(database, None, handlers=False)
    await check_readable(database, cipher(KEY=KEY), handlers=False)
