"""``langgraph.json``: read once, checked, frozen.

What is wrong stops the start with a ``StartupError`` that names the key. What is merely not
known, or not in effect yet, is kept in ``Config.unknown`` and ``Config.not_yet`` so that the
start can say so: nothing is dropped in silence.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec

from treadle.environ_parts import configs_in, parts_in
from treadle.errors import StartupError

T = TypeVar("T")

MINIMAL = '{"graphs": {"agent": "./agent.py:graph"}}'
OLDEST_PYTHON = (3, 11)
LONGEST_TTL_MINUTES = 525_960_000  # a thousand years

NOT_YET: dict[str, str] = {
    "checkpointer.serde": "the default serializer is used",
    "priority": "runs start in the order in which they came",
    "ui": "no UI components are served",
    "ui_config": "no UI components are served",
}
"""Keys that are known and that a later release puts into effect, with what happens till then."""

NO_MATTER = frozenset(
    {
        "$schema",
        "python_version",
        "node_version",
        "api_version",
        "base_image",
        "image_distro",
        "pip_config_file",
        "pip_installer",
        "source",
        "dockerfile_lines",
        "keep_pkg_tools",
        "internal_docker_tag",
        "_INTERNAL_docker_tag",
        "http.disable_ui",
    }
)
"""Keys that mean nothing to a server like this one: image building, and parts it doesn't have."""

IN_EFFECT = frozenset(
    {
        "graphs",
        "dependencies",
        "env",
        "webhooks",
        "disable_persistence",
        "http.app",
        "http.mount_prefix",
        "http.middleware_order",
        "http.enable_custom_route_auth",
        "http.cors.allow_origins",
        "http.cors.allow_origin_regex",
        "http.cors.allow_methods",
        "http.cors.allow_headers",
        "http.cors.allow_credentials",
        "http.cors.expose_headers",
        "http.cors.max_age",
        "http.configurable_headers",
        "http.logging_headers",
        "http.disable_assistants",
        "http.disable_threads",
        "http.disable_runs",
        "http.disable_store",
        "http.disable_mcp",
        "http.disable_a2a",
        "http.disable_meta",
        "http.disable_webhooks",
        "auth.path",
        "auth.disable_studio_auth",
        "auth.openapi",
        "auth.cache",
        "checkpointer.ttl.strategy",
        "checkpointer.ttl.default_ttl",
        "checkpointer.ttl.sweep_interval_minutes",
        "checkpointer.ttl.sweep_limit",
        "store.ttl.default_ttl",
        "store.ttl.refresh_on_read",
        "store.ttl.sweep_interval_minutes",
        "store.index.embed",
        "store.index.dims",
        "store.index.fields",
        "store.path",
        "checkpointer.path",
        "encryption.path",
    }
)

_SHAPES: dict[str, tuple[type, ...]] = {
    "graphs": (dict,),
    "dependencies": (list,),
    "env": (dict, str),
    "python_version": (str,),
    "auth": (dict,),
    "checkpointer": (dict,),
    "checkpointer.ttl": (dict,),
    "checkpointer.serde": (dict,),
    "checkpointer.path": (str,),
    "store": (dict,),
    "store.ttl": (dict,),
    "store.index": (dict,),
    "store.path": (str,),
    "webhooks": (dict,),
    "encryption": (dict,),
    "encryption.path": (str,),
    "http": (dict,),
    "http.app": (str,),
    "http.mount_prefix": (str,),
    "disable_persistence": (bool,),
}
_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}
_SECTIONS = (
    "auth",
    "http",
    "http.cors",
    "store",
    "store.ttl",
    "store.index",
    "checkpointer",
    "checkpointer.ttl",
    "encryption",
)
_GRAPH_KEYS = ("path", "description")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*\Z")


class GraphSpec(msgspec.Struct, frozen=True):
    """A graph as ``langgraph.json`` names it: ``./file.py:attribute`` or ``module:attribute``."""

    graph_id: str
    source: str
    description: str | None = None
    config: dict[str, Any] = {}
    """That of its default assistant; ``configurable`` is its context, too."""

    @property
    def location(self) -> str:
        """The file or the dotted module: what stands before the last colon."""
        return self.source.rpartition(":")[0]

    @property
    def attribute(self) -> str:
        return self.source.rpartition(":")[2]


Minutes = Annotated[float, msgspec.Meta(gt=0, le=LONGEST_TTL_MINUTES)]
SWEEP_INTERVAL_MINUTES = 5


class ThreadTtl(msgspec.Struct, frozen=True):
    """``checkpointer.ttl``: how long threads live that don't say so, and how they are swept."""

    strategy: Literal["delete", "keep_latest"] = "delete"
    default_ttl: Minutes | None = None
    sweep_interval_minutes: Minutes = SWEEP_INTERVAL_MINUTES
    sweep_limit: Annotated[int, msgspec.Meta(ge=1)] = 1000


