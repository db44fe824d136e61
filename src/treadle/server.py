"""Puts the application together: config → rooms → one ASGI app, and runs it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import structlog
from langgraph.store.base import BaseStore

from treadle.a2a.notifications import Notifications
from treadle.a2a.routes import routes as a2a_routes
from treadle.a2a.service import A2AService
from treadle.assistants.routes import routes as assistant_routes
from treadle.assistants.service import AssistantService
from treadle.blocking import LoopWatch
from treadle.cluster.signals import Signals
from treadle.config import Config
from treadle.crons.routes import routes as cron_routes
from treadle.crons.service import CronService
from treadle.crons.ticker import Ticker
from treadle.database import Transaction
from treadle.errors import StartupError
from treadle.graphs.importing import users_traceback
from treadle.graphs.registry import GraphRegistry
from treadle.http import loopback
from treadle.http.application import Application
from treadle.http.groups import enabled
from treadle.http.metrics import RequestMetrics
from treadle.http.rules import HttpRules
from treadle.mcp.routes import mcp_routes
from treadle.mcp.service import McpService
from treadle.opening import (
    cors_of,
    custom_app,
    default_ttl,
    gate_of,
    open_database,
    open_redis,
    open_saver,
    open_store,
    sweeps,
)
from treadle.runs.loops import LoopPool, loop_factory
from treadle.runs.outcome import STATE, Outcome
from treadle.runs.rooms import Rooms
from treadle.runs.routes import routes as run_routes
from treadle.runs.service import RunService
from treadle.runs.stream_routes import stream_routes
from treadle.runs.worker import Worker
from treadle.serialization import dumps
from treadle.settings import Settings
from treadle.store.routes import routes as store_routes
from treadle.store.service import StoreService
from treadle.streaming.log import EventHub
from treadle.streaming.protocol.commands import Commands
from treadle.streaming.protocol.routes import protocol_routes
from treadle.streaming.protocol.run_commands import RunCommands
from treadle.streaming.protocol.state_commands import StateCommands
from treadle.streaming.relay.exchange import Exchange
from treadle.streaming.relay.relays import DatabaseRelay
from treadle.sweeping import Sweeper
from treadle.system.models import WorkerFigures
from treadle.system.routes import routes as system_routes
from treadle.system.service import SystemService
from treadle.telemetry import open_telemetry
from treadle.threads.routes import routes as thread_routes
from treadle.threads.service import ThreadService
from treadle.webhooks.outbox import Webhooks
from treadle.webhooks.rules import WebhookRules

if TYPE_CHECKING:
    from treadle.http.tracing import TracedApp


logger = structlog.get_logger("treadle.server")

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
        self._app: Application
        self._registry: GraphRegistry
        self._store: BaseStore
        self._trying: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Application | TracedApp]:
        """Open the rooms from the ground up; leaving closes them in reverse.

        Raises ``StartupError`` if one of them cannot be opened.
        """
        config, settings = self._config, self._settings
        telemetry = open_telemetry(os.environ)
        loopback.install()
        http = HttpRules.read(config.http)
        registry = GraphRegistry(config)
        registry.load()
        gate = gate_of(config, settings)
        async with AsyncExitStack() as stack:
            database, alone = await open_database(settings, config.folder)
            stack.push_async_callback(database.close)
            if telemetry is not None:
                telemetry.bind_logs()
                stack.push_async_callback(telemetry.close)
            store = await open_store(stack, config, database)
            events = EventHub(database)
            await events.open(alone)
            webhooks = Webhooks(database, WebhookRules.read(config.webhooks, os.environ))
            webhooks.enabled = not http.disable_webhooks
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
                telemetry=telemetry,
                policy=gate.policy,
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
            ticker = Ticker(database, runs, gate.policy)
            crons = CronService(
                database, assistants, check_webhook=webhooks.check, changed=ticker.wake
            )
            commands = Commands(
                RunCommands(runs, events), StateCommands(runs, threads.states, registry)
            )
            protocol_endpoints, sockets = protocol_routes(runs, events, commands)
            notifications = Notifications(database, webhooks)
            rooms.tell_end_in = notifications.tell_in
            agents = A2AService(database, assistants, threads, runs, events, notifications)
            metrics = RequestMetrics()
            endpoints = [
                *thread_routes(threads),
                *run_routes(runs),
                *stream_routes(runs, events),
                *protocol_endpoints,
                *assistant_routes(assistants),
                *cron_routes(crons),
                *store_routes(StoreService(store)),
                *mcp_routes(McpService(assistants, runs, registry)),
                *a2a_routes(agents, settings.mount_prefix),
            ]
            system = SystemService(
                database,
                metrics,
                rooms.figures,
                lambda: WorkerFigures(worker.slots_open, worker.active),
                has_meta="meta" not in http.disabled,
            )
            system.sources.append(events.figures)
            custom = custom_app(config, http)
            system_endpoints = system_routes(
                system,
                enabled(endpoints, http.disabled),
                gate.openapi,
                custom=None if custom is None else custom.openapi,
                prefix=settings.mount_prefix,
            )
            endpoints += system_endpoints
            app = Application(
                enabled(endpoints, http.disabled),
                sockets=enabled(sockets, http.disabled),
                authenticate=gate.authenticate,
                metrics=metrics,
                cors=http.cors or cors_of(settings),
                mount_prefix=settings.mount_prefix,
                max_body_bytes=settings.max_body_bytes,
                custom_app=custom,
                auth_first=http.middleware_order == "auth_first",
                headers=http.run_headers(),
                access_log=http.access_log(),
            )
            loopback.connect(app, settings.mount_prefix)
            webhooks.app = app
            if self._role == "worker":
                app = Application(system_endpoints, metrics=metrics)
            self._app = app
            self._worker, self._events, self._webhooks = worker, events, webhooks
            self._ticker = ticker
            self._registry, self._store = registry, store
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
            watch = LoopWatch(quiet=settings.allow_blocking)
            watch.start()
            stack.callback(watch.stop)
            system.sources.append(watch.figures)
            if telemetry is None:
                yield app
                return
            from treadle.http.tracing import TracedApp

            await telemetry.observe(system.families)
            yield TracedApp(app, telemetry.tracer, telemetry.meter)

    @property
    def max_body_bytes(self) -> int:
        return self._settings.max_body_bytes

    def check_started(self) -> None:
        """Raise ``StartupError`` if the project's own app has not started."""
        if (error := self._app.failure) is not None:
            shown = users_traceback(self._config, error)
            raise StartupError(f"The lifespan of http.app fails:\n{shown}") from error

    def _lost(self) -> None:
        """Another process has taken over the database: this one must not touch it any more."""
        logger.error("out of touch for longer than a lease: another server has taken over")
        os._exit(EXIT_LOST)

    def ready(self) -> None:
        """Requests are answered from now on: webhooks may call this server itself."""
        if self._role != "worker":  # which answers none
            self._webhooks.start()
        self._trying = asyncio.create_task(self._try_factories())

    async def _try_factories(self) -> None:
        """Warn of factories that fail, before the first run finds out."""
        async for spec, shown in self._registry.try_factories(self._store):
            logger.warning(
                f'the factory {spec.source} of graph "{spec.graph_id}" fails without the config of'
                f" a run:\n{shown}"
            )

    async def drain(self) -> None:
        """Begin no more runs, let those at work end for a while, close what hears of them."""
        if self._trying is not None:
            self._trying.cancel()
        await self._ticker.close()
        await self._worker.close(self._settings.shutdown_grace_secs)
        self._events.close()
        await self._webhooks.close()
