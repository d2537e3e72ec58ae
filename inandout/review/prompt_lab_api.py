"""The prompt room's part of the server."""

from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from inandout.data.images import read_image
from inandout.review.prompt_lab import MOST_PICTURES, Prompt, Room, Wish
from inandout.review.views import whole_png


class Choice(BaseModel):
    """A prompt to use from now on, or no more."""

    model_config = ConfigDict(extra="forbid")

    prompt: Prompt
    use: bool


def serve_room(app: FastAPI, room: Room, start: Wish) -> None:
    """Add the prompt room to the server; `start` is what the form is filled with first."""

    @app.get("/api/room")
    def the_room() -> dict[str, Any]:
        return {"start": start.model_dump(mode="json"), "most": MOST_PICTURES}

    @app.get("/api/tries")
    def tries() -> dict[str, Any]:
        return {
            "tries": [one.model_dump(mode="json") for one in room.tries()],
            "chosen": room.chosen(),
            "option": room.option(),
        }

    @app.post("/api/tries", status_code=201)
    def wish(asked: Wish) -> dict[str, int]:
        return {"id": room.wish(asked).id}

    @app.post("/api/prompts")
    def choose(choice: Choice) -> dict[str, list[str]]:
        return {"chosen": room.choose(choice.prompt, choice.use)}

    @app.get("/try/{number}/{prompt}/{place}")
    def picture(number: int, prompt: int, place: int) -> Response:
        path = room.picture(number, prompt, place)
        if path is None:
            raise HTTPException(404)
        return Response(whole_png(read_image(path)), media_type="image/png")
