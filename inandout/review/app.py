"""The server of the review page: pictures by their digest, decisions in and out. It knows no path from outside."""

from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from inandout.data.images import read_image, read_mask
from inandout.data.manifest import Review, Sample
from inandout.errors import InputError
from inandout.reporting.figures import outline
from inandout.review.decisions import ConflictError, DecisionLog, PictureId, Reason, Reviewer
from inandout.review.flags import MEANING, count_flags
from inandout.review.prompt_lab import Room, Wish
from inandout.review.prompt_lab_api import serve_room
from inandout.review.session import Desk
from inandout.review.updates import news_since
from inandout.review.views import heat_map, thumbnail_webp, whole_png

REASONS = (
    "no defect to be seen", "does not look real", "another product or surface", "smeared or broken picture",
    "the same as another picture", "defect where none can be",
)  # fmt: skip
"""Why pictures are rejected mostly; offered by number."""
LABEL_REASONS = (
    "a defect was overlooked", "no defect to be seen", "dirt or a mark, no defect", "too faint to call a defect",
    "shows another product", "broken picture",
)  # fmt: skip
"""Why labels of real pictures are wrong mostly."""
BESIDE = 12
"""Real pictures of each kind that are shown beside."""

_SCRIPTS = ("words", "grid", "one", "review", "room")
_PAGE = {"review.css": "text/css"} | {f"{name}.js": "text/javascript" for name in _SCRIPTS}
_FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # what has a digest as its name cannot change


class Said(BaseModel):
    """A decision as the page sends it."""

    model_config = ConfigDict(extra="forbid")

    picture: PictureId
    verdict: Review
    reason: Reason = ""
    reviewer: Reviewer
    seen: int = Field(ge=0)


class Who(BaseModel):
    """Who wants to undo."""

    model_config = ConfigDict(extra="forbid")

    reviewer: Reviewer


class Painted(NamedTuple):
    """A prompt room, and what its form is filled with first."""

    room: Room
    start: Wish


def build_app(desk: Desk, log: DecisionLog, finish: Callable[[], str], painted: Painted | None = None) -> FastAPI:
    """The server.

    Args:
        desk: the pictures.
        log: where decisions go.
        finish: keeps what was decided so far for good, and says in a sentence where; may be called again.
        painted: the prompt room, where there is a base to draw with.
    """
    app = FastAPI(title="inandout review", docs_url=None, redoc_url=None, openapi_url=None)
    _answer_errors(app)
    _serve_page(app)
    _serve_pictures(app, desk)
    _serve_decisions(app, desk, log)
    if painted is not None:
        serve_room(app, painted.room, painted.start)

    @app.get("/api/desk")
    def the_desk() -> dict[str, Any]:
        return _describe(desk) | {"room": painted is not None}

    @app.post("/api/finish")
    def finish_now() -> dict[str, str]:
        return {"message": finish()}

    return app


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(InputError)
    def say(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=400)

    @app.exception_handler(ConflictError)
    def say_conflict(_: Request, __: ConflictError) -> JSONResponse:
        text = "You decided on this picture in another tab meanwhile; that is shown now. Decide again to change it."
        return JSONResponse({"error": text}, status_code=409)

    @app.exception_handler(RequestValidationError)
    def say_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        problems = [f"{'.'.join(str(part) for part in one['loc'][1:])}: {one['msg']}" for one in error.errors()]
        return JSONResponse({"error": "; ".join(problems)}, status_code=422)


def _serve_page(app: FastAPI) -> None:
    folder = files("inandout.review") / "page"

    @app.get("/")
    def page() -> Response:
        return Response((folder / "review.html").read_bytes(), media_type="text/html")

    @app.get("/favicon.ico")
    def no_icon() -> Response:
        return Response(status_code=204)

    @app.get("/page/{name}")
    def part(name: str) -> Response:
        if name not in _PAGE:
            raise HTTPException(404)
        return Response((folder / name).read_bytes(), media_type=_PAGE[name])


