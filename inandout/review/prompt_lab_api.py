"""The prompt lab's part of the server."""

from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from inandout.data.images import read_image
from inandout.review.prompt_lab import MAX_IMAGES, GenerationRequest, Prompt, PromptLab
from inandout.review.views import whole_png


class Choice(BaseModel):
    """A prompt to use from now on, or no more."""

    model_config = ConfigDict(extra="forbid")

    prompt: Prompt
    use: bool


def serve_prompt_lab(app: FastAPI, lab: PromptLab, start: GenerationRequest) -> None:
    """Add the prompt lab to the server; `start` is what the form is filled with first."""

    @app.get("/api/prompt-lab")
    def the_lab() -> dict[str, Any]:
        return {"start": start.model_dump(mode="json"), "most": MAX_IMAGES}

    @app.get("/api/attempts")
    def attempts() -> dict[str, Any]:
        return {
            "attempts": [one.model_dump(mode="json") for one in lab.attempts()],
            "chosen": lab.chosen(),
            "option": lab.option(),
        }

    @app.post("/api/attempts", status_code=201)
    def submit(asked: GenerationRequest) -> dict[str, int]:
        return {"id": lab.submit(asked).id}

    @app.post("/api/prompts")
    def choose(choice: Choice) -> dict[str, list[str]]:
        return {"chosen": lab.choose(choice.prompt, choice.use)}

    @app.get("/attempt/{number}/{prompt}/{place}")
    def image(number: int, prompt: int, place: int) -> Response:
        path = lab.image(number, prompt, place)
        if path is None:
            raise HTTPException(404)
        return Response(whole_png(read_image(path)), media_type="image/png")
