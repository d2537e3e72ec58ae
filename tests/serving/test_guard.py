"""MLflow's own application behind the guard, in this process, with a model of one weight."""

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fastapi
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from mlflow.models import Model
from mlflow.pyfunc import PyFuncModel, scoring_server
from mlflow.pyfunc.model import PythonModelContext

from benchmarks.torture.bad_requests import Answer, BadRequest, send_all, small_png
from inandout.data.config import Geometry
from inandout.errors import InputError
from inandout.evaluation.operating_points import OperatingPoint
from inandout.serving import guard, servable
from inandout.serving.log_model import signature
from inandout.serving.request_body import check_body
from inandout.serving.servable import Servable
from inandout.serving.settings import Settings


class Loaded:
    """What MLflow calls after it has loaded a `PythonModel`."""

    def __init__(self, model: Servable) -> None:
        self.model = model

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        return self.model.predict(PythonModelContext({}, {}), data, params)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    model = Servable()
    point = OperatingPoint(
        rule="validation", threshold=0.0, measured_on="validation", recall=None, fpr=None, escapes=None,
        false_rejects=None,
    )  # fmt: skip
    model.settings = Settings(
        geometry=Geometry(width=32, height=32), points=(point,), default="validation", run="r", code="c", heat_maps=""
    )
    model.version = "tiny"
    meta = Model(signature=signature("validation"), flavors={"python_function": {"loader_module": "none"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(servable, "predict", lambda _, pixels: pixels.mean(axis=(1, 2, 3)))
        patch.setattr(servable, "heat_maps", lambda _, pixels: np.zeros(pixels.shape[:3]))
        patch.setattr(fastapi, "FastAPI", guard.GuardedApi)
        model.model = None  # type: ignore[assignment]
        with TestClient(scoring_server.init(PyFuncModel(meta, Loaded(model))), raise_server_exceptions=False) as made:
            yield made


def post(client: TestClient, body: object, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post("/invocations", content=content, headers=headers or {"content-type": "application/json"})
    return Answer(answer.status_code, answer.text)


def test_malformed_requests_get_4xx_and_one_sentence(client: TestClient) -> None:
    def send(request: BadRequest) -> Answer:
        answer = client.post("/invocations", content=request.body, headers=request.headers)
        return Answer(answer.status_code, answer.text)

    outcome = send_all(450, send)
    assert outcome.tried == outcome.survived == 450, "\n".join(outcome.notes[:20])


def test_every_format_of_mlflow_is_answered(client: TestClient) -> None:
    image = small_png()
    bodies = [
        {"dataframe_records": [{"image": image}, {"image": [[90]]}], "params": None},
        {"dataframe_split": {"columns": ["image"], "data": [[image], [[[90]]]]}, "params": {"rule": "validation"}},
        {"inputs": [{"image": image}, {"image": [[90]]}]}, {"instances": {"image": [image, [[90]]]}},
    ]  # fmt: skip
    for body in bodies:
        answer = post(client, body)
        assert answer.status == 200, answer
        assert [row["logit"] for row in json.loads(answer.text)["predictions"]] == [90.0, 90.0]
    assert post(client, bodies[0], **{"content-type": "Application/JSON; Charset=UTF-8"}).status == 200


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"dataframe_records": [], "params": {"rul": "x"}}, "unknown key 'rul'; did you mean 'rule'.; known are heat"),
        ({"dataframe_records": [{"image": "", "imag": 1}]}, "image 0 has the unknown key 'imag'; did you mean 'image'"),
        ({"dataframe_records": [], "parms": {}}, "unknown key 'parms'; did you mean 'params'"),
        (b'{"params": {"rule": "a", "rule": "b"}}', "the key 'rule' is repeated"),
        (b"[" * 9999, "nested too deeply"),
        (b'{"dataframe_records": [{"image": NaN}]}', "NaN is no JSON number"),
        ({"dataframe_records": [{}] * 257}, "257 images in the request; send 1 to 256"),
        ({"dataframe_records": [{"image": {}}]}, "image 0: image is an object; send base64 text"),
    ],
)
def test_a_wrong_key_or_type_is_named(body: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_body(body if isinstance(body, bytes) else json.dumps(body).encode())


def test_a_repeated_key_among_many_is_named_in_a_moment() -> None:
    keys = [f'"{number}": 0' for number in [*range(200_000), 199_999]]
    started = time.monotonic()
    with pytest.raises(InputError, match=r"^the key '199999' is repeated in one object; give it once$"):
        check_body(f"{{{', '.join(keys)}}}".encode())
    assert time.monotonic() - started < 30, "it takes minutes if each key is counted"


def test_a_body_is_refused_by_its_stated_and_by_its_real_size(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = {"content-type": "application/json"}
    stated = post(client, b"{}", **kind, **{"content-length": "99999999"})
    assert (stated.status, json.loads(stated.text)["message"]) == (
        413, "the body exceeds the limit of 25,165,824 bytes; send fewer or smaller images",
    )  # fmt: skip
    monkeypatch.setattr(guard, "MAX_BODY", 100)
    chunks = (b"x" * 60 for _ in range(9))
    streamed = client.post("/invocations", content=chunks, headers=kind)
    assert streamed.status_code == 413, streamed.text


def test_one_request_is_computed_at_a_time_and_few_bodies_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends slowly is refused, and waiting has an end."""
    monkeypatch.setattr(guard, "MAX_BODIES", 2)
    monkeypatch.setattr(guard, "MAX_READ_SECONDS", 0.05)
    body = json.dumps({"dataframe_records": [{"image": small_png()}]}).encode()
    answers: list[int] = []
    active, most, read = 0, 0, 0

    async def compute(scope: Any, receive: Any, send: Any) -> None:
        nonlocal active, most
        active, most = active + 1, max(most, active + 1)
        assert (await receive())["body"] == body
        await released.wait()
        active -= 1
        answers.append(200)

    guarded, released = guard.Guard(compute), asyncio.Event()

    async def ask(slow: bool = False) -> None:
        async def receive() -> Any:
            nonlocal read
            read += 1
            await asyncio.sleep(1 if slow else 0)
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answers.append(message["status"])

        headers = [(b"content-type", b"application/json")]
        await guarded({"type": "http", "method": "POST", "path": "/invocations", "headers": headers}, receive, send)

    async def ask_all() -> None:
        nonlocal read
        await ask(slow=True)
        monkeypatch.setattr(guard, "MAX_READ_SECONDS", 30.0)
        read = 0
        four = [asyncio.create_task(ask()) for _ in range(4)]
        await asyncio.sleep(0.1)
        assert read == 2
        released.set()
        await asyncio.gather(*four)
        released.clear()
        monkeypatch.setattr(guard, "MAX_WAIT_SECONDS", 0.1)
        first = asyncio.create_task(ask())
        await asyncio.gather(ask(), ask())
        released.set()
        await first

    with ThreadPoolExecutor(1) as thread:  # Playwright leaves an event loop in the main thread
        thread.submit(asyncio.run, ask_all()).result()
    assert most == 1
    assert answers == [408, 200, 200, 200, 200, 503, 503, 200]
