"""Enrolment: a join token becomes an identity of this machine, once."""

from __future__ import annotations

import re
import socket

import aiohttp
import msgspec
from msgspec import Struct

from coordinator import wire
from coordinator.agent.closing import Ended, Then, on_http_status
from coordinator.agent.config import AgentConfig
from coordinator.agent.exits import AgentStop, Exit
from coordinator.agent.reaching import hint_for
from coordinator.agent.state_dir import Identity
from coordinator.agent.tls import Endpoint, JoinToken, PinMismatch, Trust
from coordinator.keypin import pin_text

ANSWER_BYTES_MAX = 64 * 1024


class _Problem(Struct):
    detail: str = ""
    code: str = ""
    hint: str = ""


class EnrolFailed(Exception):
    """This try did not work; `ended` says what follows."""

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended.why)
        self.ended = ended


def default_provider_id() -> str:
    """The host's name, made fit to be an id."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname())[:64].strip("-._")
    return name or "provider"


async def enrol(
    http: aiohttp.ClientSession,
    endpoint: Endpoint,
    trust: Trust,
    token: JoinToken,
    machine_id: str,
    config: AgentConfig,
) -> Identity:
    """Ask for an identity. Raises EnrolFailed when another try may work, AgentStop when only a person can help."""
    asked = wire.EnrolRequest(
        provider_id=config.provider_id or default_provider_id(), machine_id=machine_id, pool=config.pool or None
    )
    try:
        async with http.post(
            endpoint.url(wire.ENROL_PATH),
            data=msgspec.json.encode(asked),
            headers={"Authorization": f"Bearer {token.bearer}", "Content-Type": "application/json"},
            ssl=await trust.for_aiohttp(),
            allow_redirects=False,
        ) as response:
            body = b""
            async for part in response.content.iter_chunked(ANSWER_BYTES_MAX):
                body += part
                if len(body) > ANSWER_BYTES_MAX:
                    break
            status = response.status
    except (aiohttp.ClientError, OSError, TimeoutError, PinMismatch) as error:
        trust.forget_certificate()
        why, hint = str(error) or type(error).__name__, hint_for(error, endpoint.url())
        raise EnrolFailed(Ended(then=Then.RETRY, why=why, hint=hint)) from None
    if status not in (200, 201):
        raise _refusal(status, body, asked.provider_id)
    try:
        answer = msgspec.json.decode(body, type=wire.EnrolAnswer)
    except msgspec.DecodeError as error:
        raise EnrolFailed(
            Ended(then=Then.LATER, why=f"the answer to the enrolment was not understood: {error}")
        ) from None
    return Identity(
        provider_id=answer.provider_id,
        machine_id=machine_id,
        pool=answer.pool,
        coordinator=endpoint.url(),
        credential=answer.credential,
        pin=pin_text(token.pin) if token.pin is not None and endpoint.secure else "",
    )


def _refusal(status: int, body: bytes, provider_id: str) -> Exception:
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except msgspec.DecodeError:
        problem = _Problem()
    if status == 409 and problem.code == "conflict":
        return AgentStop(Exit.CLASH, problem.detail or f"the id {provider_id} is taken", problem.hint)
    if status in (401, 403):
        detail = problem.detail or f"the join token was refused (HTTP {status})"
        hint = problem.hint or "it may have expired or been revoked: coord token create --role join"
        exit_code = Exit.CLASH if problem.code == "machine_mismatch" else Exit.REFUSED
        return AgentStop(exit_code, detail, hint)
    if status in (400, 404, 422) and problem.code:
        return AgentStop(Exit.CONFIG, f"enrolment refused: {problem.detail}", problem.hint)
    return EnrolFailed(on_http_status(status, problem.detail))
