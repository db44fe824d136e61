"""Servers that die where a test says, forked from one process that has imported everything.

A fault is ``{"call": "module:Class.function", "nth": 1, "when": "before", "having": "",
"signal_name": "SIGKILL"}``: at the nth call of that function (that has the text ``having`` in an
argument) the process sends itself the signal. ``when`` is

    before      instead of the call
    after       once it has returned (what it wrote in a transaction is not committed yet)
    committed   at the end of the transaction in which, or after which, it was called

The server knows nothing of this: functions are replaced in the forked process alone.

Protocol: a line of JSON on stdin is a command, a line of JSON on stdout its answer.
``start`` forks a server with ``argv``, ``env``, ``cwd``, ``log``, ``faults`` and ``set`` (module
constants to replace); ``poll`` gives the exit status of one, or null. All end with stdin.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import signal
import sys
from typing import Any

PRELOADED = (
    "treadle.server",
    "treadle.serving",
    "treadle.cli.dev",
    "treadle.cli.serving",
    "langgraph.graph.message",
    "langgraph.pregel.main",
    "langgraph.checkpoint.serde.jsonplus",
    "httpx",
    "uvloop",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.lifespan.on",
)


def locate(path: str) -> tuple[Any, str]:
    """The owner and the name of ``module:Class.attribute``."""
    module, _, names = path.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = names.split(".")
    for part in outer:
        owner = getattr(owner, part)
    return owner, name


class Fault:
    """The replacement of one function, which strikes once."""

    def __init__(
        self,
        call: str,
        nth: int = 1,
        when: str = "before",
        having: str = "",
        signal_name: str = "SIGKILL",
    ) -> None:
        self._left, self._when, self._having = nth, when, having
        self._signal = signal.Signals[signal_name]
        self._armed = False
        owner, name = locate(call)
        original = getattr(owner, name)
        wrap = self._async if inspect.iscoroutinefunction(original) else self._sync
        setattr(owner, name, wrap(original))
        if when == "committed":
            self._watch_commits()

    def _strike(self) -> None:
        os.kill(os.getpid(), self._signal)

    def _called(self, args: tuple[Any, ...]) -> bool:
        """Note a call; whether it strikes once the call has returned."""
        if not self._having or any(self._having in a for a in args if isinstance(a, str)):
            self._left -= 1
            if self._left == 0 and self._when == "before":
                self._strike()
            return self._left == 0
        return False

    def _returned(self) -> None:
        if self._when == "after":
            self._strike()
        elif self._when == "committed":
            self._armed = True

    def _async(self, original: Any) -> Any:
        @functools.wraps(original)
        async def call(*args: Any, **kwargs: Any) -> Any:
            due = self._called(args)
            result = await original(*args, **kwargs)
            if due:
                self._returned()
            return result

        return call

    def _sync(self, original: Any) -> Any:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            due = self._called(args)
            result = original(*args, **kwargs)
            if due:
                self._returned()
            return result

        return call

    def _watch_commits(self) -> None:
        from treadle.database.sqlite import SQLiteDatabase

        original = SQLiteDatabase._run

        def run(database: Any, jobs: Any) -> None:
            original(database, jobs)
            if self._armed:
                self._armed = False
                self._strike()

        SQLiteDatabase._run = run  # type: ignore[method-assign]


def serve(command: dict[str, Any]) -> None:
    """Become a server; never returns."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(command["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.chdir(command["cwd"])
    os.environ.update(command["env"])
    for path, value in command["set"].items():
        owner, name = locate(path)
        setattr(owner, name, value)
    for fault in command["faults"]:
        Fault(**fault)
    from treadle.cli import main

    sys.argv = ["treadle", *command["argv"]]
    main()


def main() -> None:
    for module in PRELOADED:
        importlib.import_module(module)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    children: dict[int, int | None] = {}

    def answer(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")

    answer("ready")
    for line in iter(sys.stdin.readline, ""):
        command = json.loads(line)
        if command["do"] == "start":
            pid = os.fork()
            if pid == 0:
                answers.close()
                try:
                    serve(command)
                except SystemExit as end:
                    sys.stderr.flush()
                    # As an interpreter does it: what is still at work in threads is waited for.
                    import threading

                    threading._shutdown()  # type: ignore[attr-defined]
                    os._exit(end.code if isinstance(end.code, int) else int(bool(end.code)))
                except BaseException:
                    import traceback

                    traceback.print_exc()
                    os._exit(70)
                os._exit(0)
            children[pid] = None
            answer(pid)
        else:
            pid = command["pid"]
            if children[pid] is None:
                found, status = os.waitpid(pid, os.WNOHANG)
                children[pid] = os.waitstatus_to_exitcode(status) if found else None
            answer(children[pid])
    for pid, code in children.items():
        if code is None:
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
