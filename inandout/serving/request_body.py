"""Checks of a request body before MLflow's server reads it: one JSON object of known keys and types."""

import json
from collections.abc import Iterable
from typing import Any, NoReturn

from inandout.errors import InputError, did_you_mean
from inandout.serving.request_images import check_number

COLUMNS = ("image", "path")
PARAMS: dict[str, type] = {"heatmap": bool, "rule": str}
_FORMATS = ("dataframe_records", "dataframe_split", "inputs", "instances")


def check_body(body: bytes) -> bytes:
    """Return the request as JSON with the keys `dataframe_records` and `params`.

    MLflow itself ignores unknown keys and answers some malformed bodies with status 500.

    Raises:
        InputError: the body is not JSON, a key is unknown, missing or repeated, or a value has the wrong type.
    """
    request = _parse(body)
    if not isinstance(request, dict):
        raise InputError(f"the body is {_kind(request)}; send an object with dataframe_records and, optionally, params")
    _refuse_unknown(request, [*_FORMATS, "params"], "the body")
    given = [name for name in _FORMATS if name in request]
    if len(given) != 1:
        raise InputError(f"the body has {' and '.join(given) or 'no images'}; send dataframe_records, a list of images")
    _check_params(request.get("params"))
    rows = _rows(given[0], request[given[0]])
    check_number(len(rows))
    for i, row in enumerate(rows):
        _check_row(row, f"image {i}")
    if given == ["dataframe_records"]:
        return body
    return json.dumps({"dataframe_records": rows, "params": request.get("params")}).encode()


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except InputError:
        raise
    except RecursionError as error:
        raise InputError("the body is nested too deeply; send dataframe_records, a list of images") from error
    except UnicodeDecodeError as error:
        raise InputError("the body is not UTF-8; send JSON in UTF-8") from error
    except ValueError as error:
        raise InputError(f"the body is not JSON ({str(error)[:100]}); send a JSON object") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InputError(f"the key {name[:100]!r} is repeated in one object; give it once")
        found[name] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise InputError(f"the body is not JSON ({name} is no JSON number); send null or leave the key out")


def _check_params(params: object) -> None:
    if params is None:
        return
    if not isinstance(params, dict):
        raise InputError(f"params is {_kind(params)}; send an object with the keys {' and '.join(PARAMS)}")
    _refuse_unknown(params, PARAMS, "params")
    for name, kind in PARAMS.items():
        if name in params and not isinstance(params[name], kind):
            wanted = "true or false" if kind is bool else "text"
            raise InputError(f"params: {name} is {_kind(params[name])}; send {wanted}, or leave it out")


def _rows(name: str, value: Any) -> list[Any]:
    """Return one object per image; MLflow's other formats are tables by column."""
    if name == "dataframe_split":
        if not isinstance(value, dict) or not all(isinstance(value.get(key), list) for key in ("columns", "data")):
            raise InputError("dataframe_split has no lists columns and data; send dataframe_records, a list of images")
        _refuse_unknown(value, ("columns", "data", "index"), name)
        columns = value["columns"]
        _refuse_unknown(columns, COLUMNS, name)
        if any(not isinstance(row, list) or len(row) != len(columns) for row in value["data"]):
            raise InputError(f"dataframe_split: every row of data needs {len(columns)} values, one per column")
        return [dict(zip(columns, row, strict=True)) for row in value["data"]]
    if name in ("inputs", "instances") and isinstance(value, dict):
        _refuse_unknown(value, COLUMNS, name)
        if not all(isinstance(column, list) for column in value.values()) or len(set(map(len, value.values()))) != 1:
            raise InputError(f"{name}: the columns need equally long lists; send dataframe_records, a list of images")
        return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    if not isinstance(value, list):
        raise InputError(f"{name} is {_kind(value)}; send a list with one object per image")
    return value


def _check_row(row: Any, name: str) -> None:
    if not isinstance(row, dict):
        raise InputError(f"{name} is {_kind(row)}; send an object with image or path")
    _refuse_unknown(row, COLUMNS, name)
    if not isinstance(row.get("path"), str | None):
        raise InputError(f"{name}: path is {_kind(row['path'])}; send the name of a file as text")
    if not isinstance(row.get("image"), str | list | None):
        raise InputError(
            f"{name}: image is {_kind(row['image'])}; send base64 text, or pixel values (H, W, 3) or (H, W) as lists"
        )


def _refuse_unknown(given: Iterable[Any], known: Iterable[str], place: str) -> None:
    for name in given:
        if not isinstance(name, str) or name not in known:
            raise InputError(
                f"{place} has the unknown key {str(name)[:100]!r}{did_you_mean(str(name)[:100], known)}; "
                f"known are {', '.join(known)}"
            )


def _kind(value: object) -> str:
    """Return the JSON type of a value."""
    if value is None:
        return "null"
    kinds = {bool: "true or false", str: "text", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")