class StoreTtl(msgspec.Struct, frozen=True):
    """``store.ttl``: how long items live that don't say so, and how they are swept."""

    default_ttl: Minutes | None = None
    refresh_on_read: bool = True
    sweep_interval_minutes: Minutes = SWEEP_INTERVAL_MINUTES


class StoreIndex(msgspec.Struct, frozen=True):
    """``store.index``: what embeds texts, how long its vectors are, which fields are texts."""

    embed: Annotated[str, msgspec.Meta(min_length=1)]
    dims: Annotated[int, msgspec.Meta(ge=1, le=16_000)]
    fields: list[str] | None = None


class Config(msgspec.Struct, frozen=True):
    """``langgraph.json``, checked. Paths inside it are relative to ``folder``."""

    path: Path
    folder: Path
    graphs: tuple[GraphSpec, ...]
    dependencies: tuple[str, ...] = (".",)
    env: dict[str, str] = {}
    checkpointer: dict[str, Any] | None = None
    store: dict[str, Any] | None = None
    thread_ttl: ThreadTtl = ThreadTtl()
    store_ttl: StoreTtl = StoreTtl()
    store_index: StoreIndex | None = None
    webhooks: dict[str, Any] | None = None
    http: dict[str, Any] | None = None
    auth: dict[str, Any] | None = None
    encryption: str | None = None
    """``encryption.path``."""
    others: dict[str, Any] = {}
    """Every other key, as it stands in the file."""
    not_yet: tuple[str, ...] = ()
    """The keys of the file that are not in effect yet; ``NOT_YET`` says what holds till then."""
    unknown: dict[str, str | None] = {}
    """The keys of the file that nobody knows, each with the known key it resembles."""

    @property
    def mount_prefix(self) -> str:
        """``http.mount_prefix``, or nothing."""
        return (self.http or {}).get("mount_prefix") or ""

    @property
    def keeps_nothing(self) -> bool:
        """``disable_persistence``: the database goes when the server ends."""
        return self.others.get("disable_persistence") is True

    @property
    def local_dependencies(self) -> tuple[Path, ...]:
        """The folders that the graphs import from: the config's own, then the dependencies'."""
        named = [self.folder / d for d in self.dependencies if d.startswith((".", "/"))]
        return tuple(dict.fromkeys([self.folder, *(path.resolve() for path in named)]))

    @property
    def warnings(self) -> tuple[str, ...]:
        """A line for each thing in the file that is not what its author hoped for."""
        name = self.path.name
        lines = [f'"{key}" is not yet in effect: {NOT_YET[key]}' for key in self.not_yet]
        for key, like in self.unknown.items():
            hint = f' - did you mean "{like}"?' if like else ""
            lines.append(f'"{key}" in {name} is not a known key{hint}')
        if "path" in (self.store or {}):
            lines += [
                f'"store.{key}" is not in effect: it is for Treadle\'s own store, and "store.path"'
                " names yours"
                for key in ("index", "ttl")
                if key in (self.store or {})
            ]
        lines += [
            f"the folder {path} in dependencies does not exist"
            for path in self.local_dependencies
            if not path.is_dir()
        ]
        return tuple(lines)

    def enter(self) -> None:
        """Make this process the project's: its variables set, its folders importable.

        What the environment already holds stays: ``env`` has the project's defaults, and
        whoever starts the server (a shell, a container) has the last word.
        """
        for name, value in self.env.items():
            os.environ.setdefault(name, value)
        for folder in reversed(self.local_dependencies):
            if (entry := str(folder)) in sys.path:
                sys.path.remove(entry)
            sys.path.insert(0, entry)


