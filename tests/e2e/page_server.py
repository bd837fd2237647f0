"""A stand-in for `newslora serve`: the routes the page asks, over answers made of a few keywords, without a model."""

import contextlib
import json
import math
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import newslora

PAGE = Path(newslora.__file__).parent / "serving" / "page"
POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
KEYWORDS = {
    "World": ("treaty", "minister", "border", "army"),
    "Sports": ("striker", "cup", "club", "final"),
    "Business": ("oil", "bank", "shares", "rates"),
    "Sci/Tech": ("probe", "comet", "chip", "moon"),
}
LABELS = list(KEYWORDS)
ADAPTERS: dict[str, dict[str, Any]] = {
    "news": {"version": "abc123def456", "multi_label": False, "calibrated": True, "default": True},
    "desk": {"version": "0123456789ab", "multi_label": False, "calibrated": False, "default": False},
    "topics": {"version": "feedc0ffee00", "multi_label": True, "calibrated": False, "default": False},
}


@dataclass(frozen=True)
class Place:
    """A server that is up, and what its adapters make of some texts."""

    url: str
    labels: list[str]
    sure: dict[str, str]  # label -> a text of two words or more that the first adapter is sure to belong to it
    unsure: str  # undecided at `level`
    level: str = "0.99"  # of those the page offers
    adapter: str = "news"  # calibrated, the default
    other: str = "desk"  # of the same labels, not calibrated
    several: str | None = "topics"  # gives any number of labels, two to `unsure`; None: there is no such adapter


def probabilities(text: str, several: bool) -> dict[str, float]:
    """3 logits a keyword, 0.05 a letter of the text for the first label, so that no two are equal."""
    words = re.findall(r"\w+", text.lower())
    logits = [3.0 * sum(word in known for word in words) for known in KEYWORDS.values()]
    logits[0] += 0.05 * (len(text) % 7 + 1)
    if several:
        return {label: 1 / (1 + math.exp(1.5 - logit)) for label, logit in zip(LABELS, logits, strict=True)}
    total = sum(map(math.exp, logits))
    return {label: math.exp(logit) / total for label, logit in zip(LABELS, logits, strict=True)}


def answer(text: str, name: str, abstain: float | None, explain: bool = False) -> dict[str, Any]:
    several = ADAPTERS[name]["multi_label"]
    found = probabilities(text, several)
    ordered = sorted(found, key=lambda label: -found[label])
    labels = [label for label in ordered if found[label] >= 0.5] if several else ordered[:1]
    told: dict[str, Any] = {"probability": found[ordered[0]], "error": None}
    if abstain is not None:
        held = next(n for n in range(1, 5) if n == 4 or sum(found[label] for label in ordered[:n]) >= abstain)
        told |= {"answer_set": ordered[:held], "abstained": held > 1}
        labels = labels if held == 1 else []
    if explain:
        told["words"] = [
            {"text": word[0], "start": word.start(), "end": word.end(), "score": _score(word[0].lower(), ordered[0])}
            for word in re.finditer(r"\w+", text)
        ]
    return told | {"label": labels[0] if labels else None, "labels": labels, "probabilities": found}


def _score(word: str, label: str) -> float:
    return 1.2 if word in KEYWORDS[label] else -0.7 if any(word in known for known in KEYWORDS.values()) else 0.01


STATUS: dict[str, Any] = {
    "server": {
        "ready": True, "feedback": True, "keep_uncertain": 200, "explain_texts": 4, "max_texts": 256, "longest_timeout": 45.0,
    },
    "load": {"requests_per_second": 3.4, "texts_per_second": 41.2, "p50_ms": 22.4, "p99_ms": 81.0, "requests_active": 1},
    "queue": {"rows": 12.0, "tokens": 700.0, "rows_bound": 1024.0, "tokens_bound": 65536.0, "share": 12 / 1024},
    "adapters": {
        "news": {
            "version": "abc123def456", "corrections": 3,
            "last_hour": {
                "texts": 420, "labels": {"World": 60, "Sports": 270, "Business": 50, "Sci/Tech": 40},
                "mean_confidence": 0.91, "share_abstained": 0.02,
            },
            "since_start": {"texts": 420, "labels": {}, "mean_confidence": 0.91, "share_abstained": 0.02},
            "drift": {
                "baseline": "validation rows", "baseline_answers": 640, "window_answers": 420,
                "baseline_labels": {"World": 160, "Sports": 160, "Business": 160, "Sci/Tech": 160},
                "labels": {"psi": 0.55, "js": 0.3, "limit": 0.2, "shifted": True},
                "confidence": {"psi": 0.04, "js": 0.1, "limit": 0.2, "shifted": False},
            },
        },
        "desk": {
            "version": "0123456789ab", "corrections": 0,
            "last_hour": {"texts": 0, "labels": {}, "mean_confidence": None, "share_abstained": None},
            "since_start": {"texts": 0, "labels": {}, "mean_confidence": None, "share_abstained": None},
            "drift": {"baseline": None, "baseline_answers": 0, "window_answers": 0, "labels": None, "confidence": None},
        },
    },
}  # fmt: skip
UNSURE = [
    "Bank buys football club", "Minister opens chip factory", "Comet named after striker", "Shares of cup sponsor fall",
]  # fmt: skip


