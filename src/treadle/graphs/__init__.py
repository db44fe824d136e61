"""Graphs: from a line in ``langgraph.json`` to something that runs."""

from treadle.graphs.registry import GraphRegistry, bind

__all__ = ["GraphRegistry", "bind"]