def load_config(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read and check the config at ``path``. Raises ``StartupError``; imports no graph.

    Parts of it that ``environ`` has win; where that names the graphs, there need be no file.
    """
    path = path.absolute()
    parts = parts_in(environ)
    data = {**({} if "graphs" in parts and not path.exists() else _read(path)), **parts}
    _check_shapes(path, data)
    _check_python(path, data.get("python_version"))
    _refuse_pickle(path, data)
    prefix = (data.get("http") or {}).get("mount_prefix")
    if prefix is not None:
        check_mount_prefix(prefix, f"http.mount_prefix in {path.name}")
    rest = dict(data)
    graphs = _graphs(path, rest.pop("graphs", None) or {}, environ)
    return Config(
        path=path,
        folder=path.parent,
        graphs=graphs,
        dependencies=_dependencies(path, rest.pop("dependencies", None)),
        env=_env(path, rest.pop("env", None)),
        checkpointer=rest.pop("checkpointer", None),
        store=rest.pop("store", None),
        thread_ttl=_ttl(path, data, "checkpointer", ThreadTtl),
        store_ttl=_ttl(path, data, "store", StoreTtl),
        store_index=_store_index(path, data),
        webhooks=rest.pop("webhooks", None),
        http=rest.pop("http", None),
        auth=rest.pop("auth", None),
        encryption=_encryption(path, rest.pop("encryption", None)),
        others=rest,
        not_yet=tuple(key for key in _keys(data) if key in NOT_YET),
        unknown=_unknown(data),
    )


def _refuse_pickle(path: Path, data: dict[str, Any]) -> None:
    """A state that is written by pickle would let whoever writes to the database run code."""
    serde = (data.get("checkpointer") or {}).get("serde") or {}
    if serde.get("pickle_fallback"):
        raise StartupError(
            f'"checkpointer.serde.pickle_fallback" in {path} is not supported: Treadle never'
            " writes or reads pickle. Keep in the state what JSON knows, messages, dataclasses or"
            " Pydantic models, and take the key out."
        )


def _encryption(path: Path, section: dict[str, Any] | None) -> str | None:
    """The ``encryption.path``: a section without one would be taken for encryption."""
    if section is not None and not section.get("path"):
        raise StartupError(
            f'"encryption" in {path} has no "path": it names an Encryption of your own,'
            ' "./encryption.py:encryption".'
        )
    return None if section is None else section["path"]


def check_mount_prefix(prefix: str, name: str) -> str:
    """``prefix`` if it is one: ``/api``, ``/api/v1``. ``name`` says where it was given."""
    if not re.fullmatch(r"(/[^/\s{}?#]+)+", prefix):
        raise StartupError(
            f'{name} is "{prefix}": it has to start with "/" and must not end with it, '
            'as in "/api/v1".'
        )
    return prefix


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise StartupError(
            f"There is no config file {path}.\n"
            "Name one with --config PATH, or make one; a minimal langgraph.json is\n"
            f"  {MINIMAL}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"The config file {path} cannot be read: {error}") from None
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        line = (text.splitlines() or [""])[min(error.lineno, len(text.splitlines()) or 1) - 1]
        raise StartupError(
            f"{path} is not valid JSON: {error.msg} at line {error.lineno}, "
            f"column {error.colno}:\n  {line}\n  {' ' * (error.colno - 1)}^"
        ) from None
    if not isinstance(data, dict):
        raise StartupError(f"{path} has to hold a JSON object, as in\n  {MINIMAL}")
    return cast("dict[str, Any]", data)


def _check_shapes(path: Path, data: dict[str, Any]) -> None:
    for key, kinds in _SHAPES.items():
        section, _, name = key.rpartition(".")
        holder = data.get(section) or {} if section else data
        if (value := holder.get(name)) is not None and not isinstance(value, kinds):
            _wrong(path, key, value, " or ".join(_NAMES[kind] for kind in kinds))


_MINUTES = f"a number of minutes, above 0 and at most {LONGEST_TTL_MINUTES}"
_TTL_FIELDS = {
    "strategy": '"delete" or "keep_latest"',
    "default_ttl": _MINUTES,
    "refresh_on_read": "true or false",
    "sweep_interval_minutes": _MINUTES,
    "sweep_limit": "a whole number, 1 or more",
}


def _ttl(path: Path, data: dict[str, Any], section: str, kind: type[T]) -> T:
    """The ``ttl`` of a section; null stands for what is not given."""
    given = (data.get(section) or {}).get("ttl") or {}
    fields = {name: value for name, value in given.items() if value is not None}
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        name = str(error).partition(" - at `$.")[2].rstrip("`")
        raise StartupError(
            f'"{section}.ttl.{name}" in {path} is {json.dumps(fields[name])}: it has to be '
            f"{_TTL_FIELDS[name]}."
        ) from None


_INDEX_FIELDS = {
    "embed": 'a function ("./file.py:function") or a model ("provider:model")',
    "dims": "a whole number from 1 to 16000: the length of the function's vectors",
    "fields": 'an array of paths, such as ["$"] or ["text"]',
}


def _store_index(path: Path, data: dict[str, Any]) -> StoreIndex | None:
    given: dict[str, Any] | None = (data.get("store") or {}).get("index")
    if given is None:
        return None
    for name, wanted in _INDEX_FIELDS.items():
        try:
            msgspec.convert({"embed": "-", "dims": 1, name: given.get(name)}, StoreIndex)
        except msgspec.ValidationError:
            shown = json.dumps(given[name]) if name in given else "missing"
            raise StartupError(
                f'"store.index.{name}" in {path} is {shown}: it has to be {wanted}.'
            ) from None
    return msgspec.convert(given, StoreIndex)


def _wrong(path: Path, key: str, value: object, wanted: str) -> None:
    shown = json.dumps(value, ensure_ascii=False)
    raise StartupError(
        f'"{key}" in {path} has to be {wanted}, not {_NAMES[type(value)]}: '
        f"{shown if len(shown) <= 60 else shown[:57] + '...'}"
    )


def _check_python(path: Path, version: str | None) -> None:
    if version is None:
        return
    found = re.fullmatch(r"(\d+)\.(\d+)(\.\d+)?(-\w+)?", version)
    if not found or (int(found[1]), int(found[2])) < OLDEST_PYTHON:
        raise StartupError(
            f'"python_version" in {path} is "{version}": Python 3.11 or newer is needed, '
            'written as "3.11".'
        )


def _graphs(
    path: Path, entries: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[GraphSpec, ...]:
    if not entries:
        raise StartupError(f"{path} names no graphs. A minimal langgraph.json is\n  {MINIMAL}")
    configs = configs_in(environ, frozenset(entries))
    return tuple(
        _graph(path, graph_id, entry, configs.get(graph_id, {}))
        for graph_id, entry in entries.items()
    )


def _graph(path: Path, graph_id: str, entry: Any, config: dict[str, Any]) -> GraphSpec:
    key = f"graphs.{graph_id}"
    description = None
    if isinstance(entry, dict):
        entry = cast("dict[str, Any]", entry)
        description = entry.get("description")
        if description is not None and not isinstance(description, str):
            _wrong(path, f"{key}.description", description, "a string")
        entry, key = entry.get("path"), f"{key}.path"
    if not isinstance(entry, str):
        _wrong(path, key, entry, 'a string such as "./agent.py:graph"')
    source = cast("str", entry)
    location, colon, attribute = source.rpartition(":")
    is_file = "/" in location or "\\" in location or Path(location).suffix in SOURCE_SUFFIXES
    if not colon or not attribute.isidentifier() or not (is_file or _DOTTED.match(location)):
        raise StartupError(
            f'"{key}" in {path} is "{source}": a graph is named by its file and the variable in '
            'it, "./agent.py:graph", or by its module, "package.module:graph".'
        )
    return GraphSpec(graph_id, source, description, config)


JS_SUFFIXES = frozenset({".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx"})
SOURCE_SUFFIXES = JS_SUFFIXES | {".py"}


def _dependencies(path: Path, entries: list[Any] | None) -> tuple[str, ...]:
    for index, entry in enumerate(entries or ()):
        if not isinstance(entry, str):
            _wrong(path, f"dependencies[{index}]", entry, "a string")
    if entries == []:
        raise StartupError(
            f'{path} has no dependencies: name the project\'s own folder, "dependencies": ["."], '
            "or leave the key out."
        )
    return (".",) if entries is None else tuple(entries)


def _env(path: Path, entry: dict[str, Any] | str | None) -> dict[str, str]:
    if isinstance(entry, str):
        return _env_file(path, path.parent / entry)
    variables: dict[str, str] = {}
    for name, value in (entry or {}).items():
        if isinstance(value, bool | int | float):
            value = json.dumps(value)
        if not isinstance(value, str):
            _wrong(path, f"env.{name}", value, "a string")
        variables[name] = value
    return variables


def _env_file(path: Path, file: Path) -> dict[str, str]:
    if not file.is_file():
        raise StartupError(
            f'"env" in {path} names the file {file}, which does not exist. '
            'Make it, or take "env" out.'
        )
    from dotenv import dotenv_values

    return {name: value for name, value in dotenv_values(file).items() if value is not None}


def _keys(data: Mapping[str, Any], section: str = "") -> list[str]:
    """The keys of the file, those of a section as ``section.key``."""
    keys: list[str] = []
    for name, value in data.items():
        key = section + name
        if key in _SECTIONS and isinstance(value, dict):
            keys += _keys(cast("dict[str, Any]", value), f"{key}.")
        else:
            keys.append(key)
    return keys


def _unknown(data: Mapping[str, Any]) -> dict[str, str | None]:
    known = {*IN_EFFECT, *NO_MATTER, *NOT_YET, *_SECTIONS}
    unknown = {key: _nearest(key, known) for key in _keys(data) if key not in known}
    for graph_id, entry in (data.get("graphs") or {}).items():
        for name in entry if isinstance(entry, dict) else ():
            if name not in _GRAPH_KEYS:
                unknown[f"graphs.{graph_id}.{name}"] = _nearest(cast("str", name), _GRAPH_KEYS)
    return unknown


def _nearest(key: str, known: Any) -> str | None:
    near = difflib.get_close_matches(key, known, n=1)
    return near[0] if near else None
