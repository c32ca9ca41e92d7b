"""/openapi.json, made from the table of routes and the structs that they name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
from aiohttp import web
from msgspec.json import schema_components

from coordinator.api_types.problems import Problem
from coordinator.core.errors import Code
from coordinator.service.api.problems import MEDIA_TYPE
from coordinator.service.api.query import NoQuery
from coordinator.service.api.replays import HEADER
from coordinator.service.api.route import AnyRoute, Call, NoBody, Ready
from coordinator.service.api.streams import EVENT_STREAM

_TEMPLATE = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)\}")
Json = dict[str, Any]
ROUTES: web.AppKey[tuple[AnyRoute, ...]] = web.AppKey("routes", tuple)
"""Where an application keeps its table."""


def openapi(table: Sequence[AnyRoute], version: str) -> Json:
    """The document, OpenAPI 3.1."""
    types = _types(table)
    schemas, components = _components(types)
    by_type = {id(found): schema for found, schema in zip(types, schemas, strict=True)}
    paths: dict[str, Json] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "coord",
            "version": version,
            "summary": "A coordinator that remembers every node and says which will stay",
            "description": "docs/reference/http.md has the rules that hold for every path.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {
                "problem": {
                    "description": "Refused or failed, RFC 9457. Codes: " + ", ".join(Code),
                    "content": {MEDIA_TYPE: {"schema": by_type[id(Problem)]}},
                }
            },
        },
    }


def _components(types: list[Any]) -> tuple[Sequence[Json], dict[str, Json]]:
    schemas, components = schema_components(types, schema_hook=_any, ref_template=_TEMPLATE)
    return tuple(schemas), dict(components)


def _any(kind: type) -> Json:
    """Only `object`, a value of any type, is no schema of its own."""
    if kind is object:
        return {"description": "any JSON value"}
    raise NotImplementedError


def _types(table: Sequence[AnyRoute]) -> list[Any]:
    found: dict[int, Any] = {id(Problem): Problem}
    for route in table:
        for one in (route.body_model, route.answer):
            if isinstance(one, type) and issubclass(one, msgspec.Struct) and one is not NoBody:
                found[id(one)] = one
    return list(found.values())


def _operation(route: AnyRoute, by_type: dict[int, Json]) -> Json:
    roles = [route.roles] if isinstance(route.roles, str) else sorted(route.roles)
    out: Json = {
        "operationId": route.operation,
        "summary": route.summary,
        "description": f"Roles: {', '.join(roles)}.",
        "x-roles": roles,
        "parameters": _parameters(route),
        "responses": {
            str(route.status): _answer(route, by_type),
            "default": {"$ref": "#/components/responses/problem"},
        },
    }
    if isinstance(route.roles, str):
        out["security"] = []
    if route.takes_bytes:
        binary: Json = {"schema": {"type": "string", "format": "binary"}}
        raw: Json = dict.fromkeys(route.media or ("application/octet-stream",), binary)
        out["requestBody"] = {"required": True, "content": raw}
    elif route.takes_upload:
        media: Json = {"text/csv": {"schema": {"type": "string"}}}
        out["requestBody"] = {"required": True, "content": media}
    elif route.body is not NoBody:
        out["requestBody"] = {"content": {"application/json": {"schema": by_type[id(route.body_model)]}}}
    return out


def _parameters(route: AnyRoute) -> list[Json]:
    out: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "maxLength": 128}}
        for name in _PARAMETER.findall(route.path)
    ]
    if route.query is not NoQuery:
        _, components = _components([route.query])
        for name, schema in components[route.query.__name__]["properties"].items():
            out.append(_query_parameter(name, schema))
    if route.method == "POST":
        out.append(
            {
                "name": HEADER,
                "in": "header",
                "required": False,
                "description": "the same key and request again: the same answer, carried out once",
                "schema": {"type": "string", "minLength": 1, "maxLength": 128},
            }
        )
    return out


def _query_parameter(name: str, schema: Json) -> Json:
    """None stands for an absent parameter: it is no value that could be sent."""
    given = [one for one in schema.pop("anyOf", [schema]) if one.get("type") != "null"]
    assert len(given) == 1, f"query parameter {name} has several types"
    plain = dict(given[0])
    if schema.get("default") is not None:
        plain["default"] = schema["default"]
    return {"name": name, "in": "query", "required": False, "description": plain.pop("description"), "schema": plain}


def _answer(route: AnyRoute, by_type: dict[int, Json]) -> Json:
    if route.answer is None:
        return {"description": "Done"}
    if route.answer == "websocket":
        return {"description": "The connection is open once it is upgraded (101)"}
    if isinstance(route.answer, str):
        media = [route.answer, *([EVENT_STREAM] if route.streams else [])]
        return {"description": "Text", "content": {one: {"schema": {"type": "string"}} for one in media}}
    schema = by_type[id(route.answer)]
    if route.nullable:
        schema = {"anyOf": [schema, {"type": "null"}]}
    content: Json = {"application/json": {"schema": schema}}
    for other, given in ((EVENT_STREAM, route.streams), ("text/csv", route.csv)):
        if given:
            content[other] = {"schema": {"type": "string"}}
    return {"description": (route.answer.__doc__ or "").split("\n")[0], "content": content}


@lru_cache(maxsize=1)
def _encoded(table: tuple[AnyRoute, ...], version: str) -> bytes:
    return msgspec.json.encode(openapi(table, version))


async def show_openapi(call: Call[NoQuery, NoBody]) -> Ready:
    """The document of every route."""
    return Ready(body=_encoded(call.request.app[ROUTES], call.deps.version))
