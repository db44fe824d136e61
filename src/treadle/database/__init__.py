"""The one door to the database, which SQLite and PostgreSQL implement.

SQL is written once, with named parameters (``:thread_id``), in the portable part that both
engines share: UPSERT, RETURNING, common table expressions. What differs comes from
``Database.dialect``, and ``/*postgres FOR UPDATE*/`` is a comment for SQLite alone: PostgreSQL,
where transactions of several processes run beside each other, takes locks. Types: ids are
canonical UUID text, times are whole microseconds, JSON columns are read and written as JSON text,
and rows answer to ``row["column"]``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from treadle.figures import Figure

T = TypeVar("T")
Row = Mapping[str, Any]
Params = Mapping[str, Any]
NO_PARAMS: Params = {}


def connection_figures(waiting_writes: int, waiting_reads: int, **states: int) -> list[Figure]:
    """The figures of a database: ``states`` counts connections, by what they are."""
    waiting = {"write": waiting_writes, "read": waiting_reads}
    return [
        *(
            Figure(
                "treadle_database_connections",
                "gauge",
                "Connections to the database (this process)",
                count,
                {"state": state},
            )
            for state, count in states.items()
        ),
        *(
            Figure(
                "treadle_database_waiting",
                "gauge",
                "Writes that wait for the next transaction, reads for a connection (this process)",
                count,
                {"for": purpose},
            )
            for purpose, count in waiting.items()
        ),
    ]


class Transaction(Protocol):
    """What a transaction's body may do. Its changes are seen by what it reads next."""

    async def execute(self, sql: str, params: Params = NO_PARAMS) -> int:
        """Run one statement; how many rows it changed."""
        ...

    async def send(self, sql: str, params: Params = NO_PARAMS) -> None:
        """Run one statement without waiting for it; if it fails, so does the commit."""
        ...

    async def execute_many(self, sql: str, rows: Iterable[Params]) -> None:
        """Run one statement for each of ``rows``, without waiting for them."""
        ...

    async def fetch_one(self, sql: str, params: Params = NO_PARAMS) -> Row | None:
        """The first row of a query, or of a statement with RETURNING."""
        ...

    async def fetch_all(self, sql: str, params: Params = NO_PARAMS) -> Sequence[Row]:
        """All rows of a query, or of a statement with RETURNING."""
        ...

    def announce(self, text: str, to: str | None = None) -> None:
        """Let the processes that listen hear ``text`` once this is committed, or one of them.

        The same is told once in a commit. With SQLite there is nobody to hear it.
        """
        ...


Body = Callable[[Transaction], Awaitable[T]]


class Dialect(Protocol):
    """The fragments of SQL in which engines differ."""

    def json_contains(
        self, column: str, value: Any, prefix: str, *, leads: bool = True
    ) -> tuple[str, dict[str, Any]]:
        """A condition: the JSON of ``column`` contains ``value``, as JSONB's ``@>`` has it.

        Objects match by containment, arrays when every given element occurs, scalars by
        equality and type. ``column`` is a table (or alias) and column, ``threads.metadata``.
        Parameters of the condition are named with ``prefix``. If it ``leads``, an index may find
        the rows; without, it is quick for a row that is found by something else.
        """
        ...

    def json_equals(
        self, column: str, key: str, value: Any, prefix: str, *, leads: bool
    ) -> tuple[str, dict[str, Any]]:
        """A condition: the object in ``column`` has ``key``, and what it has there is ``value``.

        Numbers are equal by value, arrays element by element, objects key by key.
        """
        ...

    def json_has(
        self, column: str, key: str, values: Sequence[Any], prefix: str
    ) -> tuple[str, dict[str, Any]]:
        """A condition: the object in ``column`` has an array at ``key``, with all of ``values``."""
        ...

    def any_of(self, column: str, values: Sequence[Any], prefix: str) -> tuple[str, dict[str, Any]]:
        """A condition: ``column`` equals one of ``values``."""
        ...

    def vector(self, floats: Sequence[float]) -> Any:
        """A vector of length one as a parameter."""
        ...

    def vector_distance(self, column: str, name: str) -> str:
        """An expression: the cosine distance of the vector in ``column`` and parameter ``name``."""
        ...


class Listener(Protocol):
    """An ear for what other processes announce."""

    async def close(self) -> None: ...


class Database(Protocol):
    """A database: reads see what was committed, writes are whole and in order."""

    @property
    def dialect(self) -> Dialect: ...

    @property
    def channel(self) -> str:
        """The name under which this database's processes hear each other."""
        ...

    async def open(self) -> None:
        """Connect and bring the schema up to date. Raises ``StartupError`` if it can't."""
        ...

    async def close(self) -> None:
        """Commit what is waiting, then let go of the database."""
        ...

    async def prepare_vectors(self) -> None:
        """Make vectors usable: the table ``store_vectors`` and the dialect's distance.

        Called once, after ``open``, if vectors are needed. Raises ``StartupError`` if this
        database can't have them.
        """
        ...

    async def read_one(self, sql: str, params: Params = NO_PARAMS) -> Row | None:
        """The first row of a query that an index answers."""
        ...

    async def read_all(self, sql: str, params: Params = NO_PARAMS) -> Sequence[Row]:
        """All rows of a query that an index answers, and that are few."""
        ...

    async def scan(self, sql: str, params: Params = NO_PARAMS) -> Sequence[Row]:
        """All rows of a query that may visit much; it never holds up the event loop."""
        ...

    async def write(self, body: Body[T], thread_id: str | None = None) -> T:
        """Run ``body`` in one transaction; when this returns, its changes are durable.

        Transactions of one process take effect in the order in which they were handed in. One
        that names a ``thread_id`` touches the rows of this thread and its runs alone; it may
        take effect together with those that name others.

        A body that raises changes nothing, and the exception comes out here. A body awaits
        nothing but its transaction, and may be run on another thread. It may be run again from
        its beginning (another process was in the way): then nothing of the first time counts.
        """
        ...

    def write_soon(
        self,
        body: Body[object],
        on_error: Callable[[Exception], None],
        on_commit: Callable[[], None] | None = None,
        thread_id: str | None = None,
    ) -> None:
        """Hand in a body that nobody waits for: committed within ``LINGER_SECONDS``.

        It takes its place in the order of all writes, and is committed with the next one that
        somebody waits for. ``on_error`` hears, on the event loop, of a body that raised,
        ``on_commit`` of one that is durable, in the order of the writes.
        """
        ...

    def hurry(self) -> None:
        """Let what was handed in be committed now; it does not linger."""
        ...

    def execute_outside(self, sql: str, params: Params = NO_PARAMS) -> int:
        """Run one statement from another thread, on a connection of that thread's own.

        It needs neither the event loop nor its turn: a heartbeat goes through while the loop is
        blocked. Returns how many rows were changed.
        """
        ...

    def figures(self) -> Sequence[Figure]:
        """What ``/metrics`` shows of this process's connections and waiting writes."""
        ...

    async def flush(self) -> None:
        """Return once everything handed in so far is durable."""
        ...

    async def listen(
        self, name: str, hear: Callable[[str], None], missed: Callable[[], None]
    ) -> Listener | None:
        """Hear, on the event loop, what processes announce to all, and to the one called ``name``.

        It is heard in the order of the commits, one's own too. ``missed`` is called when there
        may have been more than was heard. None if no other process can have this database.
        """
        ...
