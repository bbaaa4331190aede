"""The application: predictions, health, metrics, and a page to try it."""

import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from vadv_dist import __version__
from vadv_dist.serving.batcher import Answer, NoTokensError, QueueFullError
from vadv_dist.serving.gate import Draining, Gate
from vadv_dist.serving.metrics import ServeMetrics
from vadv_dist.serving.page import PAGE, PAGE_POLICY
from vadv_dist.serving.requests import (
    BadRequestError,
    ErrorResponse,
    PredictRequest,
    PredictResponse,
    texts_to_read,
)
from vadv_dist.serving.settings import ServeSettings, StudentFacts

_PATHS = frozenset({"/", "/docs", "/predict", "/model", "/healthz", "/readyz", "/metrics", "/openapi.json"})


class Predictor(Protocol):
    """What answers the texts of a request: a batcher in this process, or replicas on a Ray cluster."""

    async def predict(self, texts: list[str]) -> Answer:
        """Answer a request."""

    async def start(self) -> None:
        """Called before the first request."""

    async def close(self) -> None:
        """Called after the last request."""

    def problem(self) -> str | None:
        """Why no request will be answered, or None."""

    def is_healthy(self) -> bool:
        """Whether it may become able to answer without starting this process again."""

    @property
    def num_queued(self) -> int:
        """Texts that wait in this process."""


def create_app(
    build: Callable[[ServeMetrics], Predictor], facts: StudentFacts, settings: ServeSettings, draining: Draining
) -> Gate:
    """Build the application of a server.

    Args:
        build: returns what answers, given where it counts; called once, before the first request, in the event loop.
        facts: the student.
        settings: the server's limits.
        draining: set when the server is about to end.
    """
    parts: dict[str, Predictor] = {}

    def problem() -> str | None:
        if draining.is_on:
            return "the server is shutting down"
        return parts["predictor"].problem() if parts else "the server is starting"

    metrics = ServeMetrics(
        facts,
        queued=lambda: parts["predictor"].num_queued if parts else 0,
        is_ready=lambda: problem() is None,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        predictor = build(metrics)
        await predictor.start()
        parts["predictor"] = predictor
        yield
        await predictor.close()

    return Gate(
        _routes(parts, problem, metrics, facts, settings, lifespan),
        metrics=metrics,
        draining=draining,
        paths=_PATHS,
        timeout_s=settings.timeout_s,
        max_body_bytes=settings.max_body_bytes,
    )


def _routes(
    parts: dict[str, Predictor],
    problem: Callable[[], str | None],
    metrics: ServeMetrics,
    facts: StudentFacts,
    settings: ServeSettings,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
) -> FastAPI:
    app = FastAPI(
        title=f"vadv serve: {facts.name}",
        description="Predicts the sentiment of texts, in the units of the training labels.",
        version=__version__,
        docs_url=None,  # FastAPI's pages load scripts from another host
        redoc_url=None,
        lifespan=lifespan,
    )
    described = {
        **facts.to_json(),
        "limits": {
            "texts": settings.max_texts,
            "characters_per_text": settings.max_chars,
            "body_bytes": settings.max_body_bytes,
        },
    }
    model_text = json.dumps({key: value for key, value in described.items() if key != "limits"})

    @app.post(
        "/predict",
        summary="Predict the sentiment of texts",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": PredictRequest.model_json_schema()}},
            }
        },
        responses={
            200: {"model": PredictResponse},
            **{code: {"model": ErrorResponse} for code in (400, 413, 415, 422, 500, 503, 504)},
        },
    )
    async def predict(request: Request) -> Response:
        texts = texts_to_read(request.headers.get("content-type"), await request.body(), facts, settings)
        answer = await parts["predictor"].predict(texts)
        metrics.texts.inc(len(texts))
        metrics.tokens.inc(answer.num_tokens)
        metrics.truncated.inc(answer.num_truncated)
        for place, prediction in enumerate(answer.predictions):
            if not math.isfinite(prediction):
                return _error(500, f"The student predicts NaN or infinity for texts[{place}]. Its training diverged.")
        numbers = ", ".join(map(repr, answer.predictions))
        content = f'{{"predictions": [{numbers}], "truncated": {answer.num_truncated}, "model": {model_text}}}'
        return Response(content, media_type="application/json")

    @app.get("/model", summary="The student, its labels and the limits of a request")
    async def model() -> dict[str, Any]:
        return described

    @app.get("/healthz", summary="200 while the process works; else it should be started again")
    async def healthz() -> Response:
        if parts["predictor"].is_healthy():
            return JSONResponse({"healthy": True})
        return _error(503, f"Not healthy: {parts['predictor'].problem()}.")

    @app.get("/readyz", summary="200 if requests should be sent here")
    async def readyz() -> Response:
        found = problem()
        return JSONResponse({"ready": True}) if found is None else _error(503, f"Not ready: {found}.")

    @app.get("/metrics", summary="Metrics for Prometheus")
    async def read_metrics() -> Response:
        return Response(metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", include_in_schema=False)
    @app.get("/docs", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": PAGE_POLICY, "X-Content-Type-Options": "nosniff"})

    @app.exception_handler(BadRequestError)
    async def bad_request(request: Request, error: BadRequestError) -> Response:
        return _error(error.status, error.text)

    @app.exception_handler(NoTokensError)
    async def no_tokens(request: Request, error: NoTokensError) -> Response:
        return _error(422, f"The student's tokenizer returns no tokens for texts[{error.place}]. Give a word.")

    @app.exception_handler(QueueFullError)
    async def queue_full(request: Request, error: QueueFullError) -> Response:
        return _error(
            503,
            f"{settings.queue} texts are waiting already. Try again in {error.retry_after_s} s.",
            {"Retry-After": str(error.retry_after_s)},
        )

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        known = ", ".join(sorted(_PATHS - {"/docs"}))
        if error.status_code == 404:
            return _error(404, f"There is no {request.url.path[:100]!r} here, only {known}.")
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            text = f"{request.url.path} does not answer {request.method}, only {allowed}."
            return _error(405, text, dict(error.headers or {}))
        return _error(error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        # uvicorn logs the traceback; a client gets nothing of it.
        return _error(500, f"The server failed ({type(error).__name__}). Its log says more.")

    return app


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": text}, status, headers)
