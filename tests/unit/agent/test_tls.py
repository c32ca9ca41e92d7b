"""Trust: an authority, a pinned key, or loopback; nothing secret leaves before it is checked."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from coordinator.agent.config import AgentConfig
from coordinator.agent.exits import AgentStop, Exit
from coordinator.agent.tls import parse_join_token, parse_url
from coordinator.keypin import pin_of, pin_text
from tests.unit.agent.agents import a_config, a_daemon, eventually
from tests.unit.agent.coordinator_side import JOIN, CoordinatorSide, coordinator_side


class Pair(NamedTuple):
    """A certificate of 127.0.0.1 in a file, and the server's context."""

    cert: Path
    context: ssl.SSLContext
    pin: bytes


def a_pair(directory: Path, key: ec.EllipticCurvePrivateKey, serial: int) -> Pair:
    """Self-signed; another `serial` is a renewed certificate."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coordinator")])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = directory / f"{serial}.pem", directory / f"{serial}.key"
    cert_file.write_bytes(cert.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    return Pair(cert_file, context, pin_of(cert.public_bytes(Encoding.DER)))


def a_tls_config(side: CoordinatorSide, state: Path, **changes: object) -> AgentConfig:
    return a_config(side, state, coordinator=f"https://127.0.0.1:{side.port}", **changes)


def test_the_pin_of_the_join_token_lets_a_self_signed_coordinator_in(tmp_path: Path) -> None:
    """The pin is kept at enrolment; a renewed certificate with the same key is accepted without it."""

    async def go() -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        pair = a_pair(tmp_path, key, 1)
        async with coordinator_side(pair.context) as side:
            token = f"{JOIN}.{pin_text(pair.pin)}"
            async with a_daemon(a_tls_config(side, tmp_path / "s", join_token=token)):
                await side.until(lambda: bool(side.beats))
                assert side.bearers[0] == f"Bearer {token}"
                await side.stop()
                await side.start(a_pair(tmp_path, key, 2).context)
                await side.until(lambda: len(side.hellos) == 2)

    asyncio.run(go())


def test_another_key_than_the_pinned_one_is_told_no_secret(tmp_path: Path) -> None:
    """Whoever answers with another key sees neither the join token nor the credential."""

    async def go() -> None:
        pair = a_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()), 1)
        imposter = a_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()), 2)
        async with coordinator_side(pair.context) as side:
            token = f"{JOIN}.{pin_text(pair.pin)}"
            async with a_daemon(a_tls_config(side, tmp_path / "s", join_token=token)) as running:
                await side.until(lambda: bool(side.beats))
                await side.stop()
                side.bearers.clear()
                await side.start(imposter.context)
                assert await eventually(lambda: "not the one" in running.daemon.status().last_problem)
            async with a_daemon(a_tls_config(side, tmp_path / "t", join_token=token)) as running:
                assert await eventually(lambda: "not the one" in running.daemon.status().last_problem)
            assert side.bearers == []

    asyncio.run(go())


def test_without_pin_or_authority_a_self_signed_coordinator_is_refused(tmp_path: Path) -> None:
    """The system's authorities do not know it; with `ca` it is trusted."""

    async def go() -> None:
        pair = a_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()), 1)
        async with coordinator_side(pair.context) as side:
            async with a_daemon(a_tls_config(side, tmp_path / "s")) as running:
                assert await eventually(lambda: "certificate" in running.daemon.status().last_problem.lower())
                assert side.bearers == []
            async with a_daemon(a_tls_config(side, tmp_path / "t", ca=str(pair.cert))):
                await side.until(lambda: bool(side.beats))

    asyncio.run(go())


def test_join_tokens_are_taken_apart() -> None:
    """The whole is sent, the part behind the dot is the SHA-256 of the key."""
    assert parse_join_token(f" {JOIN}\n") == (JOIN, None)
    text = f"{JOIN}.{pin_text(b'k' * 32)}"
    assert parse_join_token(text) == (text, b"k" * 32)


@pytest.mark.parametrize("text", ["", "coord-admin-0123456789", f"{JOIN}.short", f"{JOIN}..", f"{JOIN} x", f"{JOIN}é"])
def test_a_damaged_join_token_is_refused_without_being_shown(text: str) -> None:
    """The message has the form that is wanted, not the text that was given."""
    with pytest.raises(AgentStop) as stop:
        parse_join_token(text)
    assert stop.value.exit_code is Exit.CONFIG
    assert not text or text not in str(stop.value)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:7070", "http://127.0.0.1:7070"),
        ("http://localhost:7070/", "http://localhost:7070"),
        ("http://[::1]:7070", "http://[::1]:7070"),
        ("https://head.example", "https://head.example:443"),
        ("http://127.8.9.1", "http://127.8.9.1:80"),
    ],
)
def test_urls_of_coordinators(text: str, url: str) -> None:
    """Plain http to this machine, https to any."""
    assert parse_url(text, insecure=False).url() == url


@pytest.mark.parametrize("text", ["http://head:7070", "http://10.0.0.1:7070", "http://127.0.0.1.example:7070"])
def test_plain_http_to_another_machine_needs_a_word(text: str) -> None:
    """The credential does not travel unencrypted unless somebody said so."""
    with pytest.raises(AgentStop, match="unencrypted"):
        parse_url(text, insecure=False)
    assert not parse_url(text, insecure=True).secure


@pytest.mark.parametrize(
    "text",
    ["", "head:7070", "ftp://head", "https://", "https://me:secret@head", "https://head/path", "https://h:99999"],
)
def test_what_is_no_url_of_a_coordinator_is_refused(text: str) -> None:
    """Before anything is done with it, and without showing a password in it."""
    with pytest.raises(AgentStop) as stop:
        parse_url(text, insecure=True)
    assert stop.value.exit_code is Exit.CONFIG
    assert "secret" not in str(stop.value)
