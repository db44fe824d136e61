"""Puts the application together: config → rooms → one ASGI app, and runs it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import structlog
import uvicorn
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.store.base import BaseStore, TTLConfig

from treadle.assistants.routes import routes as assistant_routes
from treadle.assistants.service import AssistantService
from treadle.blocking import LoopWatch
from treadle.checkpoints.custom import CustomSaver
from treadle.checkpoints.saver import Saver
from treadle.clock import now_us
from treadle.cluster.signals import Signals
from treadle.config import Config
from treadle.crons.routes import routes as cron_routes
from treadle.crons.service import CronService
from treadle.crons.ticker import Ticker
from treadle.database import Database, Transaction
from treadle.database.sqlite import DatabaseInUse, SQLiteDatabase
from treadle.graphs.importing import import_object
from treadle.graphs.providing import open_provided
from treadle.graphs.registry import GraphRegistry
from treadle.http.application import Application
from treadle.http.cors import CorsSettings
from treadle.http.custom_app import CustomApp
from treadle.http.metrics import RequestMetrics
from treadle.http.protocol import HttpProtocol
from treadle.runs import queries as run_queries
from treadle.runs.loops import LoopPool
from treadle.runs.outcome import STATE, Outcome
from treadle.runs.rooms import Rooms
from treadle.runs.routes import routes as run_routes
from treadle.runs.service import RunService
from treadle.runs.stream_routes import stream_routes
from treadle.runs.worker import Worker
from treadle.serialization import dumps
from treadle.settings import Settings
from treadle.store.backend import DatabaseStore
from treadle.store.embedding import open_embedder
from treadle.store.routes import routes as store_routes
from treadle.store.service import StoreService
from treadle.streaming.log import EventHub
from treadle.streaming.protocol.commands import Commands
from treadle.streaming.protocol.routes import protocol_routes
from treadle.streaming.protocol.run_commands import RunCommands
from treadle.streaming.protocol.state_commands import StateCommands
from treadle.streaming.relay.exchange import Exchange
from treadle.streaming.relay.relays import DatabaseRelay, Relay
from treadle.streaming.retention import Retention
from treadle.sweeping import Sweep, Sweeper
from treadle.system.models import WorkerFigures
from treadle.system.routes import routes as system_routes
from treadle.system.service import SystemService
from treadle.threads.models import Ttl
from treadle.threads.removal import DeletedIn
from treadle.threads.routes import routes as thread_routes
from treadle.threads.service import ThreadService
from treadle.threads.sweep import ThreadSweep
from treadle.webhooks.outbox import Webhooks
from treadle.webhooks.rules import WebhookRules

logger = structlog.get_logger("treadle.server")

KEEP_ALIVE_SECONDS = 75
CLOSE_SECONDS = 2
EXIT_LOST = 3

Role = Literal["all", "api", "worker"]
"""What a process does: answers requests and executes runs, or only one of the two."""


class Server:
    """All rooms of one process, put together by ``open``."""

    def __init__(
        self, config: Config, settings: Settings, url: str | None = None, role: Role = "all"
    ) -> None:
        self._config, self._settings, self._url = config, settings, url
        self._role = role
        self._worker: Worker
        self._events: EventHub
        self._webhooks: Webhooks
        self._ticker: Ticker

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Application]:
        """Open the rooms from the ground up; leaving closes them in reverse.

        Raises ``StartupError`` if one of them cannot be opened.
        """
        config, settings = self._config, self._settings
        registry = GraphRegistry(config)
        registry.load()
        async with AsyncExitStack() as stack:
            database, alone = await open_database(settings, config.folder)
            stack.push_async_callback(database.close)
            store = await open_store(stack, config, database)
            events = EventHub(database)
            await events.open(alone)
            webhooks = Webhooks(database, WebhookRules.read(config.webhooks, os.environ))
            saver = await open_saver(stack, config, database)
            signals = Signals(database)
            rooms = Rooms(
                database,
                registry,
                saver,
                store,
                events,
                settings,
                webhooks,
                self._url,
                signals=signals,
            )
            if settings.bg_job_isolated_loops:
                rooms.loops = LoopPool(loop_factory())
                stack.callback(rooms.loops.close)
            worker = Worker(rooms, settings.n_jobs_per_worker, self._lost)

            async def stop_runs(thread_id: str) -> None:
                await runs.thread_deleted(thread_id)

            def announce_state(thread_id: str, state: dict[str, Any]) -> None:
                if events.relay is None and events.current(thread_id) is None:
                    return
                data = dumps({"state": state, "thread_id": thread_id})
                events.tell_all(thread_id, STATE, "state_update", data)

            async def thread_deleted_in(transaction: Transaction, thread_id: str) -> None:
                await runs.thread_deleted_in(transaction, thread_id)

            threads = ThreadService(
                database,
                saver,
                registry,
                store,
                ttl_default=default_ttl(config),
                stop_runs=stop_runs,
                announce_state=announce_state,
                deleted_in=thread_deleted_in,
            )
            stack.push_async_callback(threads.removal.stop)
            assistants = AssistantService(
                database, registry, store=store, delete_thread=threads.delete
            )
            await assistants.ensure_defaults()
            runs = RunService(rooms, worker, assistants, threads.create_thread_in)
            ticker = Ticker(database, runs)
            crons = CronService(
                database, assistants, check_webhook=webhooks.check, changed=ticker.wake
            )
            commands = Commands(
                RunCommands(runs, events), StateCommands(runs, threads.states, registry)
            )
            protocol_endpoints, sockets = protocol_routes(runs, events, commands)
            metrics = RequestMetrics()
            endpoints = [
                *thread_routes(threads),
                *run_routes(runs),
                *stream_routes(runs, events),
                *protocol_endpoints,
                *assistant_routes(assistants),
                *cron_routes(crons),
                *store_routes(StoreService(store)),
            ]
            system = SystemService(
                database,
                metrics,
                rooms.figures,
                lambda: WorkerFigures(worker.slots_open, worker.active),
            )
            system_endpoints = system_routes(system, endpoints)
            endpoints += system_endpoints
            app = Application(
                endpoints,
                sockets=sockets,
                metrics=metrics,
                cors=CorsSettings(allow_origins=settings.cors_allow_origins),
                mount_prefix=settings.mount_prefix,
                max_body_bytes=settings.max_body_bytes,
                custom_app=custom_app(config),
            )
            webhooks.app = app
            if self._role == "worker":
                app = Application(system_endpoints, metrics=metrics)
            self._worker, self._events, self._webhooks = worker, events, webhooks
            self._ticker = ticker
            signals.on("assistant", assistants.forget)
            signals.on_missed(assistants.forget)
            signals.on("webhooks", webhooks.wake)
            signals.on("deleted", runs.stop_thread)
            ends = DatabaseRelay(database, signals)
            redis = open_redis(settings, database, signals, ends)
            if redis is not None:
                system.checks["redis"] = redis.is_well
            exchange = Exchange(events, database, signals, ends, redis, Outcome.unpack)
            await signals.open()
            stack.push_async_callback(signals.close)
            if not signals.is_alone:
                webhooks.shared = True
                await exchange.open(runs.outcome_of)
                stack.push_async_callback(exchange.close)
            if self._role != "api":
                await worker.open(alone)
            ticker.open()
            stack.push_async_callback(self.drain)
            sweeper = Sweeper(
                sweeps(config, settings, database, saver, store, stop_runs, thread_deleted_in)
            )
            sweeper.start()
            stack.push_async_callback(sweeper.stop)
            if not settings.allow_blocking:
                watch = LoopWatch()
                watch.start()
                stack.callback(watch.stop)
            yield app

    @property
    def max_body_bytes(self) -> int:
        return self._settings.max_body_bytes

    def _lost(self) -> None:
        """Another process has taken over the database: this one must not touch it any more."""
        logger.error("out of touch for longer than a lease: another server has taken over")
        os._exit(EXIT_LOST)

    def ready(self) -> None:
        """Requests are answered from now on: webhooks may call this server itself."""
        if self._role != "worker":  # which answers none
            self._webhooks.start()

    async def drain(self) -> None:
        """Begin no more runs, let those at work end for a while, close what hears of them."""
        await self._ticker.close()
        await self._worker.close(self._settings.shutdown_grace_secs)
        self._events.close()
        await self._webhooks.close()


class _HttpServer(uvicorn.Server):
    """uvicorn, which lets runs end and closes streams before it waits for its connections."""

    def __init__(self, config: uvicorn.Config, rooms: Server, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._rooms, self._on_ready = rooms, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._rooms.ready()
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listening in self.servers:
            listening.close()
        await self._rooms.drain()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A first signal drains; a second one ends the process where it stands."""
        if self.should_exit:
            os._exit(128 + sig)
        super().handle_exit(sig, frame)


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


