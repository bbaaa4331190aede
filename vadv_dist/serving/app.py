"""The application: results, health, metrics, and a page to try it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from vadv_dist import __version__
from vadv_dist.serving.batcher import Answer, NoTokensError, QueueFullError
from vadv_dist.serving.gate import Draining, Gate
from vadv_dist.serving.metrics import ServeMetrics
from vadv_dist.serving.page import PAGE, PAGE_POLICY
from vadv_dist.serving.requests import BadRequestError, ErrorResponse, NotFiniteError
from vadv_dist.serving.service import Service
from vadv_dist.serving.settings import ServeSettings

_PATHS = frozenset({"/", "/model", "/healthz", "/readyz", "/metrics", "/openapi.json"})
Route = TypeVar("Route", bound=Callable[..., Any])

_ERRORS = (400, 413, 415, 422, 500, 503, 504)


class Predictor(Protocol):
    """What answers the items of a request: a batcher in this process, or replicas on a Ray cluster."""

    async def predict(self, items: list[Any]) -> Answer:
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
        """Items that wait in this process."""


class Application:
    """The routes of a server, and the state that they share.

    Args:
        build: returns what answers, given where it counts; called once, before the first request, in the event loop.
        service: what is offered.
        settings: the server's limits.
        draining: set when the server is about to end.
    """

    def __init__(
        self, build: Callable[[ServeMetrics], Predictor], service: Service, settings: ServeSettings, draining: Draining
    ) -> None:
        self._build, self._service, self._settings, self._draining = build, service, settings, draining
        self._predictor: Predictor | None = None
        self.metrics = ServeMetrics(
            service.name,
            service.items,
            queued=lambda: self._predictor.num_queued if self._predictor else 0,
            is_ready=lambda: self._problem() is None,
        )

    def routes(self) -> FastAPI:
        """The application that FastAPI runs."""
        app = FastAPI(
            title=f"vadv serve: {self._service.name}",
            description=self._service.description,
            version=__version__,
            docs_url=None,  # FastAPI's pages load scripts from another host
            redoc_url=None,
            lifespan=self._lifespan,
        )
        self._add_results(app)
        self._add_state(app)
        self._add_page(app)
        self._add_errors(app)
        return app

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        predictor = self._build(self.metrics)
        await predictor.start()
        self._predictor = predictor
        yield
        await predictor.close()

    def _problem(self) -> str | None:
        """Why no request should be sent here, or None."""
        if self._draining.is_on:
            return "the server is shutting down"
        return self._running.problem() if self._predictor else "the server is starting"

    @property
    def _running(self) -> Predictor:
        assert self._predictor is not None  # no request comes before `_lifespan`
        return self._predictor

    def _add_results(self, app: FastAPI) -> None:
        service = self._service
        schema = {**service.request.model_json_schema(), "examples": [service.body]}

        @app.post(
            service.path,
            summary=service.summary,
            openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}},
            responses={200: {"model": service.response}, **{code: {"model": ErrorResponse} for code in _ERRORS}},
        )
        async def results(request: Request) -> Response:
            items = service.read(request.headers.get("content-type"), await request.body())
            answer = await self._running.predict(items)
            self.metrics.count(answer)
            return Response(service.write(answer), media_type="application/json")

    def _add_state(self, app: FastAPI) -> None:
        limits: dict[str, int] = {self._service.items: self._settings.max_texts}
        if self._service.items == "texts":
            limits["characters_per_text"] = self._settings.max_chars
        described = {
            **self._service.to_json(),
            "limits": {**limits, "body_bytes": self._settings.max_body_bytes},
        }

        @_reads(app, "/model", "The student, and the limits of a request")
        async def model() -> dict[str, Any]:
            return described

        @_reads(app, "/healthz", "200 while the process works; otherwise restart it")
        async def healthz() -> Response:
            if self._running.is_healthy():
                return JSONResponse({"healthy": True})
            return _error(503, f"Not healthy: {self._running.problem()}.")

        @_reads(app, "/readyz", "200 if requests should be sent here")
        async def readyz() -> Response:
            found = self._problem()
            return JSONResponse({"ready": True}) if found is None else _error(503, f"Not ready: {found}.")

        @_reads(app, "/metrics", "Metrics for Prometheus")
        async def metrics() -> Response:
            return Response(self.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def _add_page(self, app: FastAPI) -> None:
        headers = {"Content-Security-Policy": PAGE_POLICY, "X-Content-Type-Options": "nosniff"}

        @_reads(app, "/")
        @_reads(app, "/docs")
        async def page() -> Response:
            return HTMLResponse(PAGE, headers=headers)

    def _add_errors(self, app: FastAPI) -> None:
        service = self._service
        known = ", ".join(sorted(_PATHS | {service.path}))

        @app.exception_handler(BadRequestError)
        async def bad_request(request: Request, error: BadRequestError) -> Response:
            return _error(error.status, error.text)

        @app.exception_handler(NoTokensError)
        async def no_tokens(request: Request, error: NoTokensError) -> Response:
            return _error(422, f"The student's tokenizer returns no tokens for texts[{error.place}]. Give a word.")

        @app.exception_handler(NotFiniteError)
        async def not_finite(request: Request, error: NotFiniteError) -> Response:
            return _error(500, f"The student predicts NaN or infinity for {error.where}. Its training diverged.")

        @app.exception_handler(QueueFullError)
        async def queue_full(request: Request, error: QueueFullError) -> Response:
            return _error(
                503,
                f"The queue of {self._settings.queue:,} {service.items} is full. Try again in {error.retry_after_s} s.",
                {"Retry-After": str(error.retry_after_s)},
            )

        @app.exception_handler(HTTPException)
        async def http_error(request: Request, error: HTTPException) -> Response:
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


def _reads(app: FastAPI, path: str, summary: str | None = None) -> Callable[[Route], Route]:
    """Answer GET and HEAD; GET is in the description if it has a summary."""

    def add(route: Route) -> Route:
        app.get(path, summary=summary, include_in_schema=summary is not None)(route)
        app.head(path, include_in_schema=False)(route)
        return route

    return add


def create_app(
    build: Callable[[ServeMetrics], Predictor], service: Service, settings: ServeSettings, draining: Draining
) -> Gate:
    """The application of a server behind its `Gate`; arguments as in `Application`."""
    application = Application(build, service, settings, draining)
    return Gate(
        application.routes(),
        metrics=application.metrics,
        draining=draining,
        timed_path=service.path,
        paths=_PATHS | {service.path, "/docs"},
        timeout_s=settings.timeout_s,
        max_body_bytes=settings.max_body_bytes,
    )


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": text}, status, headers)
