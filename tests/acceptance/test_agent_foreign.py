"""The agent that was written from docs/reference/wire.md alone, against the real coordinator."""

from __future__ import annotations

import datetime
import ipaddress
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from coordinator.client import Client
from coordinator.core.errors import CoordError
from tests.acceptance.processes import Agent, Head, clean_environment, wait_for

SCRIPT = Path(__file__).with_name("foreign_agent.py")


def run_foreign(head: Head, state: Path, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """Run it to its end: exit status and what it reported."""
    done = subprocess.run(
        (sys.executable, str(SCRIPT), head.url, str(state), *options),
        env=clean_environment({"JOIN_TOKEN": head.token("join")}),
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.decode().splitlines()]


class SecureHead(Head):
    """A coordinator with a self-signed certificate, which its join token's fingerprint pins."""

    def __init__(self, directory: Path) -> None:
        cert, key = self_signed(directory)
        super().__init__(directory, "--tls-cert", str(cert), "--tls-key", str(key))

    def client(self) -> Client:
        return Client(self.url, self.token("admin"), pin=self.token("join").partition(".")[2])


def self_signed(directory: Path) -> tuple[Path, Path]:
    """Certificate and key of 127.0.0.1, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "head")])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = directory / "head.pem", directory / "head.key"
    cert_file.write_bytes(cert.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return cert_file, key_file


def test_the_page_is_enough_for_the_real_coordinator(tmp_path: Path) -> None:
    """It enrols, is online with what it reported, leaves cleanly; comes back with its credential; breaks off."""
    with Head(tmp_path) as head, head.start() as client:
        status, report = run_foreign(head, tmp_path / "state", "--beats", "1", "--bye")
        assert status == 0, report
        assert [line["what"] for line in report[:2]] == ["enrolled", "welcome"]
        entry = client.provider("foreign")
        assert entry.labels == {"written-from": "the page"}
        assert entry.heartbeat is not None
        assert entry.heartbeat.backend_state == "foreign"
        assert report[-1] == {"what": "closed", "code": 1001, "reason": "good bye"}

        status, report = run_foreign(head, tmp_path / "state", "--beats", "1")
        assert status == 0, report
        assert report[0]["what"] == "welcome"

        def reasons() -> list[str | None]:
            return [row.disconnect_reason for row in client.sessions("foreign").entries]

        wait_for(lambda: None not in reasons(), "the end of the second session")
        assert reasons() == ["read_error", "clean_close"]

        status, report = run_foreign(head, tmp_path / "other", "--provider-id", "foreign")
        assert (status, report[0]["code"]) == (77, "conflict")


def test_the_page_is_enough_to_run_work_of_the_real_coordinator(tmp_path: Path) -> None:
    """Two jobs go through it: one completes, one fails with its exit status, both with their logs."""
    with Head(tmp_path) as head, head.start() as client:
        good = client.jobs.submit({"command": ["sh", "-c", "echo $COORD_ATTEMPT; echo twice >&2"]})
        bad = client.jobs.submit({"command": ["sh", "-c", "exit 3"], "retry": {"limit": 0}})
        status, report = run_foreign(head, tmp_path / "state", "--work", "2")
        assert status == 0, report
        assert client.jobs.wait(good.job_id, timeout_s=10.0).state == "completed"
        assert client.jobs.wait(bad.job_id, timeout_s=10.0).state == "failed"
        logs = {stream: b"".join(client.jobs.logs(good.job_id, stream=stream)) for stream in ("stdout", "stderr")}
        assert logs == {"stdout": f"{good.job_id}.0.0.1\n".encode(), "stderr": b"twice\n"}


def test_the_fingerprint_of_the_join_token_is_enough_for_tls(tmp_path: Path) -> None:
    """Self-signed certificate: the foreign agent and ours verify it by the pin that the token carries."""
    with SecureHead(tmp_path) as head, head.start() as client:
        assert head.url.startswith("https://")
        status, report = run_foreign(head, tmp_path / "state", "--beats", "1", "--bye")
        assert status == 0, report
        with Agent(tmp_path, head, "ours") as agent:

            def online() -> bool:
                try:
                    return client.provider("ours").liveness == "online"
                except CoordError:
                    return False

            wait_for(online, f"our agent over TLS\n{agent.text()}")
