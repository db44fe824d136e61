"""What langgraph.json and the environment say of webhooks, and which targets that allows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import msgspec

from treadle.errors import Invalid, StartupError

SECRET_VARIABLE = "TREADLE_WEBHOOK_SECRET"
DEFAULT_ENV_PREFIX = "LG_WEBHOOK_"
DEFAULT_PORTS = {"http": 80, "https": 443}
LOOPBACK_OFF = (
    "Loopback webhooks (relative URLs and localhost) are disabled by default. Set"
    " webhooks.url.disable_loopback to false in langgraph.json to allow them."
)
_VARIABLE = re.compile(r"\$\{\{\s*env\.(\w+)\s*\}\}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^`|~\w-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_HOST_NAME = re.compile(r"[a-z0-9._-]+")
_KEPT_IN_PATH = "/%:@!$&'()*+,;=~"
_KEPT_IN_QUERY = _KEPT_IN_PATH + "?"


class _UrlSection(msgspec.Struct, forbid_unknown_fields=True):
    require_https: bool = True
    allowed_domains: list[str] | None = None
    allowed_ports: list[int] | None = None
    max_url_length: int | None = None
    disable_loopback: bool = True
    disable_private: bool = False


class _Section(msgspec.Struct, forbid_unknown_fields=True):
    env_prefix: str = DEFAULT_ENV_PREFIX
    url: _UrlSection | None = None
    headers: dict[str, str] | None = None


@dataclass(frozen=True)
class Target:
    """Where a webhook goes. ``path`` has the query, and is quoted.

    A target without a host is this server itself.
    """

    path: str
    scheme: str = "http"
    host: str = ""
    port: int = 80
    user: tuple[str, str] | None = None

    @property
    def netloc(self) -> str:
        """The host as the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True)
class WebhookRules:
    """The ``webhooks`` section of langgraph.json, and the secret that deliveries are signed with.

    ``allowed_domains`` and ``allowed_ports`` that are empty allow all.
    """

    loopback: bool = False
    private: bool = True
    require_https: bool = False
    allowed_domains: tuple[str, ...] = ()
    allowed_ports: tuple[int, ...] = ()
    max_url_length: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    secret: bytes | None = field(default=None, repr=False)

    @classmethod
    def read(cls, section: Mapping[str, Any] | None, environ: Mapping[str, str]) -> WebhookRules:
        """The rules of a config; ``None`` is a config without the section.

        Raises ``StartupError`` for a key that is not what it has to be (this is about safety:
        one that is misspelt must not pass), and for a header that names a variable it may not
        have.
        """
        secret = environ.get(SECRET_VARIABLE, "").strip().encode() or None
        if section is None:
            return cls(secret=secret)
        try:
            said = msgspec.convert(section, _Section)
        except msgspec.ValidationError as error:
            raise StartupError(f"webhooks in langgraph.json: {error}") from None
        url = said.url or _UrlSection()
        headers = said.headers or {}
        return cls(
            loopback=not url.disable_loopback,
            private=not url.disable_private,
            require_https=url.require_https,
            allowed_domains=tuple(domain.lower() for domain in url.allowed_domains or ()),
            allowed_ports=tuple(url.allowed_ports or ()),
            max_url_length=url.max_url_length,
            headers={
                name.lower(): _filled(name, value, said.env_prefix, environ)
                for name, value in headers.items()
            },
            secret=secret,
        )

    def target(self, text: str) -> Target:
        """The target that a client has named. Raises ``Invalid`` for one that is not allowed.

        This judges the text alone: the addresses of its host are for ``addresses_of``.
        """
        if self.max_url_length is not None and len(text) > self.max_url_length:
            raise Invalid(f"Webhook URL too long: at most {self.max_url_length} characters")
        try:
            target = _parsed(text)
        except ValueError as error:
            raise Invalid(f"Invalid webhook URL: {error}") from None
        if target.host:
            self._check_host(target)
        elif not self.loopback:
            raise Invalid(LOOPBACK_OFF)
        return target

    def _check_host(self, target: Target) -> None:
        host = target.host.rstrip(".")
        if host == "localhost" and not self.loopback:
            raise Invalid(f"Webhook host blocked: localhost address. {LOOPBACK_OFF}")
        if self.require_https and target.scheme != "https":
            raise Invalid("Webhook must use https")
        if self.allowed_domains and not any(
            _in_domain(host, domain) for domain in self.allowed_domains
        ):
            raise Invalid("Webhook domain not allowed")
        if self.allowed_ports and target.port not in self.allowed_ports:
            raise Invalid(f"Webhook port {target.port} not allowed")


def _parsed(text: str) -> Target:
    """``text`` in parts. Raises ``Invalid``, or ``ValueError`` with what is wrong."""
    parts = urlsplit(text)
    path = quote(parts.path, safe=_KEPT_IN_PATH) or "/"
    if parts.query:
        path += "?" + quote(parts.query, safe=_KEPT_IN_QUERY)
    if text.startswith("/") and not parts.netloc:
        return Target(path)
    if not parts.hostname:
        raise Invalid("Invalid webhook hostname ''")
    if parts.scheme not in DEFAULT_PORTS:
        raise Invalid(f"Webhook host blocked: scheme {parts.scheme!r} not allowed")
    port = DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    user = None
    if parts.username is not None:
        user = unquote(parts.username), unquote(parts.password or "")
    return Target(path, parts.scheme, _host(parts.hostname), port, user)


def _host(name: str) -> str:
    """A host in ASCII: a name, or a number."""
    if ":" in name:
        return str(IPv6Address(name))
    host = name.encode("idna").decode().lower()
    if not _HOST_NAME.fullmatch(host):
        raise Invalid(f"Invalid webhook hostname {name!r}")
    return host


def _in_domain(host: str, domain: str) -> bool:
    if domain.startswith("*."):
        return host.endswith(domain[1:])
    return host == domain


def _filled(name: str, value: str, prefix: str, environ: Mapping[str, str]) -> str:
    """A header's value with its variables filled in."""

    def fill(match: re.Match[str]) -> str:
        variable = match[1]
        if not variable.startswith(prefix) or variable not in environ:
            raise StartupError(
                f"webhooks.headers names the variable {variable}: it has to be set and to begin"
                f" with {prefix}"
            )
        return environ[variable]

    filled = _VARIABLE.sub(fill, value).strip()
    if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(filled):
        raise StartupError(f"webhooks.headers: {name!r} is no header that can be sent")
    return filled
