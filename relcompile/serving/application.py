"""The endpoints of the Open Inference Protocol as a web application."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from relcompile.errors import InputSpecError, OverloadedError, RelcompileError, TargetError
from relcompile.serving import protocol
from relcompile.serving.metrics import Metrics
from relcompile.serving.model import Model
from relcompile.serving.work import AS_TEXT, done

VERSION: Final = "1"  # the only one of every model
_ADDRESSES: Final = (
    "this server speaks the Open Inference Protocol, version 2: GET /v2/models/MODEL tells what a model takes, "
    "POST /v2/models/MODEL/infer explains"
)


@dataclass(frozen=True)
class Limits:
    """What one request may take.

    Attributes:
        body: bytes.
        seconds: for the body to arrive, and again for the answer to be ready.
    """

    body: int = 64 * 2**20
    seconds: float = 30.0


class Server:
    """Explainers behind the protocol's endpoints.

    Args:
        models: by name. Their queues are closed when the application ends, after all that waits is answered.
        limits: of one request.
    """

    def __init__(self, models: Mapping[str, Model], limits: Limits) -> None:
        self._models, self._limits, self._metrics = models, limits, Metrics(models)

    def application(self) -> Starlette:
        """The application that a server of the ASGI kind runs."""
        model = "/v2/models/{model}"
        routes = [
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
            Route("/v2", self._metadata),
            Route("/metrics", self._told),
        ]
        for prefix in (model, model + "/versions/{version}"):
            routes += [
                Route(prefix, self._model_metadata),
                Route(prefix + "/ready", self._model_ready),
                Route(prefix + "/infer", self._infer, methods=["POST"]),
            ]
        handlers = {HTTPException: _refused, RelcompileError: _failed}
        return Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        yield
        for queue in (queue for model in self._models.values() for queue in model.queues):
            await run_in_threadpool(queue.close)

    async def _live(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def _ready(self, _: Request) -> Response:
        ready = all(model.is_alive for model in self._models.values())
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def _metadata(self, _: Request) -> Response:
        facts = {"name": "relcompile", "version": version("relcompile"), "extensions": ["binary_tensor_data"]}
        return JSONResponse(facts)

    async def _told(self, _: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def _model_metadata(self, request: Request) -> Response:
        name, model = self._found(request)
        return JSONResponse(protocol.model_metadata(name, model.explainer.inputs, model.explainer.outputs))

    async def _model_ready(self, request: Request) -> Response:
        name, model = self._found(request)
        return JSONResponse({"name": name, "ready": model.is_alive}, 200 if model.is_alive else 503)

    async def _infer(self, request: Request) -> Response:
        name, model = self._found(request)
        status = 500
        try:
            response = await self._explained(name, model, request)
            status = response.status_code
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            self._metrics.count(name, status)
        return response

    async def _explained(self, name: str, model: Model, request: Request) -> Response:
        body = await self._body(request)
        began = time.monotonic()
        try:
            text, rest = protocol.parts(body, request.headers.get(protocol.HEADER_LENGTH))
            read = await done(len(text) * AS_TEXT, protocol.read_request, text, rest)
            wanted = read.wanted(model.names(read))
            async with asyncio.timeout(self._limits.seconds):
                found = await model.answer(read)
            size = sum(found[each.name].nbytes * (1 if each.binary else AS_TEXT) for each in wanted)
            content, length = await done(size, protocol.write_answer, name, read, wanted, found)
        except (protocol.ProtocolError, InputSpecError, TargetError) as error:
            raise HTTPException(400, str(error)) from error
        except OverloadedError as error:
            raise HTTPException(429, str(error), {"Retry-After": "1"}) from error
        except TimeoutError as error:
            raise HTTPException(504, f"there was no answer within {self._limits.seconds:g} seconds") from error
        self._metrics.explained(name, len(next(iter(found.values()))), time.monotonic() - began)
        if length is None:
            return Response(content, media_type="application/json")
        headers = {protocol.HEADER_LENGTH: str(length)}
        return Response(content, headers=headers, media_type="application/octet-stream")

    def _found(self, request: Request) -> tuple[str, Model]:
        """The model that an address names."""
        name = request.path_params["model"]
        if name not in self._models or request.path_params.get("version", VERSION) != VERSION:
            known = ", ".join(self._models)
            raise HTTPException(404, f"there is no such model, or version of one; there are {known}, version {VERSION}")
        return name, self._models[name]

    async def _body(self, request: Request) -> bytes:
        """The whole body, within the limits.

        What is too large is read and forgotten, so that the client is told; a client that asks before it sends its body
        (Expect: 100-continue) is told at once.
        """
        if "content-encoding" in request.headers:
            raise HTTPException(415, "the body is compressed, which is not supported; send it as it is")
        body, size, announced = bytearray(), 0, int(request.headers.get("content-length", 0))
        if request.headers.get("expect", "").lower() == "100-continue":
            self._require_size(announced)
        try:
            async with asyncio.timeout(self._limits.seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    body += chunk if size <= self._limits.body else b""
        except TimeoutError as error:
            self._require_size(announced)
            raise HTTPException(408, f"the body did not arrive within {self._limits.seconds:g} seconds") from error
        except ClientDisconnect as error:
            raise HTTPException(400, "the body ended early") from error
        self._require_size(size)
        return bytes(body)

    def _require_size(self, size: int) -> None:
        if size > self._limits.body:
            kept = f"more than the {self._limits.body:,} that are kept"
            raise HTTPException(413, f"the body has {size:,} bytes, {kept}; send fewer rows, or serve with --max-body")


async def _refused(request: Request, error: Exception) -> Response:
    """Errors have the form that the protocol's clients read; those of the framework say what to do instead."""
    assert isinstance(error, HTTPException)
    told = error.detail
    if error.status_code == 405:
        told = f"{request.method} does nothing at {request.url.path[:80]}; {_ADDRESSES}"
    elif told == HTTPStatus.NOT_FOUND.phrase:
        told = f"there is nothing at {request.url.path[:80]}; {_ADDRESSES}"
    return JSONResponse({"error": told}, error.status_code, error.headers)


async def _failed(_: Request, error: Exception) -> Response:
    """The explainer failed, for want of memory for example."""
    return JSONResponse({"error": str(error)}, 500)
