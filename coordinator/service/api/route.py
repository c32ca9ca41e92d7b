"""What a route is: who may take it, what it takes, what it answers. Everything about it is said here once.

The door, validation, /openapi.json, the reference page's test and the test that walks every route x method
x role are all driven by these. A route that names no roles cannot be made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial, update_wrapper
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec
from aiohttp import web

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms, ProviderId, check_name
from coordinator.core.rows import Role, TokenRow
from coordinator.ports.analytics import Answer
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.query import NoQuery
from coordinator.service.api.uploads import Upload
from coordinator.service.data.signing import SignedQuery

Q = TypeVar("Q", bound=msgspec.Struct)
B = TypeVar("B")

PUBLIC: Final = "public"
PUBLIC_PATHS = frozenset({"/healthz", "/readyz"})
"""The only paths that may be marked public: they say that the process is there, and nothing about the fleet."""
SIGNED: Final = "signed"
SIGNED_PATHS = frozenset({"/v1/blobs/{tenant}/{digest}", "/v1/uploads/{id}"})
"""The only paths that a signature in the query opens, instead of a token: it names one object, and expires."""
Openness = Literal["public", "signed"]

READERS = frozenset({Role.ADMIN, Role.READ_ONLY})
TENANTS = frozenset({Role.ADMIN, Role.TENANT})
"""Those who have jobs run."""
ONLOOKERS = READERS | TENANTS
"""Those who may see jobs: a tenant its own."""
ADMINS = frozenset({Role.ADMIN})


WITH_BODY = frozenset({"POST", "PATCH"})


class NoBody(msgspec.Struct, frozen=True, kw_only=True):
    """A route without a body."""


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that is bytes already."""

    body: bytes
    media: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, B]):
    """One admitted, validated request."""

    deps: ApiDeps
    request: web.Request
    token: TokenRow | None
    """Who asks; None on public and signed paths alone."""
    query: Q
    body: B
    now_ms: Ms

    def name(self, parameter: str = "id") -> str:
        """The name in the path. What could name nothing is not found."""
        text = self.request.match_info[parameter]
        try:
            return check_name(text, "thing")
        except CoordError as error:
            raise CoordError(Code.NOT_FOUND, error.message, error.hint) from None

    @property
    def provider_id(self) -> ProviderId:
        return ProviderId(self.name())


Result = msgspec.Struct | Ready | web.StreamResponse | None
Handler = Callable[[Call[Q, B]], Awaitable[Result]]
Answers = (
    type[msgspec.Struct]
    | Literal[
        "text/plain",
        "text/event-stream",
        "application/octet-stream",
        "application/x-ndjson",
        "application/x-protobuf",
        "websocket",
    ]
    | None
)


@dataclass(frozen=True, slots=True)
class Route(Generic[Q, B]):
    """One method on one path. `answer` None: 204 without a body."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    roles: frozenset[Role] | Openness
    handler: Handler[Q, B]
    summary: str
    query: type[Q]
    body: type[B]
    answer: Answers
    _: KW_ONLY
    status: int = 200
    nullable: bool = False
    """The answer may be JSON null."""
    streams: bool = False
    """Asked with `Accept: text/event-stream` it answers an event stream."""
    model: type[msgspec.Struct] | None = None
    """What a body that its handler takes apart itself looks like."""
    csv: bool = False
    """Asked with `Accept: text/csv` it answers that."""
    durable_keys: bool = False
    """The handler sees to Idempotency-Key itself, beyond a restart."""
    long: bool = False
    """Its body may be as large as a job's."""
    media: tuple[str, ...] = ()
    """What may be sent, where its body is the handler's to read."""

    def __post_init__(self) -> None:
        if not self.roles:
            raise ValueError(f"{self.method} {self.path} names no role: nobody could be meant")
        if self.roles == PUBLIC and self.path not in PUBLIC_PATHS:
            raise ValueError(f"{self.method} {self.path} may not be public")
        if self.roles == SIGNED and (self.path not in SIGNED_PATHS or self.query is not SignedQuery):
            raise ValueError(f"{self.method} {self.path} may not be opened by a signature")
        if self.body is not NoBody and self.method not in WITH_BODY:
            raise ValueError(f"{self.method} {self.path} takes no body")

    @property
    def operation(self) -> str:
        """A name for this route: the handler's."""
        return getattr(self.handler, "__name__", self.path)

    @property
    def body_model(self) -> type[Any]:
        """What describes the body."""
        return self.model if self.model is not None else self.body

    @property
    def takes_upload(self) -> bool:
        return self.body is Upload

    @property
    def takes_bytes(self) -> bool:
        """Its body is handed to the handler as it comes."""
        return self.method == "PUT" or bool(self.media)

    @property
    def pattern(self) -> str:
        """The path as aiohttp matches it: a file's may have several parts."""
        return self.path.replace("{path}", "{path:.+}")


