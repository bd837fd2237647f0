"""Everything the API's description allows, and much that it forbids, by schemathesis: no 5xx, no status or form undeclared.

benchmarks/fuzz_api.py asks a real server process many times as much.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from standin import Server

schemathesis = pytest.importorskip("schemathesis")
EXAMPLES = 6  # an operation and mode
# valid by the description and refused for what only this server knows: its labels, its validation rows, its limits
KNOWS_BETTER = ("POST /v1/classify", "POST /v1/classify/stream", "POST /v1/feedback")


@schemathesis.serializer("application/x-ndjson")
def lines(context: Any, value: Any) -> bytes:
    return (json.dumps(value) + "\n").encode() * 2


@pytest.fixture(scope="module")
def server(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Server:
    folder = tmp_path_factory.mktemp("fuzz")
    database = f"sqlite:///{folder}/corrections.db"
    return Server(planted, allowed_hosts=("*",), feedback=database, adapters_root=folder, keep_uncertain=5)


def operations(server: Server) -> Iterator[Any]:
    schema = schemathesis.openapi.from_asgi("/openapi.json", server.app)
    for found in schema.get_all_operations():
        yield found.ok()


def put_to_the_test(operation: Any, mode: str) -> int:
    """Ask an operation in many ways; how many were asked."""
    excluded = [schemathesis.checks.not_a_server_error]  # a tiny `timeout` may well end in 504
    if operation.label in KNOWS_BETTER:
        excluded.append(schemathesis.checks.positive_data_acceptance)
    if operation.label.endswith("/stream"):  # a line that is wrong is answered in its place
        excluded.append(schemathesis.checks.negative_data_rejection)
    asked = 0

    @hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
        phases=[hypothesis.Phase.generate], suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def ask(case: Any) -> None:
        nonlocal asked
        asked += 1
        assert case.call_and_validate(excluded_checks=excluded).status_code in (*range(200, 500), 501, 503, 504)

    ask()
    return asked


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_no_request_gets_what_is_not_declared(server: Server, mode: str) -> None:
    asked: dict[str, int] = {}
    for operation in operations(server):
        takes_something = operation.body or operation.query or operation.path_parameters
        if mode == "negative" and not takes_something:
            continue
        asked[operation.label] = put_to_the_test(operation, mode)
    assert len(asked) > (10 if mode == "positive" else 6)
    assert "internal" not in server.context.metrics.text()[0].decode()


def test_the_description_is_whole(server: Server) -> None:
    description = server.app.openapi()
    assert description["openapi"].startswith("3.1")
    declared = 0
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], path
            answers = operation["responses"]
            assert {"400", "500", "503"} <= set(answers), (method, path)
            for status, answer in answers.items():
                if status >= "400":
                    declared += 1
                    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorAnswer")
    assert declared > 60
    classifying = description["paths"]["/v1/classify"]["post"]
    assert classifying["security"] == [{"key": []}, {}]  # this server asks for none
    assert classifying["description"].endswith("with the scope `classify`.")
    assert "security" not in description["paths"]["/health"]["get"]
    assert "HTTPValidationError" not in description["components"]["schemas"]
    everywhere = {"401", "403", "404", "413", "422", "429", "503", "504"}
    assert everywhere <= set(description["paths"]["/v1/classify"]["post"]["responses"])
    assert description["components"]["schemas"]["ClassifyRequest"]["examples"]
