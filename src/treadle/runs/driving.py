"""Driving one graph through one run: what it is given, what it streams, what it leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import structlog
from langchain_core._api import suppress_langchain_beta_warning
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.constants import START, TAG_HIDDEN
from langgraph.errors import GraphDrained, InvalidUpdateError
from langgraph.runtime import RunControl

from treadle.auth import Caller
from treadle.auth.acting import ACTING
from treadle.auth.callers import PERMISSIONS, USER, USER_ID, user_in
from treadle.checkpoints.custom import CustomRunSaver
from treadle.checkpoints.rows import make_config
from treadle.checkpoints.run_saver import RunSaver, run_saver
from treadle.database import Row, Transaction
from treadle.errors import TreadleError, Unavailable
from treadle.graphs.context import context_for
from treadle.graphs.registry import Graph, bind
from treadle.runs import queries
from treadle.runs.commands import CommandInput, UnknownInterruptError
from treadle.runs.langsmith import langsmith_callbacks
from treadle.runs.merging import CHECKPOINT_KEYS, attempt_metadata, graph_command
from treadle.runs.summary import NO_INTERRUPTS, Summary, summary_of
from treadle.serialization import dump_text, dumps, loads
from treadle.streaming.modes import Encoder, graph_modes
from treadle.streaming.protocol.envelope import INTERRUPT, Emission
from treadle.streaming.protocol.plain import PlainRecorder
from treadle.streaming.protocol.recording import Recorder, interrupt_emission, state_json
from treadle.threads.snapshots import interrupts_json, thread_values

if TYPE_CHECKING:
    from treadle.runs.rooms import Rooms

logger = structlog.get_logger("treadle.runs")

MAY_ANSWER = "__input_may_answer__"
"""A key in the configurable of runs that commands start on busy threads."""


def is_command(kwargs: dict[str, Any]) -> bool:
    """Whether a run was started by a command of protocol v2."""
    return "lifecycle" in kwargs["stream_mode"]  # a mode that requests cannot name


class RunMoved(TreadleError):
    """The run no longer belongs to this attempt: it was deleted, or another worker has it."""


class AttemptsExhausted(TreadleError):
    """The worker was lost each time that it executed the run."""


class Claim:
    """A run that was claimed: its row, taken apart.

    ``attempt`` fences off the writes of earlier claims; ``tries`` counts those of them whose
    worker was lost, and this one.
    """

    __slots__ = (
        "attempt", "graph_id", "is_command", "kwargs", "resumable", "row", "run_id", "temporary",
        "thread_id", "tries",
    )  # fmt: skip

    def __init__(self, row: Row) -> None:
        self.row = row
        self.run_id: str = row["run_id"]
        self.thread_id: str = row["thread_id"]
        self.graph_id: str = row["graph_id"]
        self.attempt: int = row["attempt"]
        self.tries: int = row["tries"]
        self.temporary = bool(row["temporary"])
        self.kwargs: dict[str, Any] = loads(row["kwargs"])
        self.resumable: bool = self.kwargs["resumable"]
        self.is_command = is_command(self.kwargs)

    def names(self) -> dict[str, Any]:
        """What tells this attempt from all others, for logs and traces."""
        configurable = self.kwargs["config"]["configurable"]
        return {
            "run_id": self.run_id,
            "thread_id": self.thread_id,
            "assistant_id": self.row["assistant_id"],
            "graph_id": self.graph_id,
            "attempt": self.attempt,
            "request_id": configurable["langgraph_request_id"],
        }


class Drive:
    """One drive of a graph. ``run`` it once; then it tells how it went.

    ``emit`` gets each event; ``watched()`` says whether anybody reads them, ``told()`` whether
    those of protocol v2 are wanted.
    ``stopped`` is how the run was ended from outside, set before its task is cancelled: see
    ``Execution.stop``. ``failure`` is what the graph failed with. ``summary`` is what it leaves
    on its thread; None leaves the thread as it was. ``untouched``: the run was refused before
    it did anything.
    """

    def __init__(
        self,
        claim: Claim,
        rooms: Rooms,
        emit: Callable[[Emission], None],
        send: Callable[[str, bytes], None],
        watched: Callable[[], bool],
        told: Callable[[], bool],
    ) -> None:
        self.claim = claim
        self.stopped: str | None = None
        self.ending = False
        self.failure: BaseException | None = None
        self.summary: Summary | None = None
        self.control = RunControl()
        self.task: asyncio.Task[Any] | None = None
        self.callbacks: list[Any] = []
        """Handlers of the graph's callbacks, beside those that the environment asks for."""
        self._rooms, self._emit, self._send = rooms, emit, send
        self._watched, self._told = watched, told
        self._modes: list[str] = claim.kwargs["stream_mode"]
        self._encoder = Encoder(self._modes)
        self._plain = PlainRecorder(self._encoder, frozenset(self._modes))
        self._recorder: Recorder | None = None
        self._always_encode = claim.resumable or "messages" in self._modes
        self._graph: Graph | None = None
        self._saver: RunSaver | CustomRunSaver | None = None
        self._output: Any = None
        self._asked: list[Any] = []
        self._paused = False
        self.untouched = False

    async def run(self) -> None:
        """Drive the graph to its end, or to where it is stopped."""
        self.task = asyncio.current_task()
        try:
            async with AsyncExitStack() as stack:
                await self._run(stack)
        except Exception as error:  # what a factory had opened could not be closed
            self.failure = self.failure or error

    async def _run(self, stack: AsyncExitStack) -> None:
        try:
            config = self._config()
            ACTING.set(self._caller(config["configurable"]))
            if self._rooms.registry.static(self.claim.graph_id) is None:
                self._check()  # the factory may be what kills the workers
            self._graph = await stack.enter_async_context(self._open(config))
            self._check()
            await self._stream(self._graph, config)
        except asyncio.CancelledError as error:
            if self.stopped is None:
                raise
            cast("asyncio.Task[Any]", self.task).uncancel()
            self.failure = error
        except GraphDrained:
            self.stopped = self.stopped or "hand_back"
        except RunMoved:
            self.stopped = self.stopped or "lose"
        except Unavailable as error:
            self._lose_touch(error)
        except (Exception, SystemExit) as error:
            self.failure = error
        self.ending = True
        if self._graph is not None and self._saver is not None:
            await self._settle(self._graph)

    @property
    def input_refused(self) -> bool:
        """Whether the graph's state could not take the run's input, so that nothing ran.

        The input must not stay on the thread: every later run would fail on it in turn.
        """
        if self.failure is None or self.stopped is not None or self._saver is None:
            return False
        if self._graph is None or START not in self._graph.nodes:
            return False
        last = self._saver.last_metadata or {}
        return last.get("source") == "input" and last.get("run_id") == self.claim.run_id

    def abandon(self, failure: BaseException) -> None:
        """Take what was checkpointed for the end: the graph blocks, and is not waited for."""
        self.ending, self.failure = True, failure
        if self._saver is not None and self._graph is not None:
            self.summary = self._quick_summary(self._graph)

    def _check(self) -> None:
        """Raise if the graph is not to be driven: it was stopped, or has lost all its workers."""
        if self.stopped is not None:
            raise asyncio.CancelledError
        if self.claim.tries > self._rooms.settings.bg_job_max_retries:
            raise AttemptsExhausted(
                f"The run was cut off {self.claim.tries - 1} times (its worker crashed or was"
                " killed), and is not tried again (BG_JOB_MAX_RETRIES)"
            )

    async def _settle(self, graph: Graph) -> None:
        """Make durable what was put, and see what state the thread is in now."""
        if self.stopped in ("rollback", "delete", "lose"):
            return
        try:
            await cast("RunSaver | CustomRunSaver", self._saver).settle()
            if self.stopped != "hand_back":
                self.summary = await self._summarize(graph)
        except RunMoved:
            self.stopped = self.stopped or "lose"
        except Unavailable as error:
            self._lose_touch(error)
        except Exception as error:
            self.failure = self.failure or error

    def _lose_touch(self, error: Unavailable) -> None:
        """The database cannot be reached: the run is no worse for it, and begins again later."""
        logger.warning(
            "a run has lost the database: it goes on from its last checkpoint",
            run_id=self.claim.run_id,
            error=str(error),
        )
        self.stopped = self.stopped or "lose"

    @property
    def asks(self) -> bool:
        """Whether the graph has asked for answers: at a breakpoint it stops without."""
        return self.summary is not None and self.summary.asks

    @property
    def output(self) -> Any:
        """What those who wait are given: the last values, and the questions beside them."""
        output = self._output
        if output is None and self.summary is not None and self.summary.values is not None:
            output = loads(self.summary.values)
        if self._asked and (output is None or isinstance(output, dict)):
            return {**(cast("dict[str, Any]", output) or {}), INTERRUPT: self._asked}
        return output

    # -- streaming -------------------------------------------------------------------------

    async def _stream(self, graph: Graph, config: dict[str, Any]) -> None:
        kwargs = self.claim.kwargs
        options: dict[str, Any] = {
            "context": context_for(graph, kwargs["context"], config["configurable"]),
            "control": self.control,
            "interrupt_before": kwargs["interrupt_before"],
            "interrupt_after": kwargs["interrupt_after"],
        }
        if self._saver is not None:
            options["durability"] = kwargs["durability"]
        last = await self._own_checkpoint()
        if last is not None and await self._is_at_breakpoint(graph, last):
            self._paused = True
            return
        graph_input = await self._input(graph, config, last)
        if self.claim.is_command:
            await self._record(graph, graph_input, config, options)
            return
        subgraphs: bool = kwargs["subgraphs"]
        options["output_keys"] = graph.output_channels
        options["stream_mode"] = sorted({*graph_modes(self._modes), "values", "updates"})
        options["subgraphs"] = subgraphs
        parts = (
            self._events(graph, graph_input, config, options)
            if "events" in self._modes
            else graph.astream(graph_input, cast("Any", config), **options)
        )
        async for part in cast("AsyncIterator[Any]", parts):
            namespace, mode, payload = part if subgraphs else ((), *part)
            if mode == "values":
                self._plain.see_interrupts(namespace, payload)
                if not namespace:
                    self._see_values(payload)
            elif mode == "updates" and not namespace and INTERRUPT in payload:
                self._paused = True
            if self._told():
                for emission in self._plain.events(namespace, mode, payload):
                    self._emit(emission)
            elif self._always_encode or self._watched():
                for name, data in self._encoder.encode(namespace, mode, payload):
                    self._send(name, data)

    async def _record(
        self, graph: Graph, graph_input: Any, config: dict[str, Any], options: dict[str, Any]
    ) -> None:
        """Drive a command's run, with langgraph's own event stream."""
        recorder = self._recorder = Recorder(self._emit, self._start_checkpoint)
        with suppress_langchain_beta_warning():
            events = await graph.astream_events(
                graph_input,
                cast("Any", config),
                version="v3",
                transformers=[recorder.tap],
                **options,
            )
        recorder.tasks = "tasks" in events.extensions
        try:
            async for event in events:
                if event["method"] == "values" and not event["params"]["namespace"]:
                    self._output = state_json(event["params"]["data"])
                    if asked := event["params"].get("interrupts"):
                        self._asked += asked
                        self._paused = True
                recorder.see(event)
        finally:
            recorder.finish()
        self._paused = self._paused or recorder.waits

    def _start_checkpoint(self) -> str | None:
        """The id of the checkpoint that the run began from."""
        named = self.claim.kwargs["config"]["configurable"].get("checkpoint_id")
        return named or (None if self._saver is None else self._saver.last_checkpoint_id)

    def requests(self) -> Iterator[Emission]:
        """The requests for answers that protocol v2 has not told of yet."""
        for namespace, interrupt in self._plain.asked.values():
            yield interrupt_emission(namespace, interrupt)

    def children_left(self, event: str, error: str | None) -> Iterator[Emission]:
        """The ends of subgraphs that the run left behind."""
        return self._recorder.children_left(event, error) if self._recorder else iter(())

    def _see_values(self, payload: Any) -> None:
        """Keep the output so far. The questions of one step come one by one.

        Values after them have what other tasks of the step did: it is kept back until all is done.
        """
        if isinstance(payload, dict) and INTERRUPT in payload:
            values = cast("dict[str, Any]", payload)
            self._asked += values[INTERRUPT]
            payload = {key: value for key, value in values.items() if key != INTERRUPT}
        elif self._asked:
            return
        self._output = payload

    async def _events(
        self, graph: Graph, graph_input: Any, config: dict[str, Any], options: dict[str, Any]
    ) -> AsyncIterator[Any]:
        """LangChain's events of the run, sent as they come; yields what the graph streams.

        What langgraph does between nodes is tagged as hidden, and stays so.
        """
        events = graph.astream_events(graph_input, cast("Any", config), version="v2", **options)
        async for event in events:
            if TAG_HIDDEN in event.get("tags", ()):
                continue
            if event["event"] == "on_chain_stream" and event["run_id"] == self.claim.run_id:
                yield cast("Any", event["data"]).get("chunk")
                continue
            shown = dict(event)
            if event["event"] == "on_chain_start" and event["run_id"] == self.claim.run_id:
                shown["data"] = {**event["data"], "input": self.claim.kwargs["input"]}
            self._send("events", dumps(shown))

    # -- what a graph is given -------------------------------------------------------------

    @asynccontextmanager
    async def _open(self, config: dict[str, Any]) -> AsyncGenerator[Graph]:
        """The graph, bound to this run's checkpointer and to the store."""
        rooms = self._rooms
        if not self.claim.temporary:
            self._saver = run_saver(
                rooms.saver,
                self.claim.thread_id,
                sync=self.claim.kwargs["durability"] == "sync",
                guard=self._guard,
                user=config["configurable"][USER],
            )
        graph = rooms.registry.static(self.claim.graph_id)
        if graph is not None:
            yield bind(graph, self._saver, rooms.store)
            return
        caller = self._caller(config["configurable"])
        async with rooms.registry.open(
            self.claim.graph_id,
            cast("Any", config),
            access="threads.create_run",
            store=rooms.store,
            caller=caller,
            context=self.claim.kwargs["context"],
        ) as made:
            yield bind(made, self._saver, rooms.store)

    def _caller(self, configurable: dict[str, Any]) -> Caller:
        """Whose run it is."""
        user, permissions = configurable[USER], tuple(configurable[PERMISSIONS])
        return Caller(configurable[USER_ID], permissions, user, self._rooms.policy)

    def _config(self) -> dict[str, Any]:
        stored = self.claim.kwargs["config"]
        configurable = {
            key: value for key, value in stored["configurable"].items() if not key.startswith("__")
        }
        configurable[USER] = user_in(stored["configurable"])
        callbacks = [*self.callbacks, *langsmith_callbacks(self.claim.kwargs)]
        return {
            **stored,
            **({"callbacks": callbacks} if callbacks else {}),
            "run_id": UUID(self.claim.run_id),
            "configurable": configurable,
            "metadata": {
                **stored["metadata"],
                **attempt_metadata(self.claim.tries, self._rooms.url),
                "run_id": self.claim.run_id,
                "thread_id": self.claim.thread_id,
                "graph_id": self.claim.graph_id,
            },
        }

    async def _own_checkpoint(self) -> CheckpointTuple | None:
        """The thread's latest checkpoint, if an earlier attempt of this run has made it."""
        if self.claim.attempt == 1 or self._saver is None:
            return None
        latest = {"configurable": {"thread_id": self.claim.thread_id, "checkpoint_ns": ""}}
        last = await self._saver.aget_tuple(cast("Any", latest))
        own = last is not None and last.metadata.get("run_id") == self.claim.run_id
        return last if own else None

    async def _is_at_breakpoint(self, graph: Graph, last: CheckpointTuple) -> bool:
        """Whether an earlier attempt had stopped there for good (interrupt_before or _after).

        langgraph would take the next attempt, which has no input, as leave to go on.
        """
        checkpoint = last.checkpoint
        passed: Any = checkpoint["versions_seen"].get(INTERRUPT, {})
        if all(v <= passed.get(c, "") for c, v in checkpoint["channel_versions"].items()):
            return False
        for field, config in (
            ("interrupt_before", last.config),
            ("interrupt_after", last.parent_config),
        ):
            if (names := self.claim.kwargs[field]) and config is not None:
                tasks = (await graph.aget_state(config)).tasks
                if any(_stops_at(task.name, names) for task in tasks):
                    return True
        return False

    async def _input(
        self, graph: Graph, config: dict[str, Any], last: CheckpointTuple | None
    ) -> Any:
        """What the graph starts from; nothing if an earlier attempt left a checkpoint."""
        if last is not None:
            for key in CHECKPOINT_KEYS:
                config["configurable"].pop(key, None)
            return None
        command: dict[str, Any] | None = self.claim.kwargs["command"]
        if not command and await self._answers():
            command = {"resume": self.claim.kwargs["input"]}
        if not command:
            return self.claim.kwargs["input"]
        if self._saver is None:
            return graph_command(command)
        return await self._command_input(graph, config, command)

    async def _answers(self) -> bool:
        """Whether the input is the answer to what the runs before this one have asked."""
        configurable = self.claim.kwargs["config"]["configurable"]
        return MAY_ANSWER in configurable and bool(await self._asked_before())

    async def _asked_before(self) -> set[str]:
        """The ids of the questions that the runs before this one have left open."""
        row = await self._rooms.database.read_one(
            queries.THREAD_OUTCOME, {"thread_id": self.claim.thread_id}
        )
        if row is None or row["interrupts"] is None:
            return set()
        asked: dict[str, list[dict[str, Any]]] = loads(row["interrupts"])
        return {interrupt["id"] for found in asked.values() for interrupt in found}

    async def _command_input(self, graph: Graph, config: dict[str, Any], command: Any) -> Any:
        """The command as langgraph takes it, without what an earlier attempt has done of it."""
        assert self._saver is not None
        wanted = CommandInput(
            graph,
            self._saver,
            config,
            run_id=self.claim.run_id,
            strict=bool(self.claim.kwargs.get("strict_resume")),
            at_exit=self.claim.kwargs["durability"] == "exit",
            asked=None if self.claim.attempt == 1 else await self._asked_before(),
        )
        try:
            return await wanted.of(command)
        except (InvalidUpdateError, UnknownInterruptError):
            self.untouched = True
            raise

    async def _guard(self, transaction: Transaction) -> None:
        owned = {"run_id": self.claim.run_id, "attempt": self.claim.attempt}
        if await transaction.fetch_one(queries.OWNED, owned) is None:
            raise RunMoved(f"run {self.claim.run_id} is no longer attempt {self.claim.attempt}")

    # -- what it leaves --------------------------------------------------------------------

    async def _summarize(self, graph: Graph) -> Summary | None:
        """Status, values and interrupts of the thread, from what this run checkpointed."""
        if self.untouched:
            return None
        quick = self._quick_summary(graph)
        if quick is not None and isinstance(self._saver, RunSaver) and self._saver.is_updated:
            quick = quick._replace(values=await self._updated_values(graph, self._saver))
        if quick is not None and (self.stopped is not None or not (self.failure or self._paused)):
            return quick
        latest = {"configurable": {"thread_id": self.claim.thread_id, "checkpoint_ns": ""}}
        summary = summary_of(await graph.aget_state(cast("Any", latest)))
        if isinstance(self._saver, RunSaver):  # the snapshot lacks what a goto's tasks ask
            waiting = interrupts_json(self._saver.interrupts.items())
            summary = summary._replace(interrupts=dump_text(waiting))
        return summary if quick is None else summary._replace(values=quick.values)

    async def _updated_values(self, graph: Graph, saver: RunSaver) -> str:
        """The values of the latest checkpoint, with what commands have written to it."""
        assert saver.last_checkpoint_id is not None
        updated = make_config(saver.thread_id, "", saver.last_checkpoint_id)
        return dump_text((await graph.aget_state(updated)).values)

    def _quick_summary(self, graph: Graph) -> Summary | None:
        """The summary of a thread on which nothing waits, without a read; None if it takes one."""
        saver = self._saver
        if saver is None or saver.last_checkpoint is None or saver.needs_replay:
            return None
        values = dump_text(thread_values(graph, saver.channel_values))
        return Summary("idle" if self.stopped is None else "interrupted", values, NO_INTERRUPTS)


def _stops_at(node: str, names: list[str] | str) -> bool:
    """Whether a list of breakpoints has a node; "*" is every node that is the graph's own."""
    return not node.startswith("__") if names == "*" else node in names