AnyRoute = Route[Any, Any]


def get(
    path: str,
    roles: frozenset[Role] | Openness,
    handler: Handler[Q, NoBody],
    answer: Answers,
    summary: str,
    query: type[Q],
    *,
    nullable: bool = False,
    streams: bool = False,
    csv: bool = False,
) -> AnyRoute:
    """A GET route; its handler's types are checked against `query`."""
    return Route(
        "GET", path, roles, handler, summary, query, NoBody, answer, nullable=nullable, streams=streams, csv=csv
    )


def patch(
    path: str,
    roles: frozenset[Role],
    handler: Handler[NoQuery, B],
    answer: Answers,
    summary: str,
    body: type[B],
) -> AnyRoute:
    """A PATCH route: what its body does not name stays, and twice is once."""
    return Route("PATCH", path, roles, handler, summary, NoQuery, body, answer)


def post(
    path: str,
    roles: frozenset[Role],
    handler: Handler[NoQuery, B],
    answer: Answers,
    summary: str,
    body: type[B],
    *,
    status: int = 200,
    long: bool = False,
) -> AnyRoute:
    """A POST route; its handler's types are checked against `body`."""
    return Route("POST", path, roles, handler, summary, NoQuery, body, answer, status=status, long=long)


def receiving(
    path: str,
    roles: frozenset[Role],
    handler: Handler[NoQuery, NoBody],
    answer: Answers,
    summary: str,
    *media: str,
) -> AnyRoute:
    """A POST route whose handler reads its body as it comes, announced as one of `media`."""
    return Route("POST", path, roles, handler, summary, NoQuery, NoBody, answer, media=media)


def post_model(
    path: str,
    roles: frozenset[Role],
    handler: Handler[Q, dict[str, Any]],
    answer: Answers,
    summary: str,
    query: type[Q],
    model: type[msgspec.Struct],
    *,
    status: int = 200,
    durable_keys: bool = False,
) -> AnyRoute:
    """A POST route whose handler checks its body itself, which looks like `model`."""
    return Route(
        "POST",
        path,
        roles,
        handler,
        summary,
        query,
        dict,
        answer,
        model=model,
        status=status,
        durable_keys=durable_keys,
    )


def signed(
    method: Literal["GET", "HEAD", "PUT"],
    path: str,
    handler: Handler[SignedQuery, NoBody],
    answer: Answers,
    summary: str,
    *,
    status: int = 200,
) -> AnyRoute:
    """A route that a signed URL opens. A PUT's body is the handler's to read."""
    return Route(method, path, SIGNED, handler, summary, SignedQuery, NoBody, answer, status=status)


def delete(path: str, roles: frozenset[Role], handler: Handler[NoQuery, NoBody], summary: str) -> AnyRoute:
    """A DELETE route: 204."""
    return delete_with(path, roles, handler, None, summary, NoQuery, status=204)


def delete_with(
    path: str,
    roles: frozenset[Role],
    handler: Handler[Q, NoBody],
    answer: Answers,
    summary: str,
    query: type[Q],
    *,
    status: int = 200,
) -> AnyRoute:
    """A DELETE route that answers how it stands now."""
    return Route("DELETE", path, roles, handler, summary, query, NoBody, answer, status=status)


def keeping(handler: Any, *parts: object, **named: object) -> Any:
    """`handler` with the parts that it keeps between requests, under its own name."""
    return update_wrapper(partial(handler, *parts, **named), handler)


def figures(answer: Answer, now_ms: Ms) -> Ready:
    """An answer of analytics as it is, with the age of its figures."""
    age_s = max(0, now_ms - answer.computed_at_ms) // 1_000
    return Ready(body=answer.json, headers={"Age": str(age_s)})
