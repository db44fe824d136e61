"""Runs of the plain API as this protocol shows them: values, updates by node, tasks, custom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from langgraph.types import Interrupt

from treadle.serialization import dumps
from treadle.streaming.modes import Encoder
from treadle.streaming.protocol.envelope import INTERRUPT, PROTOCOL, Emission, named

SHARED_MODES = ("tasks", "custom")


class PlainRecorder:
    """The events of one run of the plain API, in both protocols.

    Where both show the same, it is one entry. ``asked`` are the interrupts by their ids, with the
    namespaces of the graphs that they are from: they are told of at the end. ``see_interrupts``
    is to be shown all values, so that they are known whoever comes when.
    """

    def __init__(self, encoder: Encoder, modes: frozenset[str]) -> None:
        self.asked: dict[str, tuple[tuple[str, ...], Interrupt]] = {}
        self._encoder, self._modes = encoder, modes

    def events(self, namespace: tuple[str, ...], mode: str, payload: Any) -> Iterator[Emission]:
        """The entries of one part of the graph's stream."""
        if mode == "values":
            yield from self._values(namespace, payload)
        elif mode == "updates":
            yield from self._updates(namespace, payload)
        else:
            numbered = mode in SHARED_MODES
            label = _label(payload) if mode == "custom" else ""
            for name, data in self._encoder.encode(namespace, mode, payload):
                yield Emission(name, data, numbered=numbered, label=label)

    def see_interrupts(self, namespace: tuple[str, ...], payload: Any) -> None:
        """Note what a graph's values ask for."""
        if isinstance(payload, dict) and INTERRUPT in payload:
            for interrupt in cast("dict[str, Any]", payload)[INTERRUPT]:
                self.asked.setdefault(interrupt.id, (namespace, interrupt))

    def _values(self, namespace: tuple[str, ...], payload: Any) -> Iterator[Emission]:
        if not (isinstance(payload, dict) and INTERRUPT in payload):
            kind = "event" if "values" in self._modes else PROTOCOL
            yield Emission(named("values", namespace), dumps(payload), kind, True)
            return
        for name, data in self._encoder.encode(namespace, "values", payload):
            yield Emission(name, data)
        values = cast("dict[str, Any]", payload)
        if rest := {key: value for key, value in values.items() if key != INTERRUPT}:
            yield Emission(named("values", namespace), dumps(rest), PROTOCOL, True)

    def _updates(self, namespace: tuple[str, ...], payload: Any) -> Iterator[Emission]:
        for name, data in self._encoder.encode(namespace, "updates", payload):
            yield Emission(name, data)
        for node, update in payload.items():
            if node != INTERRUPT:
                params = b'"node":' + dumps(node)
                data = dumps(update)
                yield Emission(named("updates", namespace), data, PROTOCOL, True, "", params)


def _label(payload: Any) -> str:
    name = cast("dict[str, Any]", payload).get("name") if isinstance(payload, dict) else None
    return name if isinstance(name, str) else ""
