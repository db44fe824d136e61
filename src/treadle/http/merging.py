"""One OpenAPI document of the built-in API's and that of the project's own app."""

from __future__ import annotations

from typing import Any, cast

Json = dict[str, Any]
_SCHEMAS = "#/components/schemas/"


def with_app(document: Json, app: Json) -> Json:
    """``document`` with all that ``app`` has; where both tell of the same, ``app`` wins.

    Schemas of ``app`` whose names are taken get another.
    """
    taken = document["components"]["schemas"]
    schemas: Json = app.get("components", {}).get("schemas", {})
    names = {
        name: f"App{name}"
        for name, schema in schemas.items()
        if name in taken and taken[name] != schema
    }
    app = _renamed(app, names)
    paths = {
        path: {**document["paths"].get(path, {}), **item} for path, item in app["paths"].items()
    }
    components: Json = {**document["components"]}
    for kind, parts in app.get("components", {}).items():
        if kind == "schemas":
            parts = {names.get(name, name): schema for name, schema in parts.items()}
        components[kind] = {**components.get(kind, {}), **parts}
    merged = {
        **document,
        "info": {**document["info"], **app["info"]},
        "paths": {**paths, **{k: v for k, v in document["paths"].items() if k not in paths}},
        "components": components,
    }
    if tags := app.get("tags"):
        own = {tag["name"] for tag in tags}
        merged["tags"] = [*tags, *(tag for tag in document["tags"] if tag["name"] not in own)]
    return merged


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """``value`` with references to the schemas by their new names."""
    if not names:
        return value
    if isinstance(value, list):
        return [_renamed(item, names) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    copy = {key: _renamed(item, names) for key, item in cast("Json", value).items()}
    reference = copy.get("$ref")
    if isinstance(reference, str) and reference.startswith(_SCHEMAS):
        name = reference.removeprefix(_SCHEMAS)
        copy["$ref"] = _SCHEMAS + names.get(name, name)
    return copy
