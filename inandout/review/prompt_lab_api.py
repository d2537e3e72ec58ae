"""Routes of the prompt lab."""

from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from inandout.data.images import read_image
from inandout.review.prompt_lab import MAX_IMAGES, GenerationRequest, Prompt, PromptLab
from inandout.review.views import encode_png


class Choice(BaseModel):
    """A request to choose a prompt, or to remove it from the chosen ones."""

    model_config = ConfigDict(extra="forbid")

    prompt: Prompt
    use: bool


def serve_prompt_lab(app: FastAPI, lab: PromptLab, start: GenerationRequest) -> None:
    """Add the routes of the prompt lab to the application; `start` has the initial values of the form."""

    @app.get("/api/prompt-lab")
    def form() -> dict[str, Any]:
        return {"start": start.model_dump(mode="json"), "most": MAX_IMAGES}

    @app.get("/api/attempts")
    def attempts() -> dict[str, Any]:
        return {
            "attempts": [attempt.model_dump(mode="json") for attempt in lab.attempts()],
            "chosen": lab.chosen(),
            "option": lab.option(),
        }

    @app.post("/api/attempts", status_code=201)
    def submit(request: GenerationRequest) -> dict[str, int]:
        return {"id": lab.submit(request).id}

    @app.post("/api/prompts")
    def choose(choice: Choice) -> dict[str, list[str]]:
        return {"chosen": lab.choose(choice.prompt, choice.use)}

    @app.get("/attempt/{attempt}/{prompt}/{number}")
    def image(attempt: int, prompt: int, number: int) -> Response:
        path = lab.image(attempt, prompt, number)
        if path is None:
            raise HTTPException(404)
        return Response(encode_png(read_image(path)), media_type="image/png")
