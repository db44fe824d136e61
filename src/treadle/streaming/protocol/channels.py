"""What a subscriber wants: channels, namespaces and how deep below them, and from where on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from treadle.errors import Refused
from treadle.serialization import excerpt
from treadle.streaming.entries import Entry
from treadle.streaming.protocol.envelope import INPUT_REQUESTED, Envelope, envelope_of

CHANNELS = ("values", "updates", "messages", "tools", "custom", "lifecycle", "input", "tasks")
LARGEST_SEQ = 2**62
MAX_SHOWN = 200

NO_CHANNELS = "channels is required and must be a non-empty array"

Json = dict[str, Any]


class UnknownChannel(Refused):
    """A channel that the protocol does not have."""


class Filter:
    """Which events a subscriber gets. Nothing is decoded to find out."""

    def __init__(
        self,
        channels: Sequence[str],
        namespaces: Sequence[Sequence[str]] = (),
        depth: int | None = None,
    ) -> None:
        self._methods = frozenset(
            INPUT_REQUESTED if channel == "input" else channel
            for channel in channels
            if not channel.startswith("custom:")
        )
        self._custom = frozenset(
            channel.removeprefix("custom:") for channel in channels if channel.startswith("custom:")
        )
        self._checkpoints = "checkpoints" in channels
        self._namespaces, self._depth = namespaces, depth

    def frame(self, entry: Entry) -> bytes | None:
        """The entry as server-sent events for this subscriber; None if it doesn't want it."""
        if entry.seq is None:
            return None
        envelope = envelope_of(entry)
        wanted = self.wants(entry, envelope)
        if self.wants_checkpoint(envelope):
            frame = envelope.checkpoint_frame
            return frame + envelope.frame if wanted else frame
        return envelope.frame if wanted else None

    def wants(self, entry: Entry, envelope: Envelope) -> bool:
        method = envelope.method
        if method not in self._methods and not (
            method == "custom" and self._custom and entry.label in self._custom
        ):
            return False
        return not self._namespaces or self._is_below(envelope.namespace)

    def wants_checkpoint(self, envelope: Envelope) -> bool:
        """Whether it gets the checkpoint that comes with an event."""
        return (
            self._checkpoints
            and envelope.has_checkpoint
            and (not self._namespaces or self._is_below(envelope.namespace))
        )

    def _is_below(self, namespace: Sequence[str]) -> bool:
        size = len(namespace)
        for prefix in self._namespaces:
            below = size - len(prefix)
            if below < 0 or (self._depth is not None and below > self._depth):
                continue
            if all(map(_is_segment, prefix, namespace)):
                return True
        return False


def _is_segment(wanted: str, segment: str) -> bool:
    return wanted == segment or (":" not in wanted and wanted == segment.partition(":")[0])


def read_filter(body: Json) -> Filter:
    """The filter that a request describes. Raises ``Refused`` and ``UnknownChannel``."""
    channels = body.get("channels")
    if not isinstance(channels, list) or not channels:
        raise Refused(NO_CHANNELS)
    channels = cast("list[Any]", channels)
    if unknown := [channel for channel in channels if not _is_channel(channel)]:
        shown = ", ".join(_shown(channel) for channel in unknown[:10])
        raise UnknownChannel(
            f"channels contains unsupported entries: {shown}. Allowed: {', '.join(CHANNELS)},"
            " or any `custom:<name>`."
        )
    return Filter(channels, _namespaces(body.get("namespaces")), natural(body, "depth"))


def _is_channel(channel: Any) -> bool:
    if not isinstance(channel, str):
        return False
    if channel.startswith("custom:"):
        return len(channel) > len("custom:")
    return channel in CHANNELS or channel == "checkpoints"


def _namespaces(value: Any) -> list[list[str]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Refused(f"namespaces must be an array of arrays of strings, not {_shown(value)}")
    for namespace in cast("list[Any]", value):
        segments = cast("list[Any]", namespace) if isinstance(namespace, list) else [None]
        if not all(isinstance(segment, str) for segment in segments):
            raise Refused(f"namespaces has {_shown(namespace)}: each must be an array of strings")
    return value


def natural(body: Json, name: str) -> int | None:
    """A field that has to be an integer from 0 on; None if it is not there."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Refused(f"{name} must be an integer of 0 or more, not {_shown(value)}")
    return min(value, LARGEST_SEQ)


def _shown(value: Any) -> str:
    return value[:MAX_SHOWN] if isinstance(value, str) else excerpt(value, MAX_SHOWN)
