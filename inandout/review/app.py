"""The web application of the review page. Clients address images by digest and never by path."""

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
from inandout.review.views import encode_png, heat_map, thumbnail_webp

REASONS = (
    "no visible defect", "does not look real", "another product or surface", "smeared or broken image",
    "duplicate of another image", "defect at an impossible place",
)  # fmt: skip
"""Common reasons for rejecting an image, offered by number."""
LABEL_REASONS = (
    "a defect was overlooked", "no visible defect", "dirt or a mark, no defect", "too faint to call a defect",
    "shows another product", "broken image",
)  # fmt: skip
"""Common reasons for a wrong label of a real image."""
MAX_REFERENCES = 12
"""Maximum number of real images of each label shown for comparison."""

_SCRIPTS = ("words", "grid", "one", "review", "prompt_lab")
_PAGE = {"review.css": "text/css"} | {f"{name}.js": "text/javascript" for name in _SCRIPTS}
_IMMUTABLE = {"Cache-Control": "private, max-age=31536000, immutable"}  # addresses contain a digest of the content


class DecisionRequest(BaseModel):
    """A decision as sent by the page."""

    model_config = ConfigDict(extra="forbid")

    image: ImageId
    decision: Review
    reason: Reason = ""
    reviewer: Reviewer
    seen: int = Field(ge=0)


class UndoRequest(BaseModel):
    """A request to undo the last decision of a reviewer."""

    model_config = ConfigDict(extra="forbid")

    reviewer: Reviewer


class PromptLabPage(NamedTuple):
    """A prompt lab and the initial values of its form."""

    lab: PromptLab
    start: GenerationRequest


def build_app(
    session: ReviewSession, log: DecisionLog, finish: Callable[[], str], lab_page: PromptLabPage | None = None
) -> FastAPI:
    """Build the web application.

    Args:
        session: the images to review.
        log: log of the decisions.
        finish: stores the current decisions and returns a sentence on where; may be called repeatedly.
        lab_page: the prompt lab, if a base model is available.
    """
    app = FastAPI(title="inandout review", docs_url=None, redoc_url=None, openapi_url=None)
    _answer_errors(app)
    _serve_page(app)
    _serve_images(app, session)
    _serve_decisions(app, session, log)
    if lab_page is not None:
        serve_prompt_lab(app, lab_page.lab, lab_page.start)

    @app.get("/api/session")
    def read_session() -> dict[str, Any]:
        return _describe(session) | {"prompt_lab": lab_page is not None}

    @app.post("/api/finish")
    def finish_review() -> dict[str, str]:
        return {"message": finish()}

    return app


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(InputError)
    def answer_input_error(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=400)

    @app.exception_handler(ConflictError)
    def answer_conflict(_: Request, __: ConflictError) -> JSONResponse:
        text = "You decided on this image in another tab; the page now shows that decision. Decide again to change it."
        return JSONResponse({"error": text}, status_code=409)

    @app.exception_handler(RequestValidationError)
    def answer_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        problems = [
            f"{'.'.join(str(part) for part in problem['loc'][1:])}: {problem['msg']}" for problem in error.errors()
        ]
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
    def page_file(name: str) -> Response:
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
    def cached_thumbnail(image: str) -> bytes:
        sample = session.real[image] if image in session.real else session.sample(image)
        return thumbnail_webp(read_image(sample.image))

    @app.get("/small/{image}")
    def thumbnail(image: str) -> Response:
        return _image(cached_thumbnail(image if image in session.real else known(image)), "webp")

    @app.get("/whole/{image}")
    def full_size(image: str) -> Response:
        return _image(encode_png(read_image(session.sample(known(image)).image)), "png")

    @app.get("/labelled/{image}")
    def labelled(image: str) -> Response:
        sample = session.sample(known(image))
        if sample.mask is None:
            raise HTTPException(404)
        return _image(encode_png(outline(read_image(sample.image), read_mask(sample.mask))), "png")

    @app.get("/api/base-preview/{image}")
    def preview(image: str) -> dict[str, str]:
        status = session.preview(known(image))
        if status is None:
            raise HTTPException(404)
        return {"state": status.state, "error": status.error}

    @app.get("/source/{image}")
    def source(image: str) -> Response:
        original = session.source(known(image))
        if original is None:
            raise HTTPException(404)
        return _image(encode_png(original), "png")

    @app.get("/change/{image}")
    def difference(image: str) -> Response:
        original = session.source(known(image))
        if original is None:
            raise HTTPException(404)
        return _image(encode_png(heat_map(read_image(session.sample(image).image), original)), "png")


def _serve_decisions(app: FastAPI, session: ReviewSession, log: DecisionLog) -> None:
    ids = set(session.ids)

    @app.get("/api/updates")
    def updates(since: int = 0) -> dict[str, Any]:
        return updates_since(session, log.read(), since)

    @app.post("/api/decisions", status_code=201)
    def decide(request: DecisionRequest) -> dict[str, bool]:
        if request.image not in ids:
            raise HTTPException(404)
        log.decide(request.image, request.decision, request.reason, request.reviewer, request.seen)
        return {"saved": True}

    @app.post("/api/undo")
    def undo(request: UndoRequest) -> dict[str, str]:
        undone = log.undo(request.reviewer)
        return {"image": undone.image if undone else ""}


def _describe(session: ReviewSession) -> dict[str, Any]:
    """Return the data of the page, without paths."""
    images = [
        _describe_image(session, index, image, sample)
        for index, (image, sample) in enumerate(zip(session.ids, session.samples, strict=True))
    ]  # fmt: skip
    references = {
        label: [image for image, sample in session.real.items() if sample.label == label][:MAX_REFERENCES]
        for label in (1, 0)
    }  # fmt: skip
    flags = {flag: {"meaning": MEANING[flag], "images": count} for flag, count in count_flags(session.flags).items()}
    return {
        "title": session.title, "about": session.about, "images": images, "flags": flags,
        "reasons": LABEL_REASONS if session.about == "labels" else REASONS,
        "real_defects": references[1], "real_good": references[0],
    }  # fmt: skip


def _describe_image(session: ReviewSession, index: int, image: str, sample: Sample) -> dict[str, Any]:
    return {
        "id": image, "flags": session.flags[index], "score": session.scores[index] if session.scores else None,
        "has_source": session.has_source(sample), "has_preview": session.has_preview(sample),
        "has_mask": session.about == "labels" and sample.mask is not None,
        **sample.model_dump(mode="json", include={"prompt", "seed", "alpha", "origin", "defect", "label"}),
    }  # fmt: skip


def _image(data: bytes, kind: str) -> Response:
    return Response(data, media_type=f"image/{kind}", headers=_IMMUTABLE)
