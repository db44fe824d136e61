"""What the thread endpoints take: wire structs. What is absent has its default; null is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Strategy = Literal["delete", "keep_latest"]
Status = Literal["idle", "busy", "interrupted", "error"]
Json = dict[str, Any]

LONGEST_TTL_MINUTES = 525_960_000  # a thousand years
LARGEST_OFFSET = 2**53
MOST_FILTER_ENTRIES = 500  # each becomes a condition; SQLite takes 1000 in one statement

Filter = Annotated[Json, Meta(max_length=MOST_FILTER_ENTRIES)]


class Ttl(Struct, frozen=True):
    """How long threads live, and what happens to them then: the server's default."""

    minutes: float
    strategy: Strategy = "delete"


class TtlRequest(Struct):
    """How long a thread lives. Without ``ttl``, as long as the server's default says."""

    ttl: Annotated[float, Meta(gt=0, le=LONGEST_TTL_MINUTES)] | UnsetType = UNSET
    strategy: Strategy = "delete"


class SendRequest(Struct):
    """A node to go to, with an input of its own."""

    node: str
    input: Any = None


class SuperstepCommand(Struct):
    """What a node's ``Command`` does: update the state, and say where to go."""

    update: Any = None
    resume: Any = None
    goto: str | SendRequest | list[str | SendRequest] = []


class SuperstepUpdate(Struct):
    """One node's part of a superstep."""

    as_node: str
    values: Json | list[Any] | None = None
    command: SuperstepCommand | None = None


class Superstep(Struct):
    """Updates that happen together and make one checkpoint."""

    updates: list[SuperstepUpdate]


class ThreadCreate(Struct):
    thread_id: str = ""
    metadata: Json = {}
    if_exists: Literal["raise", "do_nothing"] = "raise"
    ttl: TtlRequest | UnsetType = UNSET
    supersteps: list[Superstep] = []


class ThreadPatch(Struct):
    metadata: Json = {}
    ttl: TtlRequest | UnsetType = UNSET


class ThreadPrune(Struct):
    thread_ids: list[str]
    strategy: Strategy = "delete"


class ThreadCount(Struct):
    metadata: Filter = {}
    values: Filter = {}
    status: Status | UnsetType = UNSET


class ThreadSearch(Struct):
    ids: list[str] = []
    metadata: Filter = {}
    values: Filter = {}
    status: Status | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=1000)] = 10
    offset: Annotated[int, Meta(ge=0, le=LARGEST_OFFSET)] = 0
    sort_by: (
        Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"] | UnsetType
    ) = UNSET
    sort_order: Literal["asc", "desc"] = "desc"
    select: list[
        Literal[
            "thread_id",
            "created_at",
            "updated_at",
            "state_updated_at",
            "metadata",
            "config",
            "status",
            "values",
            "interrupts",
        ]
    ] = []
    extract: Annotated[dict[str, str], Meta(max_length=10)] = {}


class StateUpdate(Struct):
    values: Json | list[Any] | None = None
    as_node: str | UnsetType = UNSET
    checkpoint: Json = {}
    checkpoint_id: str = ""


class StateAtCheckpoint(Struct):
    checkpoint: Json
    subgraphs: bool = False
    select: list[str] = []


class History(Struct):
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1
    before: str | Json = ""
    metadata: Json = {}
    checkpoint: Json = {}
    select: list[str] = []


# Query parameters ---------------------------------------------------------------------------------


class ThreadQuery(Struct):
    include: list[str] = []


class StateQuery(Struct):
    """``subgraphs`` is true or not: what is neither counts as not."""

    subgraphs: str = ""
    select: list[str] = []


class HistoryQuery(Struct):
    limit: int = 10
    before: str = ""
    select: list[str] = []


# Answers, for the OpenAPI document ----------------------------------------------------------------


class Interrupt(Struct):
    id: str
    value: Any


class ThreadError(Struct):
    error: str
    message: str


class TtlInfo(Struct):
    strategy: Strategy
    ttl_minutes: float
    expires_at: str


class Thread(Struct):
    thread_id: str
    created_at: str
    updated_at: str
    state_updated_at: str
    metadata: Json
    config: Json
    status: Status
    values: Any
    interrupts: dict[str, list[Interrupt]] | UnsetType = UNSET
    error: ThreadError | UnsetType | None = UNSET
    ttl: TtlInfo | UnsetType = UNSET
    extracted: Json | UnsetType = UNSET


class PruneAnswer(Struct):
    pruned_count: int


class Checkpoint(Struct):
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str | UnsetType = UNSET
    checkpoint_map: Json | UnsetType = UNSET


class StateTask(Struct):
    id: str
    name: str
    path: list[Any]
    error: str | None
    interrupts: list[Interrupt]
    checkpoint: Checkpoint | None
    state: Json | None
    result: Any


class State(Struct):
    values: Any
    next: list[str]
    tasks: list[StateTask]
    metadata: Json | None
    created_at: str | None
    checkpoint: Checkpoint | None
    parent_checkpoint: Checkpoint | None
    interrupts: list[Interrupt]
    checkpoint_id: str | None
    parent_checkpoint_id: str | None


class StateUpdateAnswer(Struct):
    checkpoint: Checkpoint
    configurable: Checkpoint
    checkpoint_id: str


class StorageSection(Struct):
    count: int
    bytes: int


class ChannelSize(Struct):
    versions: int
    bytes: int


class ChannelValuesSection(Struct):
    count: int
    bytes: int
    by_channel: dict[str, ChannelSize]


class Storage(Struct):
    thread_id: str
    total_bytes: int
    checkpoints: StorageSection
    channel_values: ChannelValuesSection
    pending_writes: StorageSection