def make_app() -> Any:
    """The stand-in as an ASGI application."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

    def refused(status: int, code: str, message: str) -> Response:
        return JSONResponse({"error": {"code": code, "message": message}}, status)

    async def index(request: Request) -> Response:
        return FileResponse(PAGE / "index.html", headers={"Content-Security-Policy": POLICY})

    async def part(request: Request) -> Response:
        return FileResponse(PAGE / request.path_params["name"], headers={"Content-Security-Policy": POLICY})

    async def adapters(request: Request) -> Response:
        more = {"labels": LABELS, "backbone": "minilm", "loaded": time.time()}
        return JSONResponse({"adapters": [{"name": name} | one | more for name, one in ADAPTERS.items()]})

    async def classify(request: Request) -> Response:
        asked = await request.json()
        known = {"text", "texts", "adapter", "top_k", "probabilities", "abstain", "explain", "timeout"}
        if set(asked) - known:
            return refused(422, "bad_request", f"{set(asked) - known} are not fields of this request. See /docs.")
        name = asked.get("adapter", "news")
        texts = asked["texts"] if "texts" in asked else [asked["text"]]
        results = [answer(text, name, asked.get("abstain"), asked.get("explain", False)) for text in texts]
        for result in results:
            if not asked.get("probabilities"):
                del result["probabilities"]
        return JSONResponse({"adapter": name, "version": ADAPTERS[name]["version"], "results": results})

    async def stream(request: Request) -> Response:
        name = request.query_params.get("adapter", "news")
        abstain = request.query_params.get("abstain")
        made = {"adapter": name, "version": ADAPTERS[name]["version"]}
        lines = [json.loads(line) for line in (await request.body()).splitlines()]

        async def lines_out() -> AsyncIterator[bytes]:
            for at in range(0, len(lines), 64):
                told = [
                    {
                        "id": line["id"],
                        **made,
                        **answer(line["text"], name, None if abstain is None else float(abstain)),
                    }
                    for line in lines[at : at + 64]
                ]
                yield "".join(json.dumps(one) + "\n" for one in told).encode()

        return StreamingResponse(lines_out(), media_type="application/x-ndjson")

    async def feedback(request: Request) -> Response:
        asked = await request.json()
        if ("label" in asked) == ("labels" in asked) or not asked.get("text"):
            return refused(422, "bad_request", "Give either label or labels, and a text. See /docs.")
        return JSONResponse({"id": asked.get("id", "1")}, 201)

    async def uncertain(request: Request) -> Response:
        name = request.query_params.get("adapter", "news")
        items = [
            {"id": str(place), "time": time.time(), "adapter": name, "version": ADAPTERS[name]["version"], "text": text}
            | {
                key: value
                for key, value in answer(text, name, None).items()
                if key in ("label", "labels", "probability")
            }
            | {"probabilities": probabilities(text, ADAPTERS[name]["multi_label"])}
            for place, text in enumerate(UNSURE)
        ]
        return JSONResponse({"items": sorted(items, key=lambda one: one["probability"])})

    async def status(request: Request) -> Response:
        return JSONResponse(STATUS)

    return Starlette(
        routes=[
            Route("/", index), Route("/page/{name}", part), Route("/v1/adapters", adapters), Route("/v1/status", status),
            Route("/v1/classify", classify, methods=["POST"]), Route("/v1/classify/stream", stream, methods=["POST"]),
            Route("/v1/feedback", feedback, methods=["POST"]), Route("/v1/uncertain", uncertain),
        ],
    )  # fmt: skip


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """The address of an ASGI application, served by a thread on a free port of this machine."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
