"""What the chaos tests stand on: servers that can be killed, their journals, their databases."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from live_server import PATIENCE_SECONDS, START_SECONDS, LiveServer, until

HERE = Path(__file__).parent
SHORT_SECONDS, LONG_SECONDS = 8.0, 60.0
CHAOS_SECONDS = float(os.environ.get("CHAOS_SECONDS") or SHORT_SECONDS)
"""How long the history checker goes on."""
LONG = CHAOS_SECONDS >= LONG_SECONDS
"""Whether there is time for everything; if not, a sample has to do."""


# -- processes ---------------------------------------------------------------------------------


class Foundry:
    """One process that has imported the server; each server is a fork of it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "faulty_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LANGSMITH_TRACING": "false"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._commands, self._answers = self._process.stdin, self._process.stdout
        assert json.loads(self._answers.readline()) == "ready"

    def ask(self, **command: Any) -> Any:
        self._commands.write(json.dumps(command) + "\n")
        self._commands.flush()
        return json.loads(self._answers.readline())

    def close(self) -> None:
        self._commands.close()
        self._process.wait(10)
        self._answers.close()


class Server(LiveServer):
    """A server in its own process, on a port that it keeps over restarts."""

    def __init__(self, foundry: Foundry, folder: Path, **env: str) -> None:
        self._foundry, self.folder = foundry, folder
        self.database_path = folder / "treadle.db"
        self.journal = Journal(folder / "journal")
        self.log_path = folder / "server.log"
        self.env = {
            "CHAOS_JOURNAL": str(self.journal.folder),
            "RESUMABLE_STREAM_TTL_SECONDS": "100000",
            "LOG_LEVEL": "WARNING",
            **env,
        }
        self.pid = 0
        super().__init__()

    def start(
        self, *faults: dict[str, Any], set: dict[str, Any] | None = None, ready: bool = True
    ) -> None:
        """Fork a server, with ``faults`` and module constants ``set``; see ``faulty_server``."""
        argv = ["dev", "--no-reload", "--no-browser", "--port", str(self.port)]
        argv += ["--config", str(HERE / "langgraph.json"), "--db", str(self.database_path)]
        self.pid = self._foundry.ask(
            do="start",
            argv=argv,
            env=self.env,
            cwd=str(self.folder),
            log=str(self.log_path),
            faults=list(faults),
            set=set or {},
        )
        if ready:
            until(lambda: self.answers() or self.exit_code is not None, "a start", START_SECONDS)
            assert self.exit_code is None, f"the server ended with {self.exit_code}:\n{self.log}"

    @property
    def exit_code(self) -> int | None:
        """None while it lives; negative for a signal."""
        return self._foundry.ask(do="poll", pid=self.pid)

    def signal(self, sig: signal.Signals) -> None:
        os.kill(self.pid, sig)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end; its exit code."""
        until(lambda: self.exit_code is not None, "the server to end", seconds)
        self.connect_anew()
        code = self.exit_code
        assert code is not None
        self.journal.died(self.pid)
        return code

    def kill(self) -> None:
        """SIGKILL, if it is not dead already."""
        if self.exit_code is None:
            self.signal(signal.SIGKILL)
        self.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def close(self) -> None:
        if self.pid and self.exit_code is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
            self.wait()
        self.http.close()

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def database(self) -> Books:
        return Books(self.database_path)


class Listener:
    """A client that reads one stream to its end; ``whole`` if the end was a clean one."""

    def __init__(self, server: Server, path: str, last_id: str = "-") -> None:
        self.body, self.is_open, self.whole = b"", False, False
        self._url, self._headers = server.url + path, {"last-event-id": last_id}
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        with httpx.stream("GET", self._url, headers=self._headers, timeout=30) as answer:
            self.is_open = True
            for piece in answer.iter_raw():
                self.body += piece
        self.whole = True

    def end(self) -> bytes:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.body


# -- the journal -------------------------------------------------------------------------------


class Visit(NamedTuple):
    """One execution of a node. ``end`` is the death of its process if the node did not end."""

    node: str
    thread: str
    run: str
    pid: int
    attempt: int
    start: int
    end: int
    done: bool


class Journal:
    """What nodes have written, of all processes that had this folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._deaths: dict[int, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def died(self, pid: int) -> None:
        self._deaths.setdefault(pid, time.monotonic_ns())

    def visits(self) -> list[Visit]:
        """All executions of nodes, in the order of their beginning."""
        found: list[Visit] = []
        for path in self.folder.glob("*.jsonl"):
            open_visits: dict[tuple[str, str], list[dict[str, Any]]] = {}
            for text in path.read_text().splitlines():
                line = json.loads(text)
                key = line["run"], line["node"]
                if line["what"] == "enter":
                    open_visits.setdefault(key, []).append(line)
                else:
                    found.append(_visit(open_visits[key].pop(), line["at"], line["done"]))
            death = self._deaths.get(int(path.stem), 2**62)
            found += [
                _visit(line, death, False) for lines in open_visits.values() for line in lines
            ]
        return sorted(found, key=lambda visit: visit.start)

    def nodes(self, run_id: str, done: bool | None = None) -> list[str]:
        """The nodes of a run, in the order in which they began."""
        return [
            visit.node
            for visit in self.visits()
            if visit.run == run_id and (done is None or visit.done == done)
        ]


def _visit(line: dict[str, Any], end: int, done: bool) -> Visit:
    return Visit(
        line["node"],
        line["thread"],
        line["run"],
        line["pid"],
        line["attempt"],
        line["at"],
        end,
        done,
    )


def overlaps(visits: Sequence[Visit], side_by_side: frozenset[str] = frozenset()) -> list[str]:
    """Pairs of executions on one thread that went on at one time.

    ``side_by_side`` are nodes that one run may execute beside each other.
    """
    found: list[str] = []
    threads: dict[str, list[Visit]] = {}
    for visit in visits:
        for other in threads.setdefault(visit.thread, []):
            parallel = other.run == visit.run and {other.node, visit.node} <= side_by_side
            if other.end > visit.start and not (parallel and other.pid == visit.pid):
                found.append(f"{other}\n  beside {visit}")
        threads[visit.thread].append(visit)
    return found


# -- the database ------------------------------------------------------------------------------

THERE = """
WITH there AS (SELECT thread_id FROM threads UNION SELECT thread_id FROM deleted_threads)
"""

# Of a run that was deleted or rolled back in flight: that it has ended. Who watched it and was
# away at that time finds it here, and would else wait for ever.
LAST_WORD = "kind = 'protocol' AND name = 'lifecycle'"

ORPHANS = {
    "run without a thread": "SELECT run_id FROM runs WHERE thread_id NOT IN there",
    "event without a thread": (
        "SELECT thread_id, run_id, kind, name FROM events WHERE thread_id NOT IN there"
    ),
    "event without a run": (
        "SELECT thread_id, run_id, kind, name FROM events"
        f" WHERE run_id NOT IN (SELECT run_id FROM runs) AND NOT ({LAST_WORD})"
    ),
    "more than one last word of a run that is no more": (
        "SELECT thread_id, run_id FROM events WHERE run_id NOT IN (SELECT run_id FROM runs)"
        " GROUP BY run_id HAVING count(*) > 1"
    ),
    "checkpoint without a thread": (
        "SELECT thread_id, checkpoint_id FROM checkpoints WHERE thread_id NOT IN there"
    ),
    "checkpoint without its run": (
        "SELECT thread_id, checkpoint_id, run_id FROM checkpoints"
        " WHERE run_id IS NOT NULL AND run_id NOT IN (SELECT run_id FROM runs)"
    ),
    "value without a thread": (
        "SELECT thread_id, channel FROM checkpoint_values WHERE thread_id NOT IN there"
    ),
    "write without its checkpoint": (
        "SELECT w.thread_id, w.checkpoint_id, w.channel FROM checkpoint_writes AS w"
        " LEFT JOIN checkpoints AS c USING (thread_id, checkpoint_ns, checkpoint_id)"
        # A crash may keep a task's writes and lose the checkpoint that they belong to; the next
        # attempt makes that anew, and they go with their run.
        " WHERE c.thread_id IS NULL AND (w.run_id IS NULL OR w.run_id NOT IN"
        " (SELECT run_id FROM runs))"
    ),
    "label without a thread": (
        "SELECT label FROM thread_labels WHERE thread_seq NOT IN (SELECT seq FROM threads)"
    ),
}

UNSETTLED = """
SELECT threads.thread_id, threads.status, count(runs.run_id) AS in_flight
FROM threads LEFT JOIN runs ON runs.thread_id = threads.thread_id
    AND runs.status IN ('pending', 'running')
GROUP BY threads.thread_id HAVING (threads.status = 'busy') <> (count(runs.run_id) > 0)
"""

TWO_RUNNING = """
SELECT thread_id FROM runs WHERE status = 'running' GROUP BY thread_id HAVING count(*) > 1
"""


LATEST_CHECKPOINT = """
SELECT checkpoint_id, metadata FROM checkpoints WHERE run_id = :run_id AND checkpoint_ns = ''
ORDER BY checkpoint_id DESC LIMIT 1
"""

WRITERS = """
SELECT DISTINCT task_path FROM checkpoint_writes
WHERE checkpoint_id = :checkpoint_id AND channel NOT LIKE '\\_\\_%' ESCAPE '\\'
"""


class Books:
    """A server's database, read from outside: what is committed, at one moment each time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA query_only = 1")
            connection.execute("BEGIN")
            yield connection

    def rows(self, sql: str, **params: Any) -> list[dict[str, Any]]:
        with self._open() as connection:
            return [dict(row) for row in connection.execute(sql, params)]

    def one(self, sql: str, **params: Any) -> dict[str, Any]:
        (row,) = self.rows(sql, **params)
        return row

    def faults(self, *, at_rest: bool = True) -> list[str]:
        """What must not be, ever; and, ``at_rest``, what only may be while things go on."""
        with self._open() as connection:
            found = [
                f"thread {row['thread_id']} is {row['status']}, {row['in_flight']} runs in flight"
                for row in connection.execute(UNSETTLED)
            ]
            found += [f"two runs on {row[0]}" for row in connection.execute(TWO_RUNNING)]
            if at_rest:
                for what, sql in ORPHANS.items():
                    rows = connection.execute(THERE + sql)
                    found += [f"{what}: {tuple(row)}" for row in rows]
        return found

    def texts(self) -> Iterator[tuple[str, bytes]]:
        """All values but a run's last word, each with the column that it is in."""
        with self._open() as connection:
            tables = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
            ).fetchall()
            for (table,) in tables:
                where = f" WHERE NOT ({LAST_WORD})" if table == "events" else ""
                for row in connection.execute(f"SELECT * FROM {table}{where}"):
                    for column in row.keys():  # noqa: SIM118 - a row is no dict
                        if isinstance(value := row[column], str | bytes):
                            text = value if isinstance(value, bytes) else value.encode()
                            yield f"{table}.{column}", text

    def traces(self, *needles: str) -> list[str]:
        """The columns in which one of ``needles`` occurs, but for a run's last word."""
        counts = Counter(
            (needle, place)
            for place, text in self.texts()
            for needle in needles
            if needle.encode() in text
        )
        return [f"{needle} in {count} {place}" for (needle, place), count in counts.items()]

    def done_nodes(self, run_id: str, layers: Sequence[set[str]]) -> set[str]:
        """The nodes of a thread's first run whose results are durable.

        ``layers`` are the nodes of each superstep. Those up to the run's latest checkpoint are
        done, and those of its tasks that have written to that one.
        """
        latest = self.rows(LATEST_CHECKPOINT, run_id=run_id)
        if not latest:
            return set()
        writes = self.rows(WRITERS, checkpoint_id=latest[0]["checkpoint_id"])
        done = set().union(*layers[: max(0, json.loads(latest[0]["metadata"])["step"])])
        written = {row["task_path"].rpartition(" ")[2] for row in writes}
        return done | {node for layer in layers for node in layer if node in written}


@dataclass
class Event:
    """One server-sent event."""

    id: str
    name: str
    data: Any


def parse_events(text: bytes) -> list[Event]:
    """The complete events of a stream; what a blank line has not ended is not there yet."""
    found: list[Event] = []
    blocks = text.split(b"\r\n\r\n")[:-1]
    for block in blocks:
        fields = dict(
            line.split(b": ", 1) for line in block.split(b"\r\n") if not line.startswith(b":")
        )
        if fields:
            found.append(
                Event(
                    fields.get(b"id", b"").decode(),
                    fields[b"event"].decode(),
                    json.loads(fields[b"data"]),
                )
            )
    return found
