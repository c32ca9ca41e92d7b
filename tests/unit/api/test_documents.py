"""/openapi.json and the reference pages say what the table of routes says: nothing is undocumented."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from coordinator.core.errors import Code
from coordinator.core.snapshot import Liveness
from coordinator.jobfile import parse_job
from coordinator.jobfile.model import (
    CheckpointModel,
    EstimateModel,
    InputModel,
    JobFile,
    ResourcesModel,
    RetryModel,
    StepFields,
    StepModel,
)
from coordinator.service import metrics
from coordinator.service.api.openapi import ROUTES, openapi
from coordinator.service.api.problems import STATUS
from coordinator.service.api.query import NoQuery
from coordinator.service.api.route import AnyRoute, NoBody
from coordinator.service.api.uploads import Upload
from tests.unit.api.rig import READER, Rig, served

JOB_MODELS = (
    JobFile, StepModel, StepFields, RetryModel, ResourcesModel, EstimateModel, InputModel, CheckpointModel,
)  # fmt: skip
REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text()


def the_table() -> tuple[AnyRoute, ...]:
    found: list[tuple[AnyRoute, ...]] = []

    async def test(rig: Rig) -> None:
        found.append(rig.app[ROUTES])

    served(test)
    return found[0]


def sections() -> dict[str, str]:
    """The reference page by route: `GET /v1/pools` -> what stands below it."""
    parts = re.split(r"^### `(\w+ [^`]+)`$", page("http.md"), flags=re.MULTILINE)
    return {name: text.split("\n## ")[0] for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def words(text: str) -> set[str]:
    """What stands in backticks, fenced blocks apart."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return {word for quoted in re.findall(r"`([^`]+)`", text) for word in re.split(r"[ ,]+", quoted)}


def test_every_route_has_its_section_and_every_section_its_route() -> None:
    """Method and path, exactly."""
    assert {f"{route.method} {route.path}" for route in the_table()} == set(sections())


def test_every_parameter_and_body_field_is_documented_in_its_route_s_section() -> None:
    """By name, in backticks, where a reader looks for it."""
    known = sections()
    for route in the_table():
        text = words(known[f"{route.method} {route.path}"])
        for kind in (route.query, route.body_model):
            if kind in (NoQuery, NoBody, Upload, JobFile):  # the job file has a page of its own
                continue
            for name in kind.__struct_encode_fields__:
                assert name in text, f"{route.method} {route.path}: {name} is not documented"


def test_every_field_of_every_answer_is_documented() -> None:
    """Also of the structs within. Those of an analysis have a page of their own."""
    text = words(page("http.md") + page("traces.md"))
    job = {kind.__name__ for kind in JOB_MODELS}
    schemas = openapi(the_table(), "x")["components"]["schemas"]
    for kind, schema in schemas.items():
        if kind in {"Problem", "ProblemPart", "OpenApi"} | job:
            continue
        for name in schema.get("properties", ()):  # arrays and closed sets have none
            assert name in text, f"{kind}.{name} is not documented"
    for liveness in Liveness:
        assert liveness.value in text


def test_every_field_of_a_job_file_has_its_line_with_type_default_meaning_and_example() -> None:
    """And no line is left of a field that there is not."""
    rows = re.findall(r"^\| (`[^|]+`) \| (.+?) \| (.+?) \| `(.+)` \|$", page("jobfile.md"), flags=re.MULTILINE)
    said = {name for names, *_ in rows for name in words(names)}
    known = set(JobFile.__struct_fields__) | set(StepModel.__struct_fields__)
    known |= {f"retry.{name}" for name in RetryModel.__struct_fields__}
    known |= {f"resources.{name}" for name in ResourcesModel.__struct_fields__}
    known |= {f"estimate.{name}" for name in EstimateModel.__struct_fields__}
    known |= {f"checkpoint.{name}" for name in CheckpointModel.__struct_fields__}
    assert known == said
    for name, kind, meaning, example in rows:
        assert kind and len(meaning) > 10, name
        last = {one.rpartition(".")[2] for one in words(name)}
        assert any(one in example for one in last), f"the example of {name} is of something else"
    for name in InputModel.__struct_encode_fields__:
        assert name in words(page("jobfile.md")), name


def test_the_example_of_the_job_file_s_page_is_a_job() -> None:
    """What people copy works."""
    (example,) = re.findall(r"^```toml$(.*?)^```$", page("jobfile.md"), flags=re.MULTILINE | re.DOTALL)
    spec = parse_job(tomllib.loads(example), now_ms=0)
    assert ["prep", "train", "report"] == [step.name for step in spec.steps] and 6 == spec.steps[1].tasks


def test_the_roles_in_the_page_are_those_of_the_table() -> None:
    """Each section names exactly the roles that may take the route (liveness: in its chapter)."""
    chapters = page("http.md")
    for route in the_table():
        head = sections()[f"{route.method} {route.path}"]
        said = re.search(r"^(Roles?: [^.]*\.|Public\.|Signed: )", head.strip())
        if said is None:
            before = chapters[: chapters.index(f"### `{route.method} {route.path}`")]
            said = re.search(r"\n## Liveness\n\n(Roles: [^.]*\.)", before)
        assert said is not None, f"{route.method} {route.path} names no roles"
        plain = re.sub(r"\([^)]*\)", "", said[1])
        named = set(re.findall(r"admin|read-only|join|agent|tenant", plain))
        assert isinstance(route.roles, str) == said[1].startswith(("Public", "Signed")), route.path
        assert named == (set() if isinstance(route.roles, str) else set(route.roles)), (
            f"{route.method} {route.path}: {said[1]}"
        )


def test_every_code_stands_in_its_page_with_its_status() -> None:
    """One line of the table each, no line too many."""
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", page("errors.md"), flags=re.MULTILINE))
    assert {code.value: str(STATUS[code]) for code in Code} == rows


def test_every_metric_stands_in_its_page_with_its_kind_labels_and_help() -> None:
    """One line of the table each, no line too many."""
    lines = re.findall(r"^\| `(coord_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", page("metrics.md"), flags=re.MULTILINE)
    assert {metric.name for metric in metrics.table()} == {line[0] for line in lines}
    by_name = {metric.name: metric for metric in metrics.table()}
    for name, kind, labels, text in lines:
        metric = by_name[name]
        assert (metric.kind, metric.help) == (kind, text), name
        assert set(metric.labels) <= words(labels), name


def references(node: Any) -> set[str]:
    """Every $ref below."""
    if isinstance(node, dict):
        own = {node["$ref"]} if "$ref" in node else set()
        return own.union(*(references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(references(value) for value in node))
    return set()


def test_openapi_describes_every_route_and_every_reference_leads_somewhere() -> None:
    """3.1, unique operation ids, path parameters declared, roles told, no dangling reference, stable bytes."""

    async def test(rig: Rig) -> None:
        first, second = await rig.get("/openapi.json", READER), await rig.get("/openapi.json", READER)
        assert first.body == second.body
        document = first.json
        assert "3.1.0" == document["openapi"]
        operations = {
            f"{method.upper()} {path}": operation
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }
        table = {f"{route.method} {route.path}": route for route in rig.app[ROUTES]}
        assert set(table) == set(operations)
        assert len(operations) == len({operation["operationId"] for operation in operations.values()})
        for name, operation in operations.items():
            route = table[name]
            declared = {(one["in"], one["name"]) for one in operation["parameters"]}
            assert len(declared) == len(operation["parameters"])
            assert set(re.findall(r"\{(\w+)\}", route.path)) == {n for where, n in declared if where == "path"}
            assert set(route.query.__struct_encode_fields__) == {n for where, n in declared if where == "query"}
            assert (route.method == "POST") == (("header", "Idempotency-Key") in declared)
            assert all(one["description"] for one in operation["parameters"] if one["in"] == "query")
            assert operation["x-roles"] == ([route.roles] if isinstance(route.roles, str) else sorted(route.roles))
            assert str(route.status) in operation["responses"]
        for reference in references(document):
            node = document
            for key in reference.removeprefix("#/").split("/"):
                node = node[key]
        used = {reference.rsplit("/", 1)[1] for reference in references(document)}
        assert set(document["components"]["schemas"]) <= used, "a schema that nothing refers to"
        msgspec.json.decode(msgspec.json.encode(document))

    served(test)
