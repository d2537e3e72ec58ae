"""The server of the review page: images by their digest, decisions in and out. It knows no path from outside."""

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
from inandout.review.decisions import ConflictError, DecisionLog, ImageId, Reason, Reviewer
from inandout.review.flags import MEANING, count_flags
from inandout.review.prompt_lab import GenerationRequest, PromptLab
from inandout.review.prompt_lab_api import serve_prompt_lab
from inandout.review.session import ReviewSession
from inandout.review.updates import updates_since
from inandout.review.views import heat_map, thumbnail_webp, whole_png

REASONS = (
    "no defect to be seen", "does not look real", "another product or surface", "smeared or broken image",
    "the same as another image", "defect where none can be",
)  # fmt: skip
"""Why images are rejected mostly; offered by number."""
LABEL_REASONS = (
    "a defect was overlooked", "no defect to be seen", "dirt or a mark, no defect", "too faint to call a defect",
    "shows another product", "broken image",
)  # fmt: skip
"""Why labels of real images are wrong mostly."""
BESIDE = 12
"""Real images of each kind that are shown beside."""

_SCRIPTS = ("words", "grid", "one", "review", "prompt_lab")
_PAGE = {"review.css": "text/css"} | {f"{name}.js": "text/javascript" for name in _SCRIPTS}
_FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # what has a digest as its name cannot change


class DecisionRequest(BaseModel):
    """A decision as the page sends it."""

    model_config = ConfigDict(extra="forbid")

    image: ImageId
    decision: Review
    reason: Reason = ""
    reviewer: Reviewer
    seen: int = Field(ge=0)


class UndoRequest(BaseModel):
    """Who wants to undo."""

    model_config = ConfigDict(extra="forbid")

    reviewer: Reviewer


class PromptLabPage(NamedTuple):
    """A prompt lab, and what its form is filled with first."""

    lab: PromptLab
    start: GenerationRequest


def build_app(
    session: ReviewSession, log: DecisionLog, finish: Callable[[], str], lab_page: PromptLabPage | None = None
) -> FastAPI:
    """The server.

    Args:
        session: the images.
        log: where decisions go.
        finish: keeps what was decided so far for good, and says in a sentence where; may be called again.
        lab_page: the prompt lab, where there is a base to draw with.
    """
    app = FastAPI(title="inandout review", docs_url=None, redoc_url=None, openapi_url=None)
    _answer_errors(app)
    _serve_page(app)
    _serve_images(app, session)
    _serve_decisions(app, session, log)
    if lab_page is not None:
        serve_prompt_lab(app, lab_page.lab, lab_page.start)

    @app.get("/api/session")
    def the_session() -> dict[str, Any]:
        return _describe(session) | {"prompt_lab": lab_page is not None}

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
        text = "You decided on this image in another tab meanwhile; that is shown now. Decide again to change it."
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


def _serve_images(app: FastAPI, session: ReviewSession) -> None:
    ids = set(session.ids)

    def known(image: str) -> str:
        if image not in ids:
            raise HTTPException(404)
        return image

    @lru_cache(maxsize=4096)
    def small(image: str) -> bytes:
        sample = session.real[image] if image in session.real else session.sample(image)
        return thumbnail_webp(read_image(sample.image))

    @app.get("/small/{image}")
    def thumbnail(image: str) -> Response:
        return _image(small(image if image in session.real else known(image)), "webp")

    @app.get("/whole/{image}")
    def whole(image: str) -> Response:
        return _image(whole_png(read_image(session.sample(known(image)).image)), "png")

    @app.get("/labelled/{image}")
    def labelled(image: str) -> Response:
        sample = session.sample(known(image))
        if sample.mask is None:
            raise HTTPException(404)
        return _image(whole_png(outline(read_image(sample.image), read_mask(sample.mask))), "png")

    @app.get("/api/base-preview/{image}")
    def preview(image: str) -> dict[str, str]:
        found = session.preview(known(image))
        if found is None:
            raise HTTPException(404)
        return {"state": found.state, "error": found.error}

    @app.get("/source/{image}")
    def source(image: str) -> Response:
        before = session.source(known(image))
        if before is None:
            raise HTTPException(404)
        return _image(whole_png(before), "png")

    @app.get("/change/{image}")
    def changed(image: str) -> Response:
        before = session.source(known(image))
        if before is None:
            raise HTTPException(404)
        return _image(whole_png(heat_map(read_image(session.sample(image).image), before)), "png")


def _serve_decisions(app: FastAPI, session: ReviewSession, log: DecisionLog) -> None:
    ids = set(session.ids)

    @app.get("/api/updates")
    def updates(since: int = 0) -> dict[str, Any]:
        return updates_since(session, log.read(), since)

    @app.post("/api/decisions", status_code=201)
    def decide(said: DecisionRequest) -> dict[str, bool]:
        if said.image not in ids:
            raise HTTPException(404)
        log.decide(said.image, said.decision, said.reason, said.reviewer, said.seen)
        return {"saved": True}

    @app.post("/api/undo")
    def undo(who: UndoRequest) -> dict[str, str]:
        undone = log.undo(who.reviewer)
        return {"image": undone.image if undone else ""}


def _describe(session: ReviewSession) -> dict[str, Any]:
    """All that the page knows of the images; no paths."""
    images = [
        _describe_one(session, place, image, sample)
        for place, (image, sample) in enumerate(zip(session.ids, session.samples, strict=True))
    ]  # fmt: skip
    beside = {label: [image for image, one in session.real.items() if one.label == label][:BESIDE] for label in (1, 0)}
    flags = {flag: {"meaning": MEANING[flag], "images": count} for flag, count in count_flags(session.flags).items()}
    return {
        "title": session.title, "about": session.about, "images": images, "flags": flags,
        "reasons": LABEL_REASONS if session.about == "labels" else REASONS,
        "real_defects": beside[1], "real_good": beside[0],
    }  # fmt: skip


def _describe_one(session: ReviewSession, place: int, image: str, sample: Sample) -> dict[str, Any]:
    return {
        "id": image, "flags": session.flags[place], "score": session.scores[place] if session.scores else None,
        "has_source": session.has_source(sample), "has_preview": session.has_preview(sample),
        "has_mask": session.about == "labels" and sample.mask is not None,
        **sample.model_dump(mode="json", include={"prompt", "seed", "alpha", "origin", "defect", "label"}),
    }  # fmt: skip


def _image(data: bytes, kind: str) -> Response:
    return Response(data, media_type=f"image/{kind}", headers=_FOR_EVER)
