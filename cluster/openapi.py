"""The description of an API, OpenAPI 3.1, from its route table.

Owns: the document's shape.  Must not know: how routes are served.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.errors import (
    BadRequest,
    BodyTooLarge,
    Forbidden,
    NotFound,
    RequestTimeout,
    TooManyRequests,
    Unauthorized,
    UnsupportedMediaType,
)
from cluster.problems import PROBLEM_TYPE, Problem
from cluster.security import Scope
from raft.errors import SkerryError

if TYPE_CHECKING:
    from cluster.http import Route

_PARAMETER = re.compile(r"{(\w+)(?::[^}]*)?}")


def describe(routes: Sequence[Route], *, title: str, version: str, statuses: Mapping[str, int]) -> dict[str, Any]:
    """The whole document."""
    types = _types(routes)
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    of = dict(zip(map(id, types), schemas, strict=True))
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(_template(route.path), {})[route.method.lower()] = _operation(route, of, statuses)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {
            "schemas": dict(components),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _types(routes: Sequence[Route]) -> list[Any]:
    types: list[Any] = [Problem]
    for route in routes:
        types += [kind for kind in (route.body, route.returns) if kind is not None]
    return list({id(kind): kind for kind in types}.values())


def _operation(route: Route, schemas: Mapping[int, Any], statuses: Mapping[str, int]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "parameters": _path_parameters(route) + _query_parameters(route),
        "responses": _responses(route, schemas, statuses),
    }
    if route.scope is Scope.PUBLIC:
        operation["security"] = []
    if route.body is not None:
        content = {"application/json": {"schema": schemas[id(route.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _operation_id(route: Route) -> str:
    words = [word for word in re.split(r"[^A-Za-z0-9]+", _template(route.path)) if word]
    return "_".join([route.method.lower(), *words])


def _template(path: str) -> str:
    return _PARAMETER.sub(r"{\1}", path)


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    schema = {"type": "string", "minLength": 1}
    names = _PARAMETER.findall(route.path)
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    parameters = []
    for field in msgspec.structs.fields(route.query):
        schema = msgspec.json.schema(field.type)
        if field.default is not msgspec.NODEFAULT:
            schema["default"] = field.default
        parameters.append({"name": field.encode_name, "in": "query", "required": field.required, "schema": schema})
    return parameters


def _responses(route: Route, schemas: Mapping[int, Any], statuses: Mapping[str, int]) -> dict[str, Any]:
    schema = {} if route.returns is None else {"schema": schemas[id(route.returns)]}
    content: dict[str, Any] = {route.media: schema}
    responses: dict[str, Any] = {str(route.status): {"description": "done", "content": content}}
    codes: dict[int, list[str]] = {}
    for error in _errors(route):
        codes.setdefault(statuses.get(error.code, 503 if error.retryable else 400), []).append(error.code)
    for status, names in sorted(codes.items()):
        responses[str(status)] = {
            "description": ", ".join(sorted(set(names))),
            "content": {PROBLEM_TYPE: {"schema": schemas[id(Problem)]}},
        }
    return responses


def _errors(route: Route) -> list[type[SkerryError]]:
    """What the route names, and what every route can answer."""
    errors: list[type[SkerryError]] = [*route.errors, BadRequest, SkerryError, TooManyRequests]
    if route.scope is not Scope.PUBLIC:
        errors += [Unauthorized, Forbidden]
    if route.body is not None:
        errors += [BodyTooLarge, UnsupportedMediaType, RequestTimeout]
    if _PARAMETER.search(route.path):
        errors.append(NotFound)
    return errors
