"""Transcripts: who does what, line by line, and what the core makes of it. Read as tables, compared as text.

A script line is `SECONDS WORDS`; `until SECONDS [beating CONN ...]` lets time go by. Told back, each line is
followed by what it led to, indented, with the second in which it happened. `new PROVIDER ...` and `PROVIDER joins
as CONN PROCESS in session NUMBER` stand for a line and what it always leads to.
"""

from __future__ import annotations

from coordinator.core import commands, events
from coordinator.core.errors import CoordError
from coordinator.core.rows import OutageRow
from tests.builders import START_MS, Fleet, an_enrolment


class Stage:
    """One fleet, and the tale of it."""

    def __init__(self) -> None:
        self.fleet = Fleet()
        self.told: list[str] = []
        self._seen = len(self.fleet.decisions)
        self._liveness: dict[str, str] = {}
        self._full = False
        self._mark = 0

    def play(self, line: str) -> None:
        seconds, _, words = line.partition(" ")
        self.told.append(line)
        if seconds == "until":
            until, _, rest = words.partition(" beating ")
            self._pass_time(float(until), [int(conn) for conn in rest.split()])
        else:
            self.fleet.at(float(seconds))
            self._act(words.split())
            self._tell()

    def _pass_time(self, until_s: float, conns: list[int]) -> None:
        while self.fleet.now_s + 1 <= until_s:
            self.fleet.run_to(self.fleet.now_s + 1, conns)
            self._tell()

    def _act(self, words: list[str]) -> None:
        fleet, durable = self.fleet, not self._full
        match words:
            case ["enrol", provider]:
                fleet.decide(an_enrolment(provider, at_ms=fleet.now_ms), durable)
            case ["hello", provider, conn, process]:
                fleet.hello(int(conn), provider, process=process, durable=durable)
            case ["hello", provider, conn, process, "key", key]:
                fleet.hello(int(conn), provider, process=process, key=key, durable=durable)
            case ["beat", *conns]:
                fleet.beat(*(int(conn) for conn in conns))
            case ["pong", conn]:
                fleet.pong(int(conn))
            case ["bye", conn]:
                fleet.bye(int(conn), durable=durable)
            case ["bye", conn, "draining"]:
                fleet.bye(int(conn), draining=True, durable=durable)
            case ["closed", conn]:
                fleet.closed(int(conn), durable)
            case ["tick"]:
                fleet.tick()
            case ["stalled", length]:
                fleet.tick(stalled_s=float(length))
            case ["stopping"]:
                fleet.decide(events.Stopping(at_ms=fleet.now_ms))
            case ["serves", "again"]:
                fleet.restart(fleet.now_s)
            case ["drain", provider]:
                who = fleet.provider(provider).row.provider_id
                fleet.decide(events.ProviderDrain(at_ms=fleet.now_ms, request_id=fleet.request(), provider_id=who))
            case ["resume", provider]:
                who = fleet.provider(provider).row.provider_id
                fleet.decide(events.ProviderResume(at_ms=fleet.now_ms, request_id=fleet.request(), provider_id=who))
            case ["forget", provider]:
                who = fleet.provider(provider).row.provider_id
                fleet.decide(events.ProviderForget(at_ms=fleet.now_ms, request_id=fleet.request(), provider_id=who))
            case ["disk", "full"]:
                self._full, self._mark = True, len(fleet.decisions)
            case ["rolled", "back"]:
                self._full = False
                fleet.disk_was_full(*fleet.decisions[self._mark :])
            case _:
                raise AssertionError(f"nobody knows how to {' '.join(words)}")

    def _tell(self) -> None:
        for decision in self.fleet.decisions[self._seen :]:
            for fact in self._facts(decision):
                self.told.append(f"    {self.fleet.now_s:g}: {fact}")
        self._seen = len(self.fleet.decisions)

    def _facts(self, decision: commands.Decision) -> list[str]:
        facts = [_reply(reply) for reply in decision.replies]
        for write in decision.writes:
            if isinstance(write, commands.Put) and isinstance(write.row, OutageRow):
                facts.append(f"unobserved since {_s(write.row.began_at_ms)} ({write.row.cause})")
        for note in decision.notes:
            if isinstance(note, commands.SessionEnded):
                facts.append(f"session {note.row.session_id} ended at {_s(note.row.disconnected_at_ms)}: {note.reason}")
            elif isinstance(note, commands.ProviderChanged):
                facts.extend(self._changed(note))
            elif isinstance(note, commands.ProviderForgotten):
                facts.append(f"{note.provider_id} is forgotten")
        facts.extend(_said(send) for send in decision.sends)
        return facts

    def _changed(self, note: commands.ProviderChanged) -> list[str]:
        view = note.view
        now = view.liveness.value + (", drained" if view.drained else "")
        before, self._liveness[view.provider_id] = self._liveness.get(view.provider_id), now
        return [] if before == now else [f"{view.provider_id} is {now}"]


def _s(at_ms: int | None) -> str:
    return "never" if at_ms is None else f"{(at_ms - START_MS) / 1_000:g}"


def _reply(reply: commands.Reply) -> str:
    return f"refused: {reply.result.code}" if isinstance(reply.result, CoordError) else "granted"


def _said(send: commands.Send) -> str:
    match send.message:
        case commands.Welcome(session_id=session_id, resumed=resumed):
            what = f"welcome {'back to' if resumed else 'to'} session {session_id}"
        case commands.PingAgent():
            what = "ping"
        case commands.CloseLink(code=code):
            what = f"close {code.name.lower()}"
        case commands.TellDrain(draining=draining):
            what = "drain" if draining else "take work again"
        case commands.TellInterval(heartbeat_interval_ms=interval_ms):
            what = f"beat every {interval_ms / 1_000:g} s"
    return f"-> {send.conn_id}: {what}"


def spoken_out(line: str) -> list[str]:
    """The lines that this one stands for; itself where it stands for none."""
    match line.split():
        case [at, "new", *names]:
            return [
                told
                for n in names
                for told in (f"{at} enrol {n}", f"    {at}: granted", f"    {at}: {n} is never_seen")
            ]
        case [at, name, "joins", "as", conn, process, "in", "session", number]:
            welcome = f"    {at}: -> {conn}: welcome to session {number}"
            return [f"{at} hello {name} {conn} {process}", f"    {at}: {name} is online", welcome]
        case _:
            return [line]


def check(transcript: str) -> None:
    """Play the script lines of `transcript` (those not indented) and expect the whole of it back, spoken out."""
    expected = [spoken for line in transcript.strip("\n").splitlines() for spoken in spoken_out(line.rstrip())]
    stage = Stage()
    for line in expected:
        if not line.startswith(" "):
            stage.play(line)
    assert "\n".join(expected) == "\n".join(stage.told)
