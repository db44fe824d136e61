"""The environment variables that are no settings of the server's own (``settings.VARIABLES``).

What a variable does that the documented Agent Server knows is either done, or said at the start:
nothing is dropped in silence.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from fnmatch import fnmatchcase

from treadle.settings import VARIABLES

ELSEWHERE: dict[str, str] = {
    "HOST": "where ``treadle serve`` listens: ``127.0.0.1`` by default, ``0.0.0.0`` in images",
    "PORT": "its port: 2024 by default",
    "HEALTH_PORT": "where ``treadle worker`` says how it is: ``/ok``, ``/metrics``; nowhere by"
    " default",
    "TREADLE_API_KEYS": "API keys, ``name:secret,name:secret``: see [auth](auth.md#api-keys)",
    "TREADLE_API_KEYS_FILE": "the file of keys that ``treadle keys`` writes; a relative path counts"
    " from the config's folder",
    "LANGGRAPH_AUTH": "the section ``auth`` of langgraph.json, as JSON; wins over the file",
    "LANGGRAPH_AUTH_TYPE": "``noop``; ``langsmith`` is refused, unless ``auth.path`` is there",
    "LANGSERVE_GRAPHS": "``graphs``, as JSON; with it there need be no langgraph.json",
    "LANGGRAPH_HTTP": "``http`` of langgraph.json, as JSON; wins over the file",
    "LANGGRAPH_STORE": "the same for ``store``",
    "LANGGRAPH_CHECKPOINTER": "the same for ``checkpointer``",
    "LANGGRAPH_WEBHOOKS": "the same for ``webhooks``",
    "LANGGRAPH_ENCRYPTION": "the same for ``encryption``",
    "LANGGRAPH_CONFIG": "the configs of the graphs' default assistants, such as"
    """ ``{"agent": {"configurable": {"model": "small"}}}``; ``configurable`` is the assistant's"""
    " context too. Assistants that were changed keep what they have",
    "LANGGRAPH_AES_KEY": "16, 24 or 32 bytes: encrypts checkpoints, see"
    " [encryption](encryption.md)",
    "LANGGRAPH_AES_FALLBACK_KEYS": "comma list of keys that only decrypt",
    "LANGGRAPH_AES_LEGACY_KEY": "one more such key",
    "LANGGRAPH_AES_JSON_KEYS": "refused: single JSON keys are not encrypted",
    "TREADLE_WEBHOOK_SECRET": "signs what webhooks send: see [webhooks](webhooks.md)",
    "LANGSMITH_TRACING": "``true`` lets langchain send traces of runs to LangSmith: see"
    " [observability](observability.md#langsmith)",
    "LANGSMITH_API_KEY": "the key for that, read by langsmith",
    "LANGSMITH_ENDPOINT": "where LangSmith is, read by langsmith",
    "LANGSMITH_PROJECT": "the project that traces go to, read by langsmith",
    "LANGSMITH_RUNS_ENDPOINTS": "several places that traces go to, as JSON, read by langsmith",
    "LANGSMITH_WORKSPACE_ID": "the workspace of a key that has several, read by langsmith",
    "LANGCHAIN_TRACING_SAMPLING_RATE": "how many of the runs are traced, 0 to 1, read by langsmith",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "turns OpenTelemetry on, and says where the collector is: see"
    " [observability](observability.md#opentelemetry)",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "the same, for traces alone",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "the same, for metrics alone",
    "OTEL_TRACES_EXPORTER": "``otlp``, ``console``, ``none``, or another that is installed",
    "OTEL_METRICS_EXPORTER": "the same, for metrics",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "``http/protobuf`` (default) or ``grpc``",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "the same, for traces alone",
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "the same, for metrics alone",
    "OTEL_SDK_DISABLED": "``true`` keeps OpenTelemetry off, whatever the others say",
    "OTEL_SERVICE_NAME": "the name under which spans and metrics are found; ``treadle`` by default",
}
"""What is read elsewhere than in ``Settings``, and what for."""

NOT_IN_EFFECT: dict[str, str] = {
    "LSD_CHECKPOINT_DELETE": "checkpoints go with what they belong to, in small pieces",
    "DD_*": "Datadog's tracer is not loaded; its agent takes OTLP: set OTEL_EXPORTER_OTLP_ENDPOINT",
}
"""Variables (or patterns of them) that the documented Agent Server obeys and this one does not,
with what holds instead. The start warns of them."""

MEANINGLESS: dict[str, str] = {
    "LANGGRAPH_CLI_NO_ANALYTICS": "nothing is reported to anyone anyway",
    "LANGGRAPH_CLOUD_LICENSE_KEY": "no licence is needed",
}
"""Variables that are accepted in silence: what they ask for holds without them."""


def warnings(environ: Mapping[str, str]) -> list[str]:
    """A line for each variable that does not do what its author hoped for."""
    known = [name for name in (*VARIABLES, *ELSEWHERE) if name.startswith("TREADLE_")]
    lines: list[str] = []
    given = sorted(name for name, value in environ.items() if value.strip())
    for pattern, instead in NOT_IN_EFFECT.items():
        if names := [name for name in given if fnmatchcase(name, pattern)]:
            verb = "is" if len(names) == 1 else "are"
            lines.append(f"{', '.join(names)} {verb} not in effect: {instead}")
    for name in given:
        if name.startswith("TREADLE_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" - did you mean {near[0]}?" if near else ""
            lines.append(f"{name} is not a known variable{hint}")
    return lines
