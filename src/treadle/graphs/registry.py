"""The graphs that a server serves, by the ids that its config gives them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph_sdk.runtime import AccessContext

from treadle.auth import ANYONE, Caller
from treadle.config import Config, GraphSpec
from treadle.errors import NotFound, StartupError
from treadle.graphs.factories import Factory, read_factory
from treadle.graphs.importing import import_object, users_traceback

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.store.base import BaseStore

Graph = Pregel[Any, Any, Any, Any]
UNNAMED = "LangGraph"
"""The name that langgraph gives to graphs that were compiled without one."""


class GraphRegistry:
    """The graphs of a config. ``load`` them once before use."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._specs = {spec.graph_id: spec for spec in config.graphs}
        self._graphs: dict[str, Graph] = {}
        self._factories: dict[str, Factory] = {}

    def load(self) -> None:
        """Import every graph, and compile those that aren't.

        Calls no factory. Raises ``StartupError`` naming the first graph that cannot be served.
        """
        for spec in self._specs.values():
            what = f'Graph "{spec.graph_id}"'
            found = import_object(self._config, spec.source, what)
            if is_graph(found):
                self._graphs[spec.graph_id] = self._compiled(found, spec, what)
            elif callable(found):
                self._factories[spec.graph_id] = read_factory(found, f"{what} ({spec.source})")
            else:
                raise StartupError(
                    f"{what}: {spec.source} is {_a(found)}. It has to be a compiled graph, a "
                    "StateGraph, an @entrypoint, or a function that makes one of them."
                )

    @property
    def ids(self) -> tuple[str, ...]:
        """The graph ids in the order of the config."""
        return tuple(self._specs)

    def __contains__(self, graph_id: object) -> bool:
        return graph_id in self._specs

    def spec(self, graph_id: str) -> GraphSpec:
        """How the config names a graph. Raises ``NotFound`` for an id that it doesn't name."""
        try:
            return self._specs[graph_id]
        except KeyError:
            raise NotFound(
                f"Graph '{graph_id}' not found. Expected one of: {', '.join(self.ids)}"
            ) from None

    def static(self, graph_id: str) -> Graph | None:
        """The graph, if it is the same for every use; None if a factory makes it."""
        return self._graphs.get(graph_id)

    async def try_factories(self, store: BaseStore) -> AsyncGenerator[tuple[GraphSpec, str], None]:
        """Make each graph once; yields those that fail, with the user's own traceback."""
        for graph_id in self._factories:
            spec = self.spec(graph_id)
            config: RunnableConfig = {**spec.config}  # pyright: ignore[reportAssignmentType]
            config.setdefault("configurable", {})
            try:
                async with self.open(
                    graph_id, config, access="assistants.read", store=store, caller=ANYONE
                ):
                    pass
            except Exception as error:
                yield spec, users_traceback(self._config, error)

    @asynccontextmanager
    async def open(
        self,
        graph_id: str,
        config: RunnableConfig,
        *,
        access: AccessContext,
        store: BaseStore,
        caller: Caller,
        context: Any = None,
    ) -> AsyncGenerator[Graph, None]:
        """The graph for one use; what its factory opened is closed at the end.

        ``access`` says what the use is, and ``context`` is the run's. Raises whatever the
        factory raises, ``TypeError`` if what it makes is no graph, and ``NotFound``.
        """
        if (graph := self._graphs.get(graph_id)) is not None:
            yield graph
            return
        spec = self.spec(graph_id)
        async with AsyncExitStack() as stack:
            made = await self._factories[graph_id].make(
                stack, config, access=access, store=store, caller=caller, context=context
            )
            if not is_graph(made):
                hint = " (decorate it with @asynccontextmanager)" if _is_generator(made) else ""
                raise TypeError(
                    f'The factory {spec.source} of graph "{graph_id}" made {_a(made)}, '
                    f"which is no graph{hint}"
                )
            yield _named(_compile(made), graph_id)

    def _compiled(self, found: Any, spec: GraphSpec, what: str) -> Graph:
        try:
            return _named(_compile(found), spec.graph_id)
        except Exception as error:
            raise StartupError(
                f"{what}: {spec.source} cannot be compiled:\n{users_traceback(self._config, error)}"
            ) from error


def bind(
    graph: Graph, checkpointer: BaseCheckpointSaver[Any] | None, store: BaseStore | None
) -> Graph:
    """A light copy of ``graph`` with this checkpointer and this store, whatever it had."""
    bound = _copy(graph)
    bound.checkpointer = checkpointer
    bound.store = store
    return bound


def is_graph(value: object) -> bool:
    """Whether ``value`` is a compiled graph, an ``@entrypoint``, or a ``StateGraph``."""
    return isinstance(value, Pregel | StateGraph)


def _compile(graph: Any) -> Graph:
    return graph.compile() if isinstance(graph, StateGraph) else graph


def _named(graph: Graph, graph_id: str) -> Graph:
    if graph.name != UNNAMED:
        return graph
    named = _copy(graph)
    named.name = graph_id
    return named


def _copy(graph: Graph) -> Graph:
    """A shallow copy. ``Pregel.copy`` would build and check the graph anew."""
    copied = object.__new__(type(graph))
    vars(copied).update(vars(graph))
    return copied


def _is_generator(value: object) -> bool:
    return hasattr(value, "__anext__") or hasattr(value, "__next__")


def _a(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
