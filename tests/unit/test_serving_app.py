"""The API through the app object: answers are the classifier's own, in one piece or a stream, whichever adapter gives them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from standin import LINES, TEXTS, Server, declared
from standin import classifier as classifier  # a fixture
from standin import server as server  # a fixture

from newslora.errors import OverloadedError
from newslora.predict.classifier import Classifier
from newslora.serving.explaining import MOST_WAITING
from newslora.serving.keys import add_key
from newslora.serving.service import Answered


def test_answers_are_the_classifiers_own(server: Server, classifier: Classifier) -> None:
    answer = server.post("/v1/classify", {"texts": TEXTS, "probabilities": True, "top_k": 1}).json()
    assert (answer["adapter"], answer["version"]) == ("news", classifier.card.weights_sha256[:12])
    for one, own in zip(answer["results"], classifier(TEXTS), strict=True):
        assert (one["label"], one["labels"], one["error"]) == (own.label, list(own.labels), None)
        assert one["probability"] == pytest.approx(own.probability, abs=1e-6)  # batches differ, rounding does
        assert one["probabilities"] == pytest.approx(own.probabilities, abs=1e-6)
        assert one["top"] == [{"label": own.label, "probability": one["probability"]}]
        assert not {"words", "abstained", "answer_set"} & set(one)
    assert {one["label"] for one in answer["results"]} == {"World", "Sports"}  # not one label for all


def test_one_text_and_a_blank_one_among_many(server: Server) -> None:
    assert len(server.post("/v1/classify", {"text": TEXTS[0]}).json()["results"]) == 1
    results = server.post("/v1/classify", {"texts": [TEXTS[0], "  \n", TEXTS[1]]}).json()["results"]
    assert [one["error"] and one["error"]["code"] for one in results] == [None, "empty_text", None]
    assert results[1]["label"] is None
    assert server.post("/v1/classify", {"text": "\u200b"}).json()["results"][0]["error"]["code"] == "empty_text"


def test_abstention_is_the_classifiers_own(server: Server, classifier: Classifier) -> None:
    results = server.post("/v1/classify", {"texts": TEXTS, "abstain": 0.9}).json()["results"]
    for one, own in zip(results, classifier(TEXTS, abstain=0.9), strict=True):
        assert (one["label"], one["abstained"], one["answer_set"]) == (
            own.label,
            own.abstained,
            list(own.answer_set or ()),
        )
    message = declared(server.post("/v1/classify", {"text": TEXTS[0], "abstain": 0.999}), 422, "bad_value")
    assert "validation rows" in message


def test_explanations_are_the_classifiers_own(server: Server, classifier: Classifier) -> None:
    pytest.importorskip("captum")
    from newslora.explanation.attributions import explain

    words = server.post("/v1/classify", {"text": TEXTS[0], "explain": True}).json()["results"][0]["words"]
    own = explain(classifier, TEXTS[0])
    assert [(word["text"], word["start"], word["end"]) for word in words] == [
        (w.text, w.start, w.end) for w in own.words
    ]
    assert [word["score"] for word in words] == pytest.approx([word.score for word in own.words], abs=1e-4)
    assert max(words, key=lambda word: word["score"])["text"] == "treaty"
    declared(server.post("/v1/classify", {"texts": ["a"] * 5, "explain": True}), 422, "too_many_to_explain")


def test_as_many_texts_are_explained_as_the_setting_says_where_none_waits(planted: Path) -> None:
    pytest.importorskip("captum")
    server = Server(planted, explain_texts=MOST_WAITING + 1)
    many = {"texts": ["treaty"] * (MOST_WAITING + 1), "explain": True}
    results = server.post("/v1/classify", many).json()["results"]
    assert all(one["words"] for one in results)
    server.context.explaining = 1
    response = server.post("/v1/classify", many)
    assert "Try again in 2 s, or ask without `explain`." in declared(response, 503, "overloaded")
    assert response.headers["retry-after"] == "2"
    assert server.post("/v1/classify", {"text": "treaty", "explain": True}).status_code == 200


def test_the_first_explanation_may_take_longer_than_an_answer(
    make_adapter: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("captum")
    server = Server(make_adapter(tmp_path / "news"), deadline_seconds=0.5)
    load = server.service.classifier

    def slowly(name: str | None) -> Classifier:
        time.sleep(1)
        return load(name)

    monkeypatch.setattr(server.service, "classifier", slowly)
    asked = {"text": "treaty", "explain": True}
    assert server.post("/v1/classify", asked).status_code == 200
    declared(server.post("/v1/classify", asked | {"timeout": 0.5}), 504, "deadline")  # what a client says holds
    server.service.seconds = 1
    declared(server.post("/v1/classify", {"text": "treaty"}), 504, "deadline")


def test_without_captum_explaining_says_which_extra(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    message = declared(server.post("/v1/classify", {"text": TEXTS[0], "explain": True}), 501, "missing_extra")
    assert "newslora[explain]" in message


def test_stream_answers_in_order_with_ids_and_errors_in_their_place(server: Server, classifier: Classifier) -> None:
    lines = [
        json.dumps({"text": TEXTS[0], "id": "a\u2028b"}),  # a line end to Unicode and so to splitlines
        "",
        '{"text": "x", "id": 7, "id": 8}',
        "nonsense",
        json.dumps({"text": " \u200b", "id": 3}),
        json.dumps({"texts": "wrong", "id": 4}),
        json.dumps({"text": TEXTS[1]}),
    ]
    response = server.send("/v1/classify/stream?probabilities=true", "\n".join(lines), "application/x-ndjson")
    answers = [json.loads(line) for line in response.text.splitlines()]
    assert [one["id"] for one in answers] == ["a\u2028b", None, None, 3, 4, None]
    codes = [one["error"] and one["error"]["code"] for one in answers]
    assert codes == [None, "bad_json", "bad_json", "empty_text", "bad_request", None]
    own = classifier([TEXTS[0], TEXTS[1]])
    assert [answers[0]["label"], answers[-1]["label"]] == [one.label for one in own]
    assert answers[0]["probabilities"] == pytest.approx(own[0].probabilities, abs=1e-6)
    assert answers[0]["version"] == classifier.card.weights_sha256[:12]


def test_stream_holds_lines_to_their_limit_and_goes_on(planted: Path) -> None:
    server = Server(planted, body_bytes=2000, max_characters=500)
    body = b'{"text": "' + b"a" * 5000 + b'"}\n' + json.dumps({"text": TEXTS[0], "id": 1}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 700):
            yield body[start : start + 700]

    response = server.ask(lambda client: client.post("/v1/classify/stream", content=pieces(), headers=LINES))
    first, second = (json.loads(line) for line in response.text.splitlines())
    assert first["error"]["code"] == "line_too_long"
    assert (second["id"], second["error"]) == (1, None)
    declared(server.send("/v1/classify/stream?adapter=gone", b"", "application/x-ndjson"), 404, "unknown_adapter")


def test_a_long_line_costs_what_its_bytes_cost_and_not_the_square_of_it(planted: Path) -> None:
    server = Server(planted, body_bytes=10_000_000)

    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"text": "'
        for _ in range(4000):
            yield b"a" * 2000
        yield b'"}'

    began = time.process_time()
    response = server.ask(lambda client: client.post("/v1/classify/stream", content=pieces(), headers=LINES))
    assert json.loads(response.text)["error"]["code"] == "text_too_long"
    assert time.process_time() - began < 3  # seconds; copied with each of its pieces, it would be more than ten


def test_stream_waits_where_the_queue_is_full(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(planted)
    server.service.error = OverloadedError("The queue is full.")
    answer, deadlines = server.service.answer, []

    async def noted(*given: Any, deadline: float, **more: Any) -> list[Answered]:
        deadlines.append(deadline)
        return await answer(*given, deadline=deadline, **more)

    monkeypatch.setattr(server.service, "answer", noted)

    async def talk(client: httpx.AsyncClient) -> httpx.Response:
        asking = asyncio.create_task(client.post("/v1/classify/stream", content=b'{"text": "treaty"}\n', headers=LINES))
        while len(server.service.asked) < 2:
            await asyncio.sleep(0.01)
        server.service.error = None
        return await asking

    assert json.loads(server.ask(talk).text)["error"] is None
    assert deadlines[0] < deadlines[1]  # each try has its time


def test_a_stream_is_answered_in_windows_each_of_which_counts_against_the_keys_rate(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = add_key(tmp_path / "keys.json", "reader", ["classify"])
    limits = {"keys": tmp_path / "keys.json", "max_texts": 4, "stream_rows": 4, "rate_rows": 8}
    server = Server(planted, **limits)
    lines, sleep, tries = b'{"text": "treaty"}\n' * 13, asyncio.sleep, []

    async def wait(seconds: float) -> None:
        tries.append(seconds)
        assert len(tries) < 9, "what is asked for can never be had"
        if len(tries) == 2:
            server.context.rates._begin()  # as after a minute
        await sleep(0)

    monkeypatch.setattr("newslora.serving.streaming.asyncio", SimpleNamespace(sleep=wait))
    response = server.ask(lambda client: client.post("/v1/classify/stream", content=lines, headers=LINES), key)
    answers = [json.loads(line) for line in response.text.splitlines()]
    assert [one["error"] for one in answers] == [None] * 13
    assert [len(texts) for texts in server.service.asked] == [4, 4, 4, 1]
    assert len(tries) == 2  # after eight
    server = Server(planted, **limits, longest_timeout=0.2)
    monkeypatch.setattr("newslora.serving.streaming.asyncio", SimpleNamespace(sleep=lambda _: sleep(0.25)))
    response = server.ask(lambda client: client.post("/v1/classify/stream", content=lines, headers=LINES), key)
    codes = [one["error"] and one["error"]["code"] for one in map(json.loads, response.text.splitlines())]
    assert codes == [None] * 8 + ["rate_limited"] * 5
    assert json.loads(server.logged.getvalue().splitlines()[-1])["rows"] == 13


def test_a_stream_whose_client_takes_its_time_is_no_slow_answer(planted: Path) -> None:
    server = Server(planted)

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"text": "treaty"}\n'
        await asyncio.sleep(0.6)
        yield b'{"text": "games"}\n'

    server.ask(lambda client: client.post("/v1/classify/stream", content=slowly(), headers=LINES))
    load = server.get("/v1/status").json()["load"]
    assert (load["p50_ms"], load["p99_ms"]) == (None, None)
    assert load["texts_per_second"] == pytest.approx(2 * load["requests_per_second"])
    server.post("/v1/classify", {"text": "treaty"})
    assert server.get("/v1/status").json()["load"]["p99_ms"] < 500
    counted = server.get("/metrics").text
    assert 'newslora_request_seconds_count{route="/v1/classify"} 1.0' in counted  # each route has its own


def test_adapters_come_change_and_go_while_requests_run(planted: Path, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "adapters"
    shutil.copytree(planted, root / "two")
    shutil.copytree(planted, tmp_path / "adapters-of-others")
    (root / "hollow").mkdir()
    (root / "out").symlink_to(planted)
    server = Server(planted, adapters_root=root)

    async def put(client: httpx.AsyncClient, name: str, folder: str) -> httpx.Response:
        return await client.put(f"/v1/adapters/{name}", json={"folder": folder})

    async def talk(client: httpx.AsyncClient) -> None:
        assert (await put(client, "two", "two")).status_code == 201
        listed = (await client.get("/v1/adapters")).json()["adapters"]
        assert [(one["name"], one["default"]) for one in listed] == [("news", True), ("two", False)]
        for outside in ("..", "/etc", "out", "two/../../x", "../adapters-of-others", "a" * 3000):
            declared(await put(client, "x", outside), 403, "outside_root")
        declared(await put(client, "x", "none"), 404, "no_folder")
        declared(await put(client, "two", "hollow"), 422, "adapter_refused")
        versions = {(await client.get("/v1/adapters")).json()["adapters"][1]["version"]}
        answers = [client.post("/v1/classify", json={"text": "treaty", "adapter": "two"}) for _ in range(20)]
        swaps = [put(client, "two", "two") for _ in range(3)]
        done = await asyncio.gather(*answers, *swaps)
        assert all(one.status_code == 200 for one in done)
        assert {one.json()["version"] for one in done[:20]} == versions
        at_once = await asyncio.gather(*(put(client, "three", "two") for _ in range(3)))
        assert sorted(one.status_code for one in at_once) == [200, 200, 201]  # one was first
        assert (await client.delete("/v1/adapters/two")).json() == {"removed": "two"}
        declared(await client.post("/v1/classify", json={"text": "treaty", "adapter": "two"}), 404, "unknown_adapter")
        declared(await client.delete("/v1/adapters/two"), 404, "unknown_adapter")

    server.ask(talk)
    fixed = Server(planted)
    declared(fixed.ask(lambda client: client.delete("/v1/adapters/news")), 403, "adapters_fixed")
    declared(fixed.ask(lambda client: put(client, "x", "two")), 403, "adapters_fixed")


def test_each_answer_is_of_the_version_it_names(
    planted: Path, tmp_path: Path, make_adapter: Callable[..., Path]
) -> None:
    folders = [make_adapter(tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    own = {one.card.weights_sha256[:12]: one(TEXTS[0]) for one in map(Classifier.load, folders)}
    assert len({one.probability for one in own.values()}) == 2
    server = Server(planted, adapters_root=tmp_path)
    seen: set[str] = set()

    async def talk(client: httpx.AsyncClient) -> None:
        async def ask() -> None:
            for _ in range(30):
                answer = (await client.post("/v1/classify", json={"texts": TEXTS, "adapter": "x"})).json()
                seen.add(answer["version"])
                expected = own[answer["version"]].probability
                assert answer["results"][0]["probability"] == pytest.approx(expected, abs=1e-6)

        async def swap() -> None:
            for number in range(8):
                assert (await client.put("/v1/adapters/x", json={"folder": str(number % 2 + 1)})).status_code == 200
                await asyncio.sleep(0.01)

        assert (await client.put("/v1/adapters/x", json={"folder": "1"})).status_code == 201
        await asyncio.gather(swap(), *(ask() for _ in range(3)))

    server.ask(talk)
    assert seen == set(own)


def test_the_version_named_is_the_one_that_answered(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaced between being looked up and answering."""
    server = Server(planted)
    answer = server.service.answer

    async def of_another(*given: Any, **more: Any) -> list[Answered]:
        return [replace(one, served=replace(one.served, version="another")) for one in await answer(*given, **more)]

    monkeypatch.setattr(server.service, "answer", of_another)
    assert server.post("/v1/classify", {"text": TEXTS[0]}).json()["version"] == "another"
    line = json.dumps({"text": TEXTS[0]})
    assert server.send("/v1/classify/stream", line, "application/x-ndjson").json()["version"] == "another"
    logged = [json.loads(one) for one in server.logged.getvalue().splitlines()]
    assert [one["version"] for one in logged if one["event"] == "request"] == ["another"] * 2
    assert server.get("/v1/status").json()["adapters"]["news"]["since_start"]["texts"] == 0  # it has its own numbers
