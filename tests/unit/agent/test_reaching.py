"""What the agent's log says to do about a coordinator that it does not reach."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from coordinator.agent.reaching import hint_for
from tests.unit.api.test_client import certificate


async def failure(scheme: str, tls: ssl.SSLContext | None) -> tuple[BaseException, str]:
    """How a request with `scheme` fails at a server that speaks TLS, or not."""
    runner = web.AppRunner(web.Application())
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession() as http:
            with pytest.raises(aiohttp.ClientError) as caught:
                await http.get(url)
        return caught.value, url
    finally:
        await runner.cleanup()


def test_the_other_scheme_and_an_untrusted_certificate_are_told_apart(tmp_path: Path) -> None:
    """Each failure of a real server has its own way out."""
    pem, key, _ = certificate(tmp_path, "ours")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem, key)
    assert "--ca" in hint_for(*asyncio.run(failure("https", tls)))
    error, url = asyncio.run(failure("http", tls))
    assert f"write {url.replace('http', 'https')}" in hint_for(error, url)
    error, url = asyncio.run(failure("https", None))
    assert f"write {url.replace('https', 'http')}" in hint_for(error, url)


def test_nobody_there_needs_no_such_hint() -> None:
    async def run() -> BaseException:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            url = f"http://127.0.0.1:{gone.getsockname()[1]}"
        async with aiohttp.ClientSession() as http:
            with pytest.raises(aiohttp.ClientError) as caught:
                await http.get(url)
        return caught.value

    assert hint_for(asyncio.run(run()), "http://127.0.0.1:1") == ""
