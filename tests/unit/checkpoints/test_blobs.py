from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest
from checkpointed import THREAD, DeltaLog, Log, chain
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from langgraph_sdk import Encryption, EncryptionContext
from langgraph_sdk.encryption.types import DecryptResult

from treadle.auth.users import User
from treadle.checkpoints import RunSaver, Saver, upkeep
from treadle.checkpoints.aes import AesCipher
from treadle.checkpoints.blobs import BlobHandlers, HandlerFailed
from treadle.checkpoints.encryption import check_readable, encrypted
from treadle.checkpoints.serde import state_serializer
from treadle.database import Database
from treadle.errors import StartupError, Unsupported
from treadle.ids import new_id

SECRET = "Schnurrbert"
TENANTS = [User({"identity": name}) for name in ("ada", "bob")]


def scrambled(context: EncryptionContext, blob: bytes) -> bytes:
    """No cipher, but what it makes of a text is not to be read, and another for each tenant."""
    key = sum(context.metadata.get("tenant", "none").encode()) % 255 + 1
    return bytes(byte ^ key for byte in blob)


def encryption(**handlers: Any) -> Encryption:
    """One with blob handlers, and a context that is the tenant; or with others in their place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Encryption()

    async def scramble(context: EncryptionContext, blob: bytes) -> bytes:
        await asyncio.sleep(0)
        assert context.model == "checkpoint"
        return scrambled(context, blob)

    async def tenant(user: Any, context: EncryptionContext) -> dict[str, Any]:
        return {**context.metadata, "tenant": user.identity}

    if (encrypt := handlers.get("encrypt", scramble)) is not None:
        made.encrypt.blob(encrypt)
    if (decrypt := handlers.get("decrypt", scramble)) is not None:
        made.decrypt.blob(decrypt)
    made.context(handlers.get("context", tenant))
    return made


def saver_of(database: Database, **handlers: Any) -> Saver:
    serde = encrypted(state_serializer(), None, handlers=True)
    return Saver(database, serde, BlobHandlers(encryption(**handlers), "./e.py:e"))


def in_the_clear(database: Database, key: str | None = None) -> Saver:
    aes = None if key is None else AesCipher(key.encode())
    return Saver(database, encrypted(state_serializer(), aes))


async def stored(database: Database) -> bytes:
    """All that lies in the tables of checkpoints."""
    rows = [
        row
        for table in ("checkpoints", "checkpoint_values", "checkpoint_writes")
        for row in await database.read_all(f"SELECT * FROM {table}")
    ]
    return b"\n".join(
        bytes(row.get("value", row.get("checkpoint", b""))) for row in map(dict, rows)
    )


async def ask(saver: Saver, thread: str, asked: Any, user: User | None = None, **kind: Any) -> Any:
    run = RunSaver(saver, thread, sync=kind.get("sync", False), user=user)
    graph = chain(kind.get("state", Log), *"abcd", checkpointer=run, asks="c")
    output = await graph.ainvoke(asked, {"configurable": {"thread_id": thread}})
    await run.settle()
    return output


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("state", [Log, DeltaLog])
async def test_a_graph_runs_as_on_the_memory_saver(database: Database, state: Any, sync: bool):
    saver, thread = saver_of(database), new_id()
    config: Any = {"configurable": {"thread_id": thread}}
    reference = chain(state, *"abcd", checkpointer=InMemorySaver(), asks="c")
    first = {"log": [SECRET, SECRET * 20], "last": SECRET}
    asks = [first, Command(resume=SECRET), {"log": ["again"]}, Command(resume="?"), {"log": ["e"]}]
    for number, asked in enumerate(asks):
        output = await ask(saver, thread, asked, TENANTS[number % 2], state=state, sync=sync)
        assert output["log"] == (await reference.ainvoke(asked, config))["log"]
    graph = chain(state, *"abcd", checkpointer=saver, asks="c")
    ours = [(s.values, s.next) async for s in graph.aget_state_history(config)]
    assert ours == [(s.values, s.next) async for s in reference.aget_state_history(config)]
    assert SECRET.encode() not in await stored(database)

    before = (await graph.aget_state(config)).values
    await database.write(lambda tx: upkeep.keep_latest(tx, database.dialect, saver.serde, thread))
    assert (await graph.aget_state(config)).values == before
    await saver.storage(thread)


async def test_what_was_stored_before_the_handlers_is_read(database: Database):
    thread = new_id()
    await ask(in_the_clear(database), thread, {"log": [SECRET], "last": "x"})
    assert SECRET.encode() in await stored(database)
    output = await ask(saver_of(database), thread, Command(resume="!"), TENANTS[0])
    assert output == {"log": [SECRET, "a", "b", "!", "d"], "last": "d"}


async def test_what_a_key_has_encrypted_before_the_handlers_is_read(database: Database):
    thread, key = new_id(), "k" * 16
    await ask(in_the_clear(database, key), thread, {"log": [SECRET]})
    serde = encrypted(state_serializer(), AesCipher(key.encode()), handlers=True)
    saver = Saver(database, serde, BlobHandlers(encryption(), "./e.py:e"))
    assert (await ask(saver, thread, Command(resume="!")))["log"][-2:] == ["!", "d"]
    types = await database.read_all("SELECT DISTINCT type FROM checkpoint_values")
    assert {row["type"].partition(":")[0] for row in types} == {
        "msgpack+aes-gcm", "msgpack+handlers"}  # fmt: skip


async def test_without_the_handlers_nothing_is_taken_for_something_else(database: Database):
    thread = new_id()
    await database.write(lambda tx: tx.send(THREAD, {"id": thread, "now": 1}))
    await ask(saver_of(database), thread, {"log": [SECRET]})
    await check_readable(database, None, handlers=True)
    with pytest.raises(StartupError, match=r"encryption\.path"):
        await check_readable(database, None, handlers=False)
    with pytest.raises(Unsupported, match=r"encryption\.path"):
        await in_the_clear(database).aget_tuple({"configurable": {"thread_id": thread}})


async def test_a_value_is_decrypted_with_the_context_that_it_was_encrypted_with(database: Database):
    heard: list[Any] = []

    async def decrypt(context: EncryptionContext, blob: bytes) -> DecryptResult[bytes]:
        heard.append(context.metadata.get("tenant"))
        return DecryptResult(scrambled(context, blob), replacement=b"ignored")

    saver, thread = saver_of(database, decrypt=decrypt), new_id()
    await ask(saver, thread, {"log": [SECRET]}, TENANTS[0])
    output = await ask(saver, thread, Command(resume="!"), TENANTS[1])
    assert output["log"][0] == SECRET
    assert set(heard) == {"ada"}
    found = await saver.aget_tuple({"configurable": {"thread_id": thread}})
    assert found is not None
    assert found.checkpoint["channel_values"]["log"][0] == SECRET
    assert set(heard) == {"ada", "bob"}


async def test_puts_of_a_run_stay_in_order_however_long_a_handler_takes(database: Database):
    slow = asyncio.Event()

    async def encrypt(context: EncryptionContext, blob: bytes) -> bytes:
        if b"first" in blob:
            await slow.wait()
        return scrambled(context, blob)

    run = RunSaver(saver_of(database, encrypt=encrypt), new_id(), sync=False)
    config: Any = {
        "configurable": {"thread_id": run.thread_id, "checkpoint_ns": "", "checkpoint_id": "1"}
    }
    puts = [
        asyncio.create_task(run.aput_writes(config, [("c", word)], new_id()))
        for word in ("first", "second")
    ]
    await asyncio.sleep(0)
    settled = asyncio.create_task(run.settle())
    await asyncio.sleep(0)
    assert not puts[1].done()
    assert not settled.done()
    slow.set()
    await settled
    assert len(await database.read_all("SELECT 1 FROM checkpoint_writes")) == 2


async def test_a_run_that_is_cancelled_has_put_what_it_has_put(database: Database):
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def encrypt(context: EncryptionContext, blob: bytes) -> bytes:
        begun.set()
        await go_on.wait()
        return scrambled(context, blob)

    run = RunSaver(saver_of(database, encrypt=encrypt), new_id(), sync=False)
    graph = chain(Log, "a", checkpointer=run)
    config: Any = {"configurable": {"thread_id": run.thread_id}}
    task = asyncio.create_task(graph.ainvoke({"log": [SECRET]}, config))
    await begun.wait()
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await run.settle()
    found = await saver_of(database).aget_tuple(config)
    assert found is not None
    assert found.checkpoint["id"] == run.last_checkpoint_id


async def test_the_context_is_asked_for_once_a_run(database: Database):
    asked: list[Any] = []

    async def context(user: Any, context: EncryptionContext) -> dict[str, Any]:
        asked.append(user.identity)
        return {"tenant": user.identity}

    await ask(saver_of(database, context=context), new_id(), {"log": [SECRET]}, TENANTS[0])
    assert asked == ["ada"]


async def refuse(context: EncryptionContext, blob: bytes) -> bytes:
    raise OSError(f"the key server says: {SECRET}")


async def odd(context: EncryptionContext, blob: bytes) -> Any:
    return "text"


@pytest.mark.parametrize("handler", [refuse, odd])
async def test_a_handler_that_fails_is_named_and_nothing_is_written(
    database: Database, handler: Any
):
    saver, thread = saver_of(database, encrypt=handler), new_id()
    with pytest.raises(HandlerFailed, match=r"encrypt\.blob of encryption\.path") as raised:
        await ask(saver, thread, {"log": [SECRET]})
    assert SECRET not in str(raised.value)
    assert await stored(database) == b""
    await ask(saver_of(database), thread, {"log": [SECRET]})
    with pytest.raises(HandlerFailed, match=r"decrypt\.blob of encryption\.path"):
        await saver_of(database, decrypt=handler).aget_tuple(
            {"configurable": {"thread_id": thread}}
        )


async def test_a_context_has_to_be_a_dict():
    async def context(user: Any, context: EncryptionContext) -> Any:
        return "ada"

    handlers = BlobHandlers(encryption(context=context), "./e.py:e")
    assert await handlers.context(None) == {}
    with pytest.raises(HandlerFailed, match="context"):
        await handlers.context(TENANTS[0])


def json_handlers() -> Encryption:
    made = encryption()

    async def encrypt(context: EncryptionContext, data: dict[str, Any]) -> dict[str, Any]:
        return data

    made.encrypt.json(encrypt)
    return made


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (object(), "has to be a langgraph_sdk.Encryption"),
        (json_handlers(), "JSON handlers .* are not supported"),
        (encryption(encrypt=None), "needs both blob handlers"),
        (encryption(decrypt=None), "needs both blob handlers"),
    ],
)
def test_what_would_not_encrypt_all_that_it_says_stops_the_start(made, said):
    with pytest.raises(StartupError, match=rf"^encryption\.path: \./e\.py:e .*{said}"):
        BlobHandlers(made, "./e.py:e")
