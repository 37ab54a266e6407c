"""The description of the interface is complete, true and readable offline."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from service.web.doubler import Doubler

from nnz_service.web.routers import ROUTERS

Spec = dict[str, Any]


@pytest.fixture
def http(server: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"http://{server}", timeout=30) as client:
        yield client


@pytest.fixture
def spec(http: httpx2.Client) -> Spec:
    found: Spec = http.get("/openapi.json").json()
    return found


def operations(spec: Spec) -> Iterator[tuple[str, str, Spec]]:
    for path, verbs in spec["paths"].items():
        for verb, operation in verbs.items():
            yield verb.upper(), path, operation


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


class TestSpec:
    def test_every_route(self, spec: Spec) -> None:
        """Every route that is meant to be seen is there, and no other."""
        described = {(verb, path) for verb, path, _ in operations(spec)}
        served = {
            (verb, route.path)
            for router in ROUTERS
            for route in router.routes
            if route.include_in_schema
            for verb in route.methods
        }

        assert described == served

    def test_structure(self, spec: Spec) -> None:
        """OpenAPI 3.1: unique ids, declared path parameters, references that exist."""
        assert spec["openapi"].startswith("3.1")
        ids = [operation["operationId"] for _, _, operation in operations(spec)]
        assert len(set(ids)) == len(ids)
        for _, path, operation in operations(spec):
            declared = [
                row["name"]
                for row in operation.get("parameters", ())
                if row["in"] == "path" and row["required"]
            ]
            assert sorted(declared) == sorted(re.findall(r"\{(\w+)\}", path))
        for reference in references(spec):
            kind, name = reference.removeprefix("#/components/").split("/")
            assert name in spec["components"][kind], reference

    def test_every_operation(self, spec: Spec) -> None:
        """Each has a sentence, a tag, a success, and errors of one form."""
        for verb, path, operation in operations(spec):
            assert operation["description"].split("\n")[0].rstrip(".").count(" ") > 1
            assert len(operation["tags"]) == 1, path
            codes = set(operation["responses"])
            assert any(code.startswith("2") for code in codes), (verb, path)
            assert {"401", "500"} <= codes
            for code in codes:
                if code[0] in "45":
                    content = operation["responses"][code]["content"]
                    schema = content["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorOut"}

    def test_bodies(self, spec: Spec) -> None:
        """Routes that read a raw body say so; tensor routes name the header."""
        for verb, path, operation in operations(spec):
            tensors = path.endswith("/infer") or path.startswith("/v1/ops")
            upload = (verb, path) in {
                ("PUT", "/v1/models/{name}"),
                ("POST", "/v1/matrices"),
                ("POST", "/v1/jobs"),
            }
            if tensors or upload:
                assert operation["requestBody"]["required"], path
            if tensors:
                names = {row["name"] for row in operation["parameters"]}
                assert "Inference-Header-Content-Length" in names

    def test_preflight(self, spec: Spec) -> None:
        """Both kinds of operation say what the query may hold."""
        found = {
            path: row["schema"]["anyOf"]
            for _, path, operation in operations(spec)
            for row in operation.get("parameters", ())
            if row["name"] == "preflight"
        }
        both, exact = [{"type": "boolean"}, {"type": "null"}], {"const": "exact"}
        assert found["/v1/ops"] == both
        assert found["/v1/ops/{op}"] == [both[0], exact | {"type": "string"}, both[1]]

    def test_no_query(self, spec: Spec) -> None:
        """The protocol's paths say everything; a version in a query means nothing."""
        for _, path, operation in operations(spec):
            places = {row["in"] for row in operation.get("parameters", ())}
            assert "query" not in places or path.startswith("/v1/"), path

    def test_events(self, spec: Spec) -> None:
        """What an event holds is described, not only that there are some."""
        answer = spec["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]["200"]
        event = answer["content"]["text/event-stream"]["itemSchema"]
        data = event["properties"]["data"]
        assert data["contentSchema"] == {"$ref": "#/components/schemas/JobOut"}

    def test_empty_answers(self, http: httpx2.Client, spec: Spec) -> None:
        """Where the body is empty, none is described."""
        for path in ("/v2/health/live", "/v2/models/{name}/ready"):
            answer = http.get(path.format(name="double"))

            assert answer.content == b""
            described = spec["paths"][path]["get"]["responses"]["200"]
            assert "content" not in described

    def test_key(self, spec: Spec) -> None:
        """The key is described as a bearer token."""
        (scheme,) = spec["components"]["securitySchemes"].values()

        assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


class TestTruth:
    def test_every_route_answers(
        self, http: httpx2.Client, spec: Spec, doubler: Doubler
    ) -> None:
        """Called with nothing but a name, each gives a code that it describes."""
        for verb, path, operation in operations(spec):
            if verb == "DELETE" or "/{job_id}" in path:
                continue
            names = {"matrix_id": "m-0", "upload_id": "u-0", "op": "dot"}
            url = path.format(name="double", version="1", **names)

            answer = http.request(verb, url)

            assert str(answer.status_code) in operation["responses"], (verb, path)
            if answer.status_code >= 400 and verb != "HEAD":
                assert answer.json()["error"]

    @pytest.mark.parametrize("path", ["/v2", "/v2/models/double", "/v1/models"])
    def test_members(self, http: httpx2.Client, spec: Spec, path: str) -> None:
        """An answer has the members that the description gives it."""
        route = path.replace("double", "{name}")
        answer = spec["paths"][route]["get"]["responses"]["200"]
        reference = answer["content"]["application/json"]["schema"]["$ref"]
        schema = spec["components"]["schemas"][reference.rpartition("/")[2]]

        assert set(http.get(path).json()) == set(schema["properties"])


class TestPage:
    def test_docs(self, http: httpx2.Client, spec: Spec) -> None:
        """/docs shows every operation and fetches nothing from other hosts."""
        answer = http.get("/docs")

        assert answer.headers["content-type"].startswith("text/html")
        for _, path, operation in operations(spec):
            assert f'id="{operation["operationId"]}"' in answer.text
            assert f"<code>{path}</code>" in answer.text
        assert not re.search(r'(src|href)="(https?:)?//', answer.text)
        for target in re.findall(r'href="#([^"]+)"', answer.text):
            assert f'id="{target}"' in answer.text
