"""What the rooms stand on, as the config and the settings say."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.store.base import BaseStore, TTLConfig

from treadle.auth.opening import Gate, open_gate
from treadle.checkpoints.aes import KEY_VARIABLE, AesCipher
from treadle.checkpoints.blobs import BlobHandlers
from treadle.checkpoints.custom import CustomSaver
from treadle.checkpoints.encryption import check_readable, encrypted
from treadle.checkpoints.saver import Saver
from treadle.checkpoints.serde import state_serializer
from treadle.clock import now_us
from treadle.cluster.signals import Signals
from treadle.config import Config
from treadle.database import Database
from treadle.database.sqlite import DatabaseInUse, SQLiteDatabase
from treadle.errors import StartupError
from treadle.graphs.importing import import_object
from treadle.graphs.providing import open_provided
from treadle.http.cors import CorsSettings
from treadle.http.custom_app import CustomApp
from treadle.http.rules import HttpRules
from treadle.runs import queries as run_queries
from treadle.settings import Settings
from treadle.store.backend import DatabaseStore
from treadle.store.embedding import open_embedder
from treadle.streaming.relay.relays import DatabaseRelay, Relay
from treadle.streaming.retention import Retention
from treadle.sweeping import Sweep
from treadle.threads.models import Ttl
from treadle.threads.removal import DeletedIn
from treadle.threads.sweep import ThreadSweep

logger = structlog.get_logger("treadle.server")


async def open_database(settings: Settings, folder: Path) -> tuple[Database, bool]:
    """Open the database that is set; whether no other process has it open too.

    A process that has an SQLite file open and has let its lease end (it is stopped, or stuck) is
    no hindrance: it notices as soon as it goes on, and ends.
    """
    if settings.is_postgres:
        from treadle.database.postgres import PostgresDatabase

        postgres = PostgresDatabase(
            str(settings.database_uri),
            connections=settings.postgres_connections,
            wait_seconds=settings.postgres_wait_secs,
        )
        await postgres.open()
        return postgres, False
    database = SQLiteDatabase(settings.database_path(folder), settings.sqlite_synchronous)
    try:
        await database.open()
        return database, True
    except DatabaseInUse:
        if database.peek(run_queries.LIVE_WORKERS, {"now": now_us()}):
            raise
        logger.warning("taking the database over from a server that has let its lease end")
        await database.open(take_over=True)
        return database, False


def open_redis(
    settings: Settings, database: Database, signals: Signals, ends: DatabaseRelay
) -> Relay | None:
    """The relay through Redis, if one is set."""
    if settings.redis_uri is None:
        return None
    from treadle.streaming.relay.redis import RedisRelay

    return RedisRelay(
        settings.redis_uri,
        database,
        signals,
        ends,
        cluster=settings.redis_cluster,
        prefix=settings.redis_key_prefix,
    )


def gate_of(config: Config, settings: Settings) -> Gate:
    """Who is let in, and what they may do."""

    def load(source: str) -> object:
        return import_object(config, source, "auth.path")

    return open_gate(config, os.environ, load, development=settings.development)


def custom_app(config: Config, rules: HttpRules) -> CustomApp | None:
    """The user's own app, if langgraph.json names one."""
    if rules.app is None:
        return None
    found = import_object(config, rules.app, "http.app")
    return CustomApp(found, rules.app, is_protected=rules.enable_custom_route_auth)


def cors_of(settings: Settings) -> CorsSettings:
    """What the variables say of CORS: origins that are named may bring credentials."""
    origins = settings.cors_allow_origins
    return CorsSettings(allow_origins=origins, allow_credentials="*" not in origins)


def default_ttl(config: Config) -> Ttl | None:
    """The ``checkpointer.ttl`` of a config, as threads get it."""
    ttl = config.thread_ttl
    return None if ttl.default_ttl is None else Ttl(ttl.default_ttl, ttl.strategy)


def store_ttl(config: Config) -> TTLConfig:
    """The ``store.ttl`` of a config, as the store takes it."""
    ttl = config.store_ttl
    return {"default_ttl": ttl.default_ttl, "refresh_on_read": ttl.refresh_on_read}


async def open_saver(stack: AsyncExitStack, config: Config, database: Database) -> Saver:
    """The checkpointer over the database, encrypted as the project asks, or the user's own."""
    source, handlers = (config.checkpointer or {}).get("path"), config.encryption
    aes = AesCipher.read(os.environ)
    if source is None:
        blobs = None
        if handlers is not None:
            blobs = BlobHandlers(import_object(config, handlers, "encryption.path"), handlers)
        has_handlers = blobs is not None
        await check_readable(database, aes, handlers=has_handlers)
        serde = encrypted(state_serializer(), aes, handlers=has_handlers)
        return Saver(database, serde, blobs)
    if handlers is not None:
        raise StartupError(
            "encryption.path and checkpointer.path exclude each other: Treadle does not encrypt"
            " what a checkpointer of your own keeps. Encrypt it there."
        )
    if aes is not None:
        logger.warning(f"checkpointer.path: what it keeps is not encrypted by {KEY_VARIABLE}")
    kind: type[BaseCheckpointSaver[Any]] = BaseCheckpointSaver
    return CustomSaver(
        database, await open_provided(stack, config, source, "checkpointer.path", kind)
    )


async def open_store(stack: AsyncExitStack, config: Config, database: Database) -> BaseStore:
    """The store over the database, or the user's own."""
    source = (config.store or {}).get("path")
    if source is not None:
        return await open_provided(stack, config, source, "store.path", BaseStore)
    embedder = await open_embedder(config, config.store_index)
    store = DatabaseStore(database, store_ttl(config), embedder)
    await store.open()
    return store


def sweeps(
    config: Config,
    settings: Settings,
    database: Database,
    saver: Saver,
    store: BaseStore,
    deleted: Callable[[str], Awaitable[None]],
    deleted_in: DeletedIn,
) -> list[Sweep]:
    """What is removed by the clock; ``deleted`` hears of each thread among it."""
    threads = ThreadSweep(
        database,
        saver,
        limit=config.thread_ttl.sweep_limit,
        deleted=deleted,
        deleted_in=deleted_in,
    )
    events = Retention(
        database, settings.resumable_stream_ttl_secs, settings.events_max_bytes_per_thread
    )
    found = [
        Sweep("threads", config.thread_ttl.sweep_interval_minutes * 60, threads.sweep),
        Sweep("kept events", events.sweep_seconds, events.sweep),
    ]
    if isinstance(store, DatabaseStore):
        seconds = config.store_ttl.sweep_interval_minutes * 60
        found.append(Sweep("store items", seconds, store.sweep))
    return found
