"""`coord serve` and `coord up` as processes: how they start, refuse to, and end."""

from __future__ import annotations

import signal
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.client import Client
from coordinator.core.errors import Code, CoordError
from tests.acceptance.cli_runs import Coord, Server
from tests.acceptance.processes import COORD, Agent, clean_environment, wait_for


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def liveness(client: Client) -> dict[str, str]:
    return {entry.provider_id: entry.liveness for entry in client.providers().entries}


def test_the_first_start_makes_a_private_directory_that_local_clients_find(tmp_path: Path) -> None:
    """0700, tokens 0600, the address told; no token is in any log line."""
    with Server(tmp_path) as head:
        head.start()
        assert mode(head.data) == 0o700
        assert {mode(head.data / "tokens" / name) for name in ("admin.token", "join.token")} == {0o600}
        assert Coord(head.data)("providers", "list", "-o", "json").json() == {"entries": [], "next_page": None}
        assert head.url in head.text()
        assert head.token("admin") not in head.text() and head.token("join") not in head.text()


def test_every_way_to_end_it_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM end it in order: status 0, the address withdrawn. After those and after kill -9, tokens
    and pools are there again at the next start, and nothing is to be cleaned up by hand."""
    with Server(tmp_path) as head:
        client = head.start()
        token = head.token("admin")
        for number, code in ((signal.SIGINT, 0), (signal.SIGKILL, -9), (signal.SIGTERM, 0)):
            client.create_pool(f"after-{number}")
            head.signal(number)
            assert head.wait() == code
            assert (head.data / "address").exists() == (number is signal.SIGKILL)
            refused = Coord(head.data)("providers", "list")
            assert refused.code == 69 and ("coord up" in refused.err or "coord serve" in refused.err)
            client = head.start()
            assert head.token("admin") == token
            assert f"after-{number}" in {pool.name for pool in client.pools().entries}


def test_ctrl_c_with_agents_and_open_requests_is_quick_and_tells_the_agents(tmp_path: Path) -> None:
    """The agent hears that the coordinator goes away and comes back to the next one with the same session."""
    with Server(tmp_path) as head:
        client = head.start()
        with Agent(tmp_path, head, "w1"):
            wait_for(lambda: liveness(client) == {"w1": "online"}, "the agent being online")
            before = [entry.session_id for entry in client.sessions("w1").entries]
            client.close()
            head.signal(signal.SIGINT)
            assert head.wait(8) == 0
            client = head.start()
            wait_for(lambda: liveness(client) == {"w1": "online"}, "the agent being back")
            assert [entry.session_id for entry in client.sessions("w1").entries] == before


def test_a_second_server_on_one_directory_is_refused_by_name(tmp_path: Path) -> None:
    """Status 73, the holder's pid, what to do; the first one's address stays."""
    with Server(tmp_path) as head:
        client = head.start()
        second = Coord(head.data)("serve", "--listen", "127.0.0.1:0")
        assert second.code == 73
        assert str(head.pid) in second.err and "--data" in second.err
        assert (head.data / "address").read_text().strip() == head.url
        assert client.healthz().status == "ok"


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("--listen", "7070"), 78, "HOST:PORT"),
        (("--listen", "127.0.0.1:99999"), 78, "HOST:PORT"),
        (("--listen", "0.0.0.0:0"), 78, "--insecure-listen"),
        (("--tls-cert", "cert.pem"), 78, "--tls-key"),
        (("--tls-cert", "none.pem", "--tls-key", "none.pem"), 78, "no certificate file none.pem"),
        (("--set", "policy.lost_after_ms=1s"), 78, "6 heartbeat intervals"),
        (("--set", "policy.lost_aftr_ms=1s"), 78, "lost_after_ms"),
        (("--set", "nonsense"), 78, "--set"),
        (("--config", "none.toml"), 78, "none.toml"),
        (("--data", "/proc/1/nope"), 78, "--data"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_is_made(
    tmp_path: Path, argv: tuple[str, ...], code: int, said: str
) -> None:
    """The message names the setting and what to write; no directory is left."""
    data = tmp_path / "data"
    done = Coord(data)("serve", "--listen", "127.0.0.1:0", *argv)
    assert done.code == code, done.err
    assert said in done.err and "Traceback" not in done.err
    assert not data.exists()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """Status 73 (a supervisor may try again), port 0 as the way out, and no new directory is left."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = Coord(tmp_path / "data")("serve", "--listen", f"127.0.0.1:{port}")
    assert done.code == 73
    assert not (tmp_path / "data").exists()
    assert str(port) in done.err and "port 0" in done.err and "Traceback" not in done.err


def test_a_damaged_database_ends_it_with_70_and_names_the_way_back(tmp_path: Path) -> None:
    """Nothing is made in its place."""
    with Server(tmp_path) as head:
        head.start().create_pool("lab")
        head.signal(signal.SIGTERM)
        assert head.wait() == 0
        truth = head.data / "truth.sqlite"
        size = truth.stat().st_size
        with truth.open("r+b") as file:
            file.write(b"\xff" * 4096)
        done = Coord(head.data)("serve", "--listen", "127.0.0.1:0")
        assert done.code == 70, done.err
        assert "coord db restore" in done.err
        assert truth.stat().st_size == size


def certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = directory / f"{name}.pem", directory / f"{name}.key"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file


def test_tls_is_pinned_by_the_join_token_for_agents_and_local_commands(tmp_path: Path) -> None:
    """A self-signed certificate is enough; strangers' certificates and plain HTTP are refused."""
    cert, key = certificate(tmp_path, "head")
    with Server(tmp_path, "--tls-cert", str(cert), "--tls-key", str(key)) as head:
        client = head.start()
        assert head.url.startswith("https://")
        with Agent(tmp_path, head, "w1"):
            wait_for(lambda: liveness(client) == {"w1": "online"}, "the agent being online over TLS")
        here = Coord(head.data)
        assert here("providers", "list", "-o", "name").out == "w1\n"
        assert here("providers", "list", "-o", "name", "--ca", str(cert)).out == "w1\n"
        elsewhere = {"COORD_DATA": str(tmp_path / "none"), "COORD_URL": head.url, "COORD_TOKEN": head.token("admin")}
        refused = here("providers", "list", env=elsewhere)
        assert refused.code == 69 and "--ca" in refused.err
        assert here("providers", "list", "--ca", str(cert), env=elsewhere).code == 0
        with pytest.raises(CoordError) as wrong:
            Client(head.url, "x", pin="A" * 43).providers()
        assert wrong.value.code is Code.UNREACHABLE
        plain = here("providers", "list", "--url", head.url.replace("https", "http"), env={"COORD_TOKEN": "x"})
        assert plain.code == 69


def test_another_tls_key_makes_another_join_token(tmp_path: Path) -> None:
    """The token in the directory always carries the key that the server has."""
    first, second = certificate(tmp_path, "one"), certificate(tmp_path, "two")
    tokens = []
    for cert, key in (first, first, second):
        with Server(tmp_path, "--tls-cert", str(cert), "--tls-key", str(key)) as head:
            head.start()
            tokens.append(head.token("join"))
            assert ssl.get_server_certificate(("127.0.0.1", int(head.url.rpartition(":")[2])))
    assert tokens[0] == tokens[1] != tokens[2]
    assert tokens[0].partition(".")[2] != tokens[2].partition(".")[2]


class Up(Server):
    """`coord up`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.argv = (*COORD, "up", "--data", str(self.data), "--listen", "127.0.0.1:0", "--provider-id", "here")


def children(pid: int) -> list[int]:
    done = subprocess.run(("pgrep", "-P", str(pid)), capture_output=True, text=True, check=False)
    return [int(line) for line in done.stdout.split()]


def test_up_is_a_coordinator_and_an_agent_and_both_end_together(tmp_path: Path) -> None:
    """Ctrl-C of one command ends both, the agent with a good-bye; even kill -9 leaves no agent behind."""
    with Up(tmp_path) as up:
        client = up.start()
        wait_for(lambda: liveness(client) == {"here": "online"}, "the local agent being online")
        assert "for one user" in up.text()
        assert f"--state {up.data / 'agent'}" in up.text()
        assert children(up.pid)
        client.close()
        up.signal(signal.SIGINT)
        assert up.wait() == 0
        client = up.start()
        wait_for(lambda: liveness(client) == {"here": "online"}, "the local agent being back")
        reasons = {entry.disconnect_reason for entry in client.sessions("here").entries}
        assert reasons <= {None, "clean_close", "draining"}
        agents = children(up.pid)
        assert up.popen is not None
        up.popen.kill()
        up.popen.wait()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in agents), "the agent ending too")


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Status 128 + the signal while the orderly stop still waits for an open request."""
    with Server(tmp_path, "--set", "server.shutdown_s=30s", "--set", "serve.stop_within_s=30s") as head:
        head.start()
        port = int(head.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as half:
            half.sendall(
                b"POST /v1/pools HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer "
                + head.token("admin").encode()
                + b"\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
            )
            wait_for(lambda: _open_requests(head) > 0, "the half-sent request being open")
            head.signal(signal.SIGTERM)
            wait_for(lambda: "stopping" in head.text(), "the stop beginning")
            head.signal(signal.SIGTERM)
            assert head.wait(20) == 128 + signal.SIGTERM


def _open_requests(head: Server) -> float:
    with head.connect() as client:
        for line in client.metrics().splitlines():
            if line.startswith("coord_http_open_requests "):
                return float(line.split()[1]) - 1  # our own
    return 0.0


def test_a_process_that_is_not_ours_is_never_taken_for_the_packages(tmp_path: Path) -> None:
    """A `store` that somebody else left on the path is named, with what to do."""
    intruder = tmp_path / "store"
    intruder.mkdir()
    (intruder / "__init__.py").write_text("")
    done = subprocess.run(
        (sys.executable, "-P", "-m", "cli", "--version"),
        env=clean_environment({"PYTHONPATH": str(tmp_path)}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 71
    assert str(intruder) in done.stderr and "PYTHONPATH" in done.stderr