def _serve_pictures(app: FastAPI, desk: Desk) -> None:
    ids = set(desk.ids)

    def known(picture: str) -> str:
        if picture not in ids:
            raise HTTPException(404)
        return picture

    @lru_cache(maxsize=4096)
    def small(picture: str) -> bytes:
        sample = desk.real[picture] if picture in desk.real else desk.sample(picture)
        return thumbnail_webp(read_image(sample.image))

    @app.get("/small/{picture}")
    def thumbnail(picture: str) -> Response:
        return _picture(small(picture if picture in desk.real else known(picture)), "webp")

    @app.get("/whole/{picture}")
    def whole(picture: str) -> Response:
        return _picture(whole_png(read_image(desk.sample(known(picture)).image)), "png")

    @app.get("/labelled/{picture}")
    def labelled(picture: str) -> Response:
        sample = desk.sample(known(picture))
        if sample.mask is None:
            raise HTTPException(404)
        return _picture(whole_png(outline(read_image(sample.image), read_mask(sample.mask))), "png")

    @app.get("/api/twin/{picture}")
    def twin(picture: str) -> dict[str, str]:
        found = desk.twin(known(picture))
        if found is None:
            raise HTTPException(404)
        return {"state": found.state, "error": found.error}

    @app.get("/source/{picture}")
    def source(picture: str) -> Response:
        before = desk.source(known(picture))
        if before is None:
            raise HTTPException(404)
        return _picture(whole_png(before), "png")

    @app.get("/change/{picture}")
    def changed(picture: str) -> Response:
        before = desk.source(known(picture))
        if before is None:
            raise HTTPException(404)
        return _picture(whole_png(heat_map(read_image(desk.sample(picture).image), before)), "png")


def _serve_decisions(app: FastAPI, desk: Desk, log: DecisionLog) -> None:
    ids = set(desk.ids)

    @app.get("/api/news")
    def news(since: int = 0) -> dict[str, Any]:
        return news_since(desk, log.read(), since)

    @app.post("/api/decisions", status_code=201)
    def decide(said: Said) -> dict[str, bool]:
        if said.picture not in ids:
            raise HTTPException(404)
        log.decide(said.picture, said.verdict, said.reason, said.reviewer, said.seen)
        return {"saved": True}

    @app.post("/api/undo")
    def undo(who: Who) -> dict[str, str]:
        undone = log.undo(who.reviewer)
        return {"picture": undone.picture if undone else ""}


def _describe(desk: Desk) -> dict[str, Any]:
    """All that the page knows of the pictures; no paths."""
    pictures = [
        _describe_one(desk, place, picture, sample)
        for place, (picture, sample) in enumerate(zip(desk.ids, desk.samples, strict=True))
    ]  # fmt: skip
    beside = {label: [picture for picture, one in desk.real.items() if one.label == label][:BESIDE] for label in (1, 0)}
    flags = {flag: {"meaning": MEANING[flag], "pictures": count} for flag, count in count_flags(desk.flags).items()}
    return {
        "title": desk.title, "about": desk.about, "pictures": pictures, "flags": flags,
        "reasons": LABEL_REASONS if desk.about == "labels" else REASONS,
        "real_defects": beside[1], "real_good": beside[0],
    }  # fmt: skip


def _describe_one(desk: Desk, place: int, picture: str, sample: Sample) -> dict[str, Any]:
    return {
        "id": picture, "flags": desk.flags[place], "score": desk.scores[place] if desk.scores else None,
        "has_source": desk.has_source(sample), "has_twin": desk.has_twin(sample),
        "has_mask": desk.about == "labels" and sample.mask is not None,
        **sample.model_dump(mode="json", include={"prompt", "seed", "alpha", "origin", "defect", "label"}),
    }  # fmt: skip


def _picture(data: bytes, kind: str) -> Response:
    return Response(data, media_type=f"image/{kind}", headers=_FOR_EVER)
