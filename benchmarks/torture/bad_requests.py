"""Malformed requests to a served model: each must be answered with 4xx and one sentence, or correctly."""

import base64
import gzip
import io
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pandas as pd
from PIL import Image

from benchmarks.torture.outcome import Outcome, unclear

JSON = {"content-type": "application/json"}
WRONG_VALUES: list[Any] = [
    None, True, 0, -1, 3.5, 1e308, 10**30, 10**4000, "", "x", "\0", "\ud800", "é" * 99, [], {}, [[]], [[[]]], {"a": {}},
    [None], [[1, None]], [[[1, 2]]], [[[256, 0, 0]]], [[10**30]], [["1"]], [[True]], [[1.0]], "data:image/png;base64,",
]  # fmt: skip
WRONG_TEXTS = [
    b"", b" ", b"{", b"}", b"[]", b"null", b"1", b'"x"', b"NaN", b"\xff\xfe", b"\0", b"\xef\xbb\xbf{}", b"{}{}",
    b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b'{"dataframe_records":[{"image":' + b"[" * 5000,
    b'{"dataframe_records":' + b"9" * 5000 + b"}", b'{"dataframe_records":[{"image":NaN}]}',
    b'{"dataframe_records":[{"image":[[Infinity]]}]}', b'{"dataframe_records":[{"image":[[-Infinity]]}]}',
    b'{"dataframe_records":[{"image":"","image":""}]}', b'{"params":{},"params":{}}', b"image,path\na,b\n", b"'{}'",
]  # fmt: skip
WRONG_HEADERS: list[dict[str, str]] = [
    {}, {"content-type": ""}, {"content-type": "text/csv"}, {"content-type": "application/vnd.apache.parquet"},
    {"content-type": "image/png"}, {"content-type": "application/json; charset=latin-1"},
    {"content-type": "application/json; a=b"}, {"content-type": "application/x-www-form-urlencoded"},
    {"content-type": "multipart/form-data"}, {"content-type": "x" * 3000}, JSON | {"content-encoding": "gzip"},
    JSON | {"content-encoding": "zstd"},
]  # fmt: skip


class BadRequest(NamedTuple):
    """A request and its fault."""

    name: str
    body: bytes
    headers: dict[str, str]


class Answer(NamedTuple):
    """Status and text of a response."""

    status: int
    text: str


def small_png() -> str:
    """Return an image of 8x8 pixels as base64."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (90, 90, 90)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def bad_requests(count: int, seed: int = 0) -> Iterator[BadRequest]:
    """Yield `count` requests: the listed ones first, then random changes of valid ones."""
    listed = list(_listed())
    rng = random.Random(seed)
    if count < len(listed):
        listed = rng.sample(listed, count)
    yield from listed
    for number in range(count - len(listed)):
        yield _random(number, rng)


def _valid() -> dict[str, Any]:
    image = small_png()
    return {"dataframe_records": [{"image": image}, {"image": image}], "params": {"heatmap": False}}


def _listed() -> Iterator[BadRequest]:
    image = small_png()
    for i, text in enumerate(WRONG_TEXTS):
        yield BadRequest(f"text {i} {text[:20]!r}", text, JSON)
    valid = json.dumps(_valid()).encode()
    for i, headers in enumerate(WRONG_HEADERS):
        yield BadRequest(f"headers {i}", valid, headers)
    table = io.BytesIO()
    pd.DataFrame({"image": ["x" * 10] * 10_000}).to_parquet(table)
    yield BadRequest("parquet", table.getvalue(), {"content-type": "application/vnd.apache.parquet"})
    yield BadRequest("csv", b"image\n" + image.encode(), {"content-type": "text/csv"})
    yield BadRequest("gzip", gzip.compress(valid), JSON | {"content-encoding": "gzip"})
    for i, value in enumerate(WRONG_VALUES):
        bodies = {
            "body": value, "records": {"dataframe_records": value}, "row": {"dataframe_records": [value]},
            "image": {"dataframe_records": [{"image": image}, {"image": value}]},
            "path": {"dataframe_records": [{"path": value}]},
            "params": {"dataframe_records": [{"image": image}], "params": value},
            "rule": {"dataframe_records": [{"image": image}], "params": {"rule": value}},
            "heatmap": {"dataframe_records": [{"image": image}], "params": {"heatmap": value}},
            "unknown key": _valid() | {"extra": value}, "split": {"dataframe_split": value},
            "columns": {"dataframe_split": {"columns": value, "data": [[image]]}},
            "data": {"dataframe_split": {"columns": ["image"], "data": value}},
            "inputs": {"inputs": value}, "instances": {"instances": {"image": value}},
        }  # fmt: skip
        for place, body in bodies.items():
            yield BadRequest(f"{place} = value {i}", _dump(body), JSON)


def _dump(value: object) -> bytes:
    if value == 10**4000:  # beyond the limit of Python's conversion
        return b"1" + b"0" * 4000
    return json.dumps(value, default=str).encode()


def _random(number: int, rng: random.Random) -> BadRequest:
    """Return a valid request with random bytes removed, inserted or changed."""
    body = bytearray(json.dumps(_valid()).encode())
    for _ in range(rng.randint(1, 3)):
        place, how = rng.randrange(len(body) + 1), rng.choice(["cut", "insert", "change", "repeat"])
        if how == "cut":
            del body[place:]
        elif how == "insert":
            body[place:place] = bytes([rng.randrange(256)])
        elif how == "change":
            body[place : place + 1] = bytes([rng.randrange(256)])
        else:
            body[place:place] = body[:place]
    return BadRequest(f"random {number}", bytes(body), JSON)


def answer_is_unclear(answer: Answer) -> str:
    """Return why an answer is neither a prediction nor 4xx with one sentence; "" if it is one of them."""
    try:
        content = json.loads(answer.text)
    except ValueError:
        return f"status {answer.status}, not JSON: {answer.text[:200]!r}"
    if answer.status == 200:
        return "" if content.keys() == {"predictions"} else f"status 200 without predictions: {answer.text[:200]}"
    if not 400 <= answer.status < 500:
        return f"status {answer.status}: {answer.text[:300]}"
    message = content.get("message") or content.get("detail") if isinstance(content, dict) else None
    if not isinstance(message, str) or "\n" in message:
        return f"no sentence: {answer.text[:300]}"
    return unclear(message)


def send_all(count: int, send: Callable[[BadRequest], Answer]) -> Outcome:
    """Send `count` malformed requests, then a valid one, which must be answered."""
    outcome = Outcome("malformed requests")
    for request in bad_requests(count):
        outcome.count(request.name, unclear=answer_is_unclear(send(request)))
    last = send(BadRequest("valid", json.dumps(_valid()).encode(), JSON))
    if last.status != 200:
        outcome.count("valid request afterwards", lost=f"status {last.status}: {last.text[:300]}")
    return outcome
