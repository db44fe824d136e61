"""Import what a config names as ``./file.py:attribute`` or ``package.module:attribute``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from treadle.config import JS_SUFFIXES, SOURCE_SUFFIXES, Config
from treadle.errors import StartupError


def import_object(config: Config, source: str, what: str) -> object:
    """The object that ``source`` names; ``what`` names the thing, as in ``Graph "agent"``.

    Raises ``StartupError``: no such file or module, an error in the user's code (with the
    user's own traceback), no such attribute. A file is imported once, however often it is named.
    """
    location, _, attribute = source.rpartition(":")
    if not location or not attribute.isidentifier():
        raise StartupError(
            f'{what} is given as "{source}": it is named by its file and the variable in it, '
            '"./file.py:variable", or by its module, "package.module:variable".'
        )
    module = import_module(config, location, what)
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise StartupError(
            f'{what}: there is no "{attribute}" in {location}. {_offer(module, attribute)}'
        ) from None


def import_module(config: Config, location: str, what: str) -> ModuleType:
    """The module at ``location``, a path relative to the config's folder or a dotted name.

    A file that is importable by an ordinary name is imported by it, so that its relative
    imports work and other modules that import it get the same objects.
    """
    try:
        if "/" in location or "\\" in location or Path(location).suffix in SOURCE_SUFFIXES:
            return _import_file(config, _source_file(config, location, what))
        return importlib.import_module(location)
    except StartupError:
        raise
    except (Exception, SystemExit) as error:
        raise StartupError(
            f"{what} cannot be imported from {location}:\n{users_traceback(config, error)}"
            f"{_advice(error)}"
        ) from error


def _source_file(config: Config, location: str, what: str) -> Path:
    file = (config.folder / location).resolve()
    if file.suffix in JS_SUFFIXES:
        raise StartupError(
            f"{what} is written in JavaScript or TypeScript ({location}): Treadle serves "
            "Python graphs only."
        )
    if not file.is_file():
        near = sorted(path.name for path in file.parent.glob("*.py"))[:10]
        found = f" That folder has {', '.join(near)}." if near else ""
        raise StartupError(f"{what}: there is no file {location} in {config.folder}.{found}")
    return file


def _import_file(config: Config, file: Path) -> ModuleType:
    """Import ``file`` by its ordinary name if that leads to it, else by a name of its own."""
    if (name := _ordinary_name(config, file)) is not None:
        return importlib.import_module(name)
    digest = hashlib.sha256(os.path.relpath(file, config.folder).encode())
    name = f"treadle_graph_{digest.hexdigest()[:8]}_{file.stem.replace('-', '_')}"
    known = sys.modules.get(name)
    return known if known and known.__file__ == str(file) else _import_as(name, file)


def _import_as(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise StartupError(f"{file} is not a Python file.")
    if (folder := str(file.parent)) not in sys.path:
        sys.path.append(folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _ordinary_name(config: Config, file: Path) -> str | None:
    """The dotted name under which ``import`` finds this very file; None if there is none."""
    for root in sorted(config.local_dependencies, key=lambda path: -len(path.parts)):
        if not file.is_relative_to(root.resolve()):
            continue
        parts = file.relative_to(root.resolve()).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not parts or not all(part.isidentifier() for part in parts):
            continue
        name = ".".join(parts)
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        if spec is not None and spec.origin and Path(spec.origin).resolve() == file:
            return name
    return None


def users_traceback(config: Config, error: BaseException) -> str:
    """``error`` as Python prints it, with no frames but those of the project's own files."""
    shown = traceback.TracebackException.from_exception(error)
    link: traceback.TracebackException | None = shown
    while link is not None:
        link.stack = traceback.StackSummary.from_list(
            [frame for frame in link.stack if _is_users(config, frame.filename)]
        )
        link = link.__cause__ or link.__context__
    return "".join(shown.format())


def _is_users(config: Config, filename: str) -> bool:
    path = Path(filename)
    own = any(path.is_relative_to(folder) for folder in config.local_dependencies)
    return own and "site-packages" not in path.parts


def _advice(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f'Install the package that has "{error.name}" into this environment '
            f"({sys.prefix}), or put its folder into dependencies."
        )
    return ""


def _offer(module: ModuleType, attribute: str) -> str:
    from treadle.graphs.registry import is_graph

    graphs = [name for name, value in vars(module).items() if is_graph(value)]
    if graphs:
        return f"The graphs there are: {', '.join(sorted(graphs))}."
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    names = f" It defines {', '.join(sorted(own)[:10])}." if own else ""
    return f"There are no graphs in it at all.{names}"