def custom_app(config: Config) -> CustomApp | None:
    """The user's own app, if langgraph.json names one."""
    source = (config.http or {}).get("app")
    return None if source is None else CustomApp(import_object(config, source, "http.app"))


def default_ttl(config: Config) -> Ttl | None:
    """The ``checkpointer.ttl`` of a config, as threads get it."""
    ttl = config.thread_ttl
    return None if ttl.default_ttl is None else Ttl(ttl.default_ttl, ttl.strategy)


def store_ttl(config: Config) -> TTLConfig:
    """The ``store.ttl`` of a config, as the store takes it."""
    ttl = config.store_ttl
    return {"default_ttl": ttl.default_ttl, "refresh_on_read": ttl.refresh_on_read}


async def open_saver(stack: AsyncExitStack, config: Config, database: Database) -> Saver:
    """The checkpointer over the database, or the user's own."""
    source = (config.checkpointer or {}).get("path")
    if source is None:
        return Saver(database)
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


def run(
    config: Config,
    settings: Settings,
    *,
    host: str,
    port: int,
    sock: socket.socket | None,
    log: Any,
    on_ready: Callable[[], None],
    role: Role = "all",
) -> None:
    """Serve at ``sock`` until SIGINT or SIGTERM. ``on_ready`` is called once requests are answered.

    A worker answers there nothing but how it is; it needs no ``sock``.
    Raises ``StartupError`` if the server cannot start.
    """
    server = Server(config, settings, f"http://{host}:{port}{settings.mount_prefix}", role)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        loop = runner.get_loop()
        serving = loop.create_task(_serve(server, sock, on_ready))
        while not serving.done():
            try:
                loop.run_until_complete(serving)
            except SystemExit as error:
                if serving.done():
                    raise
                # It ends the run that it comes from, as any other exception does.
                logger.error("a graph called sys.exit(): the server goes on", code=error.code)


async def _serve(server: Server, sock: socket.socket | None, on_ready: Callable[[], None]) -> None:
    async with server.open() as app:
        http = uvicorn.Config(
            app,
            http=HttpProtocol,
            ws="websockets-sansio",
            ws_max_size=server.max_body_bytes,
            ws_per_message_deflate=False,  # it would encode each event for each client
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=CLOSE_SECONDS,
        )
        sockets = [] if sock is None else [sock]
        await _HttpServer(http, server, on_ready).serve(sockets=sockets)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
