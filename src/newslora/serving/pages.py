"""The page at / with its files, and /docs, made of the OpenAPI description; nothing is fetched from another host."""

import json
import mimetypes
import re
from importlib import resources
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from newslora.serving.problems import Problem

INDEX = "index.html"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def page_files() -> dict[str, bytes]:
    """The page's files by name. Only these can be asked for: no path of a client's is ever opened."""
    folder = resources.files("newslora") / "serving" / "page"
    return {item.name: item.read_bytes() for item in folder.iterdir() if item.is_file()}


def add_pages(app: FastAPI) -> None:
    """Routes of pages; they are no part of the API's description."""
    files = page_files()
    reference: list[bytes] = []  # made at the first request

    def served(name: str) -> Response:
        if name not in files:
            raise Problem(404, "not_found", "There is no such file of the page.")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(
            files[name], media_type=kind, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
        )

    async def index(request: Request) -> Response:
        return served(INDEX)

    async def file(request: Request) -> Response:
        return served(request.path_params["name"])

    async def docs(request: Request) -> Response:
        if not reference:
            reference.append(_reference(app))
        return Response(reference[0], media_type="text/html", headers={"Content-Security-Policy": POLICY})

    async def style(request: Request) -> Response:
        body = (resources.files("newslora") / "serving" / "docs.css").read_bytes()
        return Response(body, media_type="text/css")

    for path, endpoint in (("/", index), ("/page/{name}", file), ("/docs", docs), ("/docs.css", style)):
        app.router.routes.append(Route(path, endpoint, methods=["GET"], include_in_schema=False))


def _code(text: str) -> Any:
    """Words between backticks as code; all else as it is."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _reference(app: FastAPI) -> bytes:
    """The description of the API as a page for people."""
    from jinja2 import Environment, PackageLoader

    description = app.openapi()
    schemas = description["components"]["schemas"]
    environment = Environment(
        loader=PackageLoader("newslora", "serving"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    environment.filters["code"] = _code
    environment.filters["named"] = lambda value: str(value.get("$ref", "")).rpartition("/")[2]
    template = environment.get_template("docs.html")
    return template.render(api=description, schemas=schemas).encode()
