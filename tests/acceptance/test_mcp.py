"""`coord mcp` as an agent meets it: the protocol's own client, and once over a process's standard input and output."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.server.mcpserver import MCPServer
from mcp_types import CallToolResult, TextContent

from analytics.attribution.desk.desk import Desk
from analytics.attribution.desk.rooted import Root
from analytics.attribution.desk.settings import DeskSettings
from cli.mcptools import server
from coordinator.client import Client as HeadClient
from coordinator.core.errors import Code, CoordError
from tests.acceptance.processes import Head, clean_environment
from tests.unit.analytics.desk.service import HEAD, ITEM, ROWS, STOPS, WELL, rules

TOOLS = {"log_analyzer_progressive_start", "log_analyzer", "fr_analyzer", "status"}
QUERIES = {"list_jobs", "show_job", "why_waiting", "list_providers", "reliability", "list_alerts"}
TRACES = Path(__file__).resolve().parents[3] / "shared" / "data" / "logs" / "nvrx_fr_traces" / "fr_traces"


def nowhere() -> HeadClient:
    raise CoordError(Code.UNREACHABLE, "there is no coordinator")


def served(directory: Path, root: Path) -> StdioServerParameters:
    rows = directory / "rows.tsv"
    rows.write_text("\n".join([HEAD, *("\t".join([*row, "a test's"]) for row in ROWS)]) + "\n")
    arguments = ["-m", "cli", "mcp", "--root", str(root), "--signatures", str(rows)]
    return StdioServerParameters(command=sys.executable, args=arguments, env=clean_environment())


def said(result: CallToolResult) -> Any:
    """What a tool answered, as data."""
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


def refused(result: CallToolResult) -> str:
    assert result.is_error
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


def test_a_growing_log_is_started_and_judged(tmp_path: Path) -> None:
    """The start returns a status and runs no terminal attribution; the end reuses it; a full pass says the same."""
    log = tmp_path / "logs" / "run.log"
    log.parent.mkdir()

    async def story() -> None:
        async with Client(served(tmp_path, log.parent)) as client:
            tools = (await client.list_tools()).tools
            assert TOOLS | QUERIES == {tool.name for tool in tools}
            assert {"log_analyzer_progressive_start"} == {
                tool.name for tool in tools if tool.annotations is None or not tool.annotations.read_only_hint
            }
            start = said(await client.call_tool("log_analyzer_progressive_start", {"log_path": str(log)}))
            assert ("log_analyzer_progressive_start", "started", "p1", 0) == (
                start["module"], start["status"], start["handle"], start["consumed_offset"],
            )  # fmt: skip
            assert not start.keys() & {"result", "recommendation"}
            log.write_bytes(STOPS)
            again = said(await client.call_tool("log_analyzer_progressive_start", {"log_path": str(log)}))
            assert ("started", "p1") == (again["status"], again["handle"])
            status = said(await client.call_tool("status"))
            assert (1, 0, 0) == (
                status["stats"]["progressive_analyses"]["started"], status["stats"]["ends"]["count"],
                status["stats"]["waiting"],
            )  # fmt: skip
            arguments = {"log_path": str(log), "use_progressive": True}
            answer = said(await client.call_tool("log_analyzer", arguments))
            whole = said(await client.call_tool("log_analyzer", {"log_path": str(log)}))
            assert ("log_analyzer", "STOP", True) == (
                answer["module"], answer["recommendation"]["action"], answer["progressive"],
            )  # fmt: skip
            assert answer["result"][0].keys() >= ITEM
            assert (answer["result"], False) == (whole["result"], whole["progressive"])
            status = said(await client.call_tool("status"))
            assert 1 == status["stats"]["progressive_analyses"]["completed"]

    asyncio.run(story())


def a_server(root: Path, reach: Callable[[], HeadClient] = nowhere, **settings: Any) -> MCPServer:
    """The tools, in this process: what they answer does not hang on how they are asked."""
    return server(Desk(Root(root), rules(), DeskSettings(**settings)), reach, "0")


def test_what_may_not_be_read_is_an_error_of_the_tool(tmp_path: Path) -> None:
    """In its own words; and the session goes on."""
    root = tmp_path / "logs"
    root.mkdir()
    (tmp_path / "secret.log").write_bytes(STOPS)
    log = root / "run.log"
    log.write_bytes(WELL)

    async def story() -> None:
        async with Client(a_server(root, progressive="off")) as client:
            for tool in ("log_analyzer", "log_analyzer_progressive_start"):
                result = await client.call_tool(tool, {"log_path": str(tmp_path / "secret.log")})
                assert "outside_root" in refused(result)
            assert "not_found" in refused(await client.call_tool("fr_analyzer", {"fr_path": str(root)}))
            assert "unreachable" in refused(await client.call_tool("list_jobs"))
            start = said(await client.call_tool("log_analyzer_progressive_start", {"log_path": str(log)}))
            assert ("disabled", None) == (start["status"], start["handle"])
            answer = said(await client.call_tool("log_analyzer", {"log_path": str(log)}))
            assert "CONTINUE" == answer["recommendation"]["action"]

    asyncio.run(story())


def test_the_coordinator_is_asked_and_never_changed(tmp_path: Path) -> None:
    """Jobs, providers, alerts of a real one."""
    with Head(tmp_path) as head:
        head.start().close()

        async def story() -> None:
            async with Client(a_server(tmp_path, head.client)) as client:
                assert [] == said(await client.call_tool("list_jobs"))["entries"]
                assert [] == said(await client.call_tool("list_providers", {"limit": 10_000}))["entries"]
                assert [] == said(await client.call_tool("reliability"))["entries"]
                assert "entries" in said(await client.call_tool("list_alerts"))
                assert "not_found" in refused(await client.call_tool("show_job", {"job_id": 7}))
                assert "not_found" in refused(await client.call_tool("why_waiting", {"job_id": 7}))

        asyncio.run(story())


def test_the_flight_recorder_names_who_is_missing() -> None:
    """A recorded fault, by directory."""
    if not TRACES.is_dir():
        pytest.skip(f"{TRACES} is not there")

    async def story() -> None:
        async with Client(a_server(TRACES)) as client:
            answer = said(await client.call_tool("fr_analyzer", {"fr_path": str(TRACES / "lock_gil_2nd")}))
            assert ("fr_analyzer", [10, 15]) == (answer["module"], answer["result"]["missing_ranks"])
            assert "hanging ranks: [10, 15]" == answer["result"]["hanging_ranks"]

    asyncio.run(story())
