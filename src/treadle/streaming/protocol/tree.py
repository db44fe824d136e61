"""The agents of a run as a tree, from its lifecycle events."""

from __future__ import annotations

from typing import Any

from treadle.serialization import loads
from treadle.streaming import queries
from treadle.streaming.log import EventHub
from treadle.streaming.protocol.envelope import ENDS, PROTOCOL, SEPARATOR

Json = dict[str, Any]


async def last_tree(hub: EventHub, thread_id: str) -> Json | None:
    """The tree of the newest run on a thread that is told of; None if there is none."""
    rows = await hub.database.scan(
        queries.LAST_LIFECYCLE,
        {
            "thread_id": thread_id,
            "kind": PROTOCOL,
            "name": "lifecycle",
            "below": f"lifecycle{SEPARATOR}%",
        },
    )
    nodes: dict[tuple[str, ...], Json] = {}
    for row in rows:
        _, *namespace = row["name"].split(SEPARATOR)
        data: Json = loads(bytes(row["data"]))
        node = nodes.get(tuple(namespace))
        if node is None:
            node = nodes[tuple(namespace)] = {"namespace": namespace}
            parent = nodes.get(tuple(namespace[:-1])) if namespace else None
            if parent is not None:
                parent.setdefault("children", []).append(node)
        node["status"] = data["event"] if data["event"] in ENDS else "running"
        if "graph_name" in data:
            node["graph_name"] = data["graph_name"]
    return nodes.get(())
