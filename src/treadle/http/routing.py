"""Finds the route of a path in time that depends on the path alone, not on how many routes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Route(Generic[T]):
    """A path template and what answers to it, by method."""

    __slots__ = ("by_method", "names", "template")

    def __init__(self, template: str, names: tuple[str, ...]) -> None:
        self.template = template
        self.names = names
        self.by_method: dict[str, T] = {}


class _Node(Generic[T]):
    """One segment of the paths: the literal segments that may follow it, or a parameter."""

    __slots__ = ("literals", "parameter", "route")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[T]] = {}
        self.parameter: _Node[T] | None = None
        self.route: Route[T] | None = None


class Router(Generic[T]):
    """Path templates such as ``/threads/{thread_id}/runs``; a parameter is one whole segment.

    Literal segments win over parameters, unless only the parameter's route has the method.
    """

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._literal: dict[str, Route[T]] = {}

    def add(self, method: str, template: str, target: T) -> None:
        """Let ``target`` answer ``method`` on ``template``."""
        names: list[str] = []
        node = self._root
        for segment in template.split("/")[1:]:
            if segment.startswith("{"):
                names.append(segment[1:-1])
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(segment, _Node())
        if node.route is None:
            node.route = Route(template, tuple(names))
        node.route.by_method[method] = target
        if not names:
            self._literal[template] = node.route

    def find(self, method: str, path: str) -> tuple[T, Route[T], tuple[str, ...]] | None:
        """What answers ``method`` on ``path``, its route, and the values of its parameters."""
        route = self._literal.get(path)
        if route is not None and (target := route.by_method.get(method)) is not None:
            return target, route, ()
        for route, values in self._matches(path):
            if (target := route.by_method.get(method)) is not None:
                return target, route, values
        return None

    def methods(self, path: str) -> set[str]:
        """The methods that ``path`` answers to; empty for an unknown path."""
        return {method for route, _ in self._matches(path) for method in route.by_method}

    def _matches(self, path: str) -> Iterable[tuple[Route[T], tuple[str, ...]]]:
        """All routes of ``path``, those with literal segments first."""
        segments = path.split("/")
        last = len(segments)
        waiting: list[tuple[_Node[T], int, tuple[str, ...]]] = [(self._root, 1, ())]
        while waiting:
            node, position, values = waiting.pop()
            if position == last:
                if node.route is not None:
                    yield node.route, values
                continue
            segment = segments[position]
            if node.parameter is not None and segment:
                waiting.append((node.parameter, position + 1, (*values, segment)))
            if (child := node.literals.get(segment)) is not None:
                waiting.append((child, position + 1, values))
