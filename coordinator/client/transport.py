"""Requests to one coordinator over one connection that is kept: TLS, pins, repeats, and refusals as CoordError.

An answer that is read as it comes has a connection of its own.
"""

from __future__ import annotations

import hmac
import http.client
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from coordinator.client.listening import ASKED_BYTES, Listening
from coordinator.client.refusals import Answer, refusal
from coordinator.client.trust import context_of, speaks_tls
from coordinator.core.errors import Code, CoordError
from coordinator.keypin import pin_of, pin_text

Pieces = Callable[[], Iterator[bytes]]
"""Makes a body anew."""

CHUNK = 256 * 1024
_LOST = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError, ConnectionAbortedError)


class Transport:
    """One coordinator's address, and the connection to it."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca: str | Path | None = None,
        pin: str | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.path not in ("", "/"):
            raise CoordError(
                Code.BAD_CONFIG, f"{url!a} is not the address of a coordinator", "write it as http://HOST:PORT"
            )
        if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
            raise CoordError(Code.BAD_CONFIG, "the token is not one", "a token is one word, as coord-admin-...")
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self.age_s: int | None = None
        """How old the figures of the last answer were; None where that means nothing."""
        self._token = token
        self.timeout_s = timeout_s
        self._host, self._port, self._pin, self._ca = parts.hostname, port, pin, ca
        self._tls = context_of(ca, pin) if parts.scheme == "https" else None
        self._connection: http.client.HTTPConnection | None = None

    def twin(self) -> Transport:
        """Another one for the same coordinator, with a connection of its own: for another thread."""
        return Transport(self.url, self._token, ca=self._ca, pin=self._pin, timeout_s=self.timeout_s)

    def to(self, url: str) -> tuple[Transport, str]:
        """Who serves a signed URL, and what to ask there: ourselves where it is a path, else a stranger, who is shown
        no token."""
        if url.startswith("/"):
            return self, url
        parts = urlsplit(url)
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        return Transport(f"{parts.scheme}://{parts.netloc}", timeout_s=self.timeout_s), target

    def close(self) -> None:
        """Let the connection go. The client may be used again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def send(
        self,
        method: str,
        target: str,
        pieces: Pieces | None,
        length: int,
        media: str,
        timeout_s: float,
        fine: tuple[int, ...] = (200, 201, 204),
        key: str | None = None,
    ) -> bytes:
        """One request. On a kept connection that turns out to be closed it is sent again, once, on a fresh one:
        a POST carries an Idempotency-Key (`key`, else one of its own), so it is carried out once in any case."""
        headers = self._headers("application/json")
        if pieces is not None:
            headers |= {
                "Content-Type": media,
                "Content-Length": str(length),
                "Idempotency-Key": key if key is not None else os.urandom(16).hex(),
            }
        kept = self._connection is not None and length <= CHUNK
        try:
            answer = self._exchange(method, target, pieces, headers, timeout_s)
        except _LOST as error:
            self.close()
            if not kept:
                raise self._broke(error) from error
            try:
                answer = self._exchange(method, target, pieces, headers, timeout_s)
            except _LOST as again:
                self.close()
                raise self._broke(again) from again
        if answer.status in fine:
            return answer.body
        raise refusal(answer, self.url)

    def signed(
        self, method: str, target: str, headers: Mapping[str, str], pieces: Pieces | None, timeout_s: float
    ) -> Answer:
        """One request to a signed URL, which is all that opens it: no token goes along. Whatever is answered is the
        caller's to judge. CoordError(UNREACHABLE, TIMEOUT) when nothing is; it is not sent again."""
        try:
            return self._exchange(method, target, pieces, dict(headers), timeout_s)
        except _LOST as error:
            self.close()
            raise self._broke(error) from error
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(
        self,
        target: str,
        accept: str,
        timeout_s: float,
        extra: Mapping[str, str] | None = None,
        fine: tuple[int, ...] = (200,),
    ) -> Iterator[http.client.HTTPResponse]:
        """A GET whose answer is read as it comes, on a connection of its own; `timeout_s` is for each silence.

        CoordError when it is refused or cannot be sent; what goes wrong while reading is the caller's to judge.
        """
        connection = self._open(timeout_s)
        response: http.client.HTTPResponse | None = None
        try:
            try:
                connection.request("GET", target, headers={**self._headers(accept), **(extra or {})})
                response = connection.getresponse()
                body = b"" if response.status in fine else response.read()
            except _LOST as error:
                raise self._broke(error) from error
            except TimeoutError as error:
                raise self._silent(timeout_s) from error
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(str(error) or type(error).__name__) from error
            if response.status not in fine:
                raise refusal(Answer(response.status, response.headers, body), self.url)
            yield response
        finally:
            if response is not None:
                response.close()  # it may own the socket
            connection.close()

    def _headers(self, accept: str) -> dict[str, str]:
        headers = {"Accept": accept}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        return headers

    def _exchange(
        self,
        method: str,
        target: str,
        pieces: Pieces | None,
        headers: dict[str, str],
        timeout_s: float,
    ) -> Answer:
        try:
            connection = self._connected(timeout_s)
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if int(headers.get("Content-Length", 0)) >= ASKED_BYTES and method == "PUT":
                connection.putheader("Expect", "100-continue")
                connection.endheaders()
                broken, response = self._send_listening(Listening(connection, method), pieces)
            else:
                connection.endheaders()
                broken = self._send_body(connection, pieces)
                response = connection.getresponse()
            body = response.read()
        except _LOST:
            raise
        except TimeoutError as error:
            self.close()
            raise self._silent(timeout_s) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unreachable(str(error) or type(error).__name__) from error
        age = response.headers.get("Age", "")
        self.age_s = int(age) if age.isdigit() else None
        if broken or response.will_close:
            self.close()
        return Answer(response.status, response.headers, body)

    def _send_body(self, connection: http.client.HTTPConnection, pieces: Pieces | None) -> bool:
        """Whether the other side stopped listening: it has answered already, and that answer is what counts."""
        try:
            for piece in pieces() if pieces is not None else ():
                connection.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            return True
        return False

    def _send_listening(self, listening: Listening, pieces: Pieces | None) -> tuple[bool, http.client.HTTPResponse]:
        """Whether the answer came before the end of the body, and the answer."""
        broken = False
        try:
            broken = not listening.may_send() or not listening.send(pieces() if pieces is not None else iter(()))
        except (BrokenPipeError, ConnectionResetError):
            broken = True
        except BaseException:
            listening.close()
            raise
        return broken, listening.answer()

    def _connected(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._connection is None:
            self._connection = self._open(timeout_s)
        self._connection.sock.settimeout(timeout_s)
        return self._connection

    def _open(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        else:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._tls)
        try:
            connection.connect()
            if self._pin is not None:
                self._check_pin(connection)
        except TimeoutError as error:
            connection.close()
            raise self._unreachable(f"no connection within {timeout_s:g} s") from error
        except CoordError:
            connection.close()
            raise
        except OSError as error:
            connection.close()
            raise self._refused(error) from error
        return connection

    def _silent(self, timeout_s: float) -> CoordError:
        return CoordError(
            Code.TIMEOUT, f"{self.url} gave no answer within {timeout_s:g} s", "is it overloaded? coord alerts"
        )

    def _check_pin(self, connection: http.client.HTTPConnection) -> None:
        """Nothing was sent yet: a stranger does not even see the token."""
        assert self._pin is not None and isinstance(connection.sock, ssl.SSLSocket)
        certificate = connection.sock.getpeercert(binary_form=True)
        found = pin_text(pin_of(certificate)) if certificate else ""
        if not hmac.compare_digest(found, self._pin.rstrip("=")):
            raise CoordError(
                Code.UNREACHABLE,
                f"{self.url} has another key than the pinned one",
                "take the fingerprint anew from a join token made there, or find out who answers",
            )

    def _unreachable(
        self, why: str, hint: str = "start one with coord serve, or name the right one in COORD_URL"
    ) -> CoordError:
        return CoordError(Code.UNREACHABLE, f"no coordinator answers at {self.url}: {why}", hint)

    def _refused(self, error: OSError) -> CoordError:
        """Why a connection was not made."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return CoordError(
                Code.UNREACHABLE,
                f"the certificate of {self.url} is not trusted: {error.verify_message}",
                "name its authority, or the certificate itself, with --ca; an agent enrols with the fingerprint in "
                "its join token",
            )
        if isinstance(error, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(error.reason):
            return self._unreachable("it does not speak TLS", f"write http{self.url.removeprefix('https')}")
        return self._unreachable(error.strerror or str(error))

    def _broke(self, error: Exception) -> CoordError:
        """Why a connection that was made brought no answer."""
        if self._tls is None and speaks_tls(self._host, self._port or 80):
            return self._unreachable("it speaks TLS", f"write https{self.url.removeprefix('http')}")
        return self._unreachable(f"the connection broke: {error}")
