"""Writes docs/settings.md from the code: ``make settings``."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from treadle.assistants.models import LONGEST_NAME_FILTER_CHARACTERS
from treadle.cli import COMMANDS
from treadle.http.protocol import MAX_HEAD_BYTES
from treadle.http.validation import MAX_DEPTH
from treadle.idempotency import LONGEST_KEY
from treadle.settings import VARIABLES, Settings
from treadle.streaming.log import READER_LIMIT_BYTES
from treadle.threads.models import MOST_FILTER_ENTRIES
from treadle.variables import ELSEWHERE, MEANINGLESS, NOT_IN_EFFECT

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"

HEAD = """# Settings

This page is written by `make settings` from the code. What langgraph.json holds is told in
[configuration](configuration.md).

A variable that is empty counts as not set. One whose value cannot be used stops the start, and the
message says what is allowed. Options of the command line (`--db`, `--n-jobs-per-worker`,
`--server-log-level`) win over variables, and variables over `env` in langgraph.json."""

LIMITS = f"""## Limits

What is beyond one of these is refused with a 4xx whose `detail` names the field, and changes
nothing.

| What | Limit | Answer |
|---|---|---|
| request body | `MAX_BODY_BYTES`, also without a length | 413 |
| request line, headers, trailers | {MAX_HEAD_BYTES} bytes | 431 |
| nesting of JSON | {MAX_DEPTH} levels | 400 |
| integers in JSON | 64 bits | 422 |
| `limit` of a search | 1 to 1000 | 422 |
| entries of a `metadata` or `values` filter of threads | {MOST_FILTER_ENTRIES} | 422 |
| `name` filter of assistants | {LONGEST_NAME_FILTER_CHARACTERS} characters | 422 |
| `extract` of a thread search | 10 entries | 422 |
| `after_seconds` | 100 years | 422 |
| `ttl` of a thread | more than 0, up to 1000 years, in minutes | 422 |
| `webhook` | 65536 characters | 422 |
| `Idempotency-Key` | {LONGEST_KEY} characters | 422 |
| what waits for a stream's reader, in memory | {READER_LIMIT_BYTES // 2**20} MiB | its connection \
is broken off; it may join again |

JSON is read strictly: no `NaN`, no lone surrogates, no byte order mark. NUL in a string or in a
query becomes U+FFFD. `5.0` counts as the integer 5. Unknown fields are ignored."""

UNITS = {"_secs": "s", "_bytes": "bytes", "_bytes_per_thread": "bytes"}


def page() -> str:
    """The whole page."""
    parts = [HEAD, *_variables(), *_commands(), LIMITS]
    return "\n\n".join(parts) + "\n"


def field_docs(struct: type) -> dict[str, str]:
    """What stands below each field of a struct, on one line."""
    [definition] = ast.parse(inspect.getsource(struct)).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for before, node in zip(definition.body, definition.body[1:], strict=False):
        match before, node:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = " ".join(text.split())
    return found


def _variables() -> Iterator[str]:
    docs = field_docs(Settings)
    names: dict[str, list[str]] = {}
    for variable, (field, _) in VARIABLES.items():
        names.setdefault(field, []).append(variable)
    yield "## Environment variables"
    yield "Where several stand in a row, the last one that is set counts."
    yield _table(
        ("Variable", "Default", "Unit", ""),
        (
            (_code(*variables), _default(field), _unit(field), docs[field])
            for field, variables in names.items()
        ),
    )
    yield "### Read elsewhere"
    yield _table(("Variable", ""), ((_code(name), text) for name, text in ELSEWHERE.items()))
    yield "All other `OTEL_*` variables are read by OpenTelemetry's SDK."
    yield "### Not in effect\n\nThe start warns of these, if they are set."
    yield _table(
        ("Variable", "What holds instead"),
        ((_code(name), text) for name, text in NOT_IN_EFFECT.items()),
    )
    yield "### Without a meaning here\n\nThese are accepted: what they ask for holds without them."
    yield _table(("Variable", "Why"), ((_code(name), text) for name, text in MEANINGLESS.items()))


def _commands() -> Iterator[str]:
    yield "## Command line"
    for name, explained in COMMANDS.items():
        command = getattr(importlib.import_module(f"treadle.cli.{name}"), name)
        yield f"### treadle {name}\n\n{explained}"
        if isinstance(command, click.Group):
            for sub in sorted(command.commands):
                yield f"**treadle {name} {sub}** {command.commands[sub].get_short_help_str(200)}"
                yield from _options(command.commands[sub])
        yield from _options(command)


def _options(command: click.Command) -> Iterator[str]:
    context = click.Context(command)
    records = [
        record
        for parameter in command.params
        if (record := parameter.get_help_record(context)) is not None
    ]
    if records:
        yield _table(("Option", ""), ((f"`{names}`", text) for names, text in records))


def _default(field: str) -> str:
    value: Any = Settings.__struct_defaults__[Settings.__struct_fields__.index(field)]
    if isinstance(value, tuple):
        value = ",".join(value)
    if value is None or value == "":
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _unit(field: str) -> str:
    return next((unit for suffix, unit in UNITS.items() if field.endswith(suffix)), "")


def _code(*names: str) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [_row(head)]
    lines.append("|" + "---|" * (lines[0].count("|") - 1))
    return "\n".join([*lines, *map(_row, rows)])


def _row(cells: Iterable[str]) -> str:
    texts = (re.sub(r"\s+", " ", cell.replace("``", "`").replace("|", "\\|")) for cell in cells)
    return "| " + " | ".join(texts) + " |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
