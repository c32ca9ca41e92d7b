"""Idempotency-Key: the same request again gets the same answer and is not carried out twice.

Answers are kept in memory, bounded in number, size and age; a restart forgets them.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TokenId
from coordinator.service.api.settings import ApiSettings

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
_KEY = re.compile(r"[\x21-\x7e]{1,128}")
_NOT_KEPT = frozenset({401, 403, 408, 429})


@dataclass(frozen=True, slots=True)
class _Kept:
    status: int
    media: str
    body: bytes


@dataclass(slots=True)
class _Entry:
    fingerprint: str
    at_s: float
    answer: asyncio.Future[_Kept | None]


def fingerprint(method: str, target: str, body_digest: str) -> str:
    """What makes two requests the same one."""
    return hashlib.sha256(f"{method} {target} {body_digest}".encode()).hexdigest()


def key_of(request: web.Request) -> str | None:
    """The request's key; None without one. CoordError(BAD_REQUEST) for one that is not taken."""
    keys = request.headers.getall(HEADER, [])
    if not keys:
        return None
    if len(keys) > 1:
        raise CoordError(Code.BAD_REQUEST, f"{HEADER} was given twice", "give it once")
    if not _KEY.fullmatch(keys[0]):
        raise CoordError(Code.BAD_REQUEST, f"this {HEADER} is not taken", "send 1 to 128 visible ASCII characters")
    return keys[0]


class Replays:
    """The answers that may be asked for again. Full: the oldest finished one goes."""

    def __init__(self, settings: ApiSettings, monotonic_s: Callable[[], float]) -> None:
        self._settings = settings
        self._monotonic_s = monotonic_s
        self._entries: OrderedDict[tuple[TokenId, str], _Entry] = OrderedDict()
        self._held: dict[TokenId, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def once(
        self, token_id: TokenId, key: str, same: str, make: Callable[[], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """The answer of `make`, or the one that this token and key got before for the same request.

        CoordError(CONFLICT) when the key came with another request. Answers that a repeat could better
        (5xx, 429), and those too large to keep, are not kept: of those who waited for one, the next one tries.
        """
        self._expire()
        while (entry := self._entries.get((token_id, key))) is not None:
            if entry.fingerprint != same:
                raise CoordError(
                    Code.CONFLICT,
                    f"this {HEADER} came with another request before",
                    "take a fresh key for each request",
                )
            kept = await asyncio.shield(entry.answer)
            if kept is not None:
                return web.Response(
                    status=kept.status, body=kept.body, headers={"Content-Type": kept.media, REPLAYED: "true"}
                )
        return await self._first(token_id, key, same, make)

    async def _first(
        self, token_id: TokenId, key: str, same: str, make: Callable[[], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        entry = _Entry(same, self._monotonic_s(), asyncio.get_running_loop().create_future())
        self._make_room(token_id)
        self._entries[token_id, key] = entry
        self._held[token_id] = self._held.get(token_id, 0) + 1
        kept: _Kept | None = None
        try:
            response = await make()
            kept = self._keep(response)
            return response
        finally:
            entry.answer.set_result(kept)
            if kept is None and self._entries.get((token_id, key)) is entry:
                self._drop(token_id, key)

    def _keep(self, response: web.StreamResponse) -> _Kept | None:
        body = response.body if isinstance(response, web.Response) else None
        if not isinstance(body, bytes) and not (isinstance(response, web.Response) and body is None):
            return None
        if response.status >= 500 or response.status in _NOT_KEPT:
            return None
        plain = body if isinstance(body, bytes) else b""
        if len(plain) > self._settings.remembered_bytes_max:
            return None
        return _Kept(response.status, response.headers.get("Content-Type", "application/json"), plain)

    def _expire(self) -> None:
        oldest_s = self._monotonic_s() - self._settings.remembered_s
        while self._entries:
            (token_id, key), entry = next(iter(self._entries.items()))
            if entry.at_s > oldest_s or not entry.answer.done():
                return
            self._drop(token_id, key)

    def _make_room(self, token_id: TokenId) -> None:
        if self._held.get(token_id, 0) >= self._settings.remembered_per_token_max:
            self._drop_oldest(lambda owner: owner == token_id)
        if len(self._entries) >= self._settings.remembered_max:
            self._drop_oldest(lambda owner: True)

    def _drop_oldest(self, mine: Callable[[TokenId], bool]) -> None:
        for (token_id, key), entry in self._entries.items():
            if mine(token_id) and entry.answer.done():
                self._drop(token_id, key)
                return
        raise CoordError(Code.TOO_MANY, "too many requests with a key are under way", "wait for their answers")

    def _drop(self, token_id: TokenId, key: str) -> None:
        del self._entries[token_id, key]
        left = self._held[token_id] - 1
        if left:
            self._held[token_id] = left
        else:
            del self._held[token_id]
