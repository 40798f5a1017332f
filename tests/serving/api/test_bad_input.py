"""Bad input is refused with the one error body: never a 500, and every problem is named."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.services import MODEL

NOT_JSON = {
    "empty": b"",
    "blanks": b" \n ",
    "broken": b'{"input": "a", ',
    "no_json_at_all": b"input=a&model=toy",
    "nan": b'{"model": "toy", "input": "a", "dimensions": NaN}',
    "infinity": b'{"model": "toy", "input": "a", "dimensions": -Infinity}',
    "number_beyond_doubles": b'{"model": "toy", "input": "a", "dimensions": 1e999}',
    "lone_surrogate": b'{"model": "toy", "input": "\\ud800"}',
    "lone_low_surrogate": b'{"model": "toy", "input": "a\\udc00b"}',
    "invalid_utf8": b'{"model": "toy", "input": "\xff\xfe"}',
    "utf8_surrogate": b'{"model": "toy", "input": "\xed\xa0\x80"}',
    "utf16": '{"model": "toy", "input": "a"}'.encode("utf-16"),
    "raw_nul": b'{"model": "toy", "input": "a\x00"}',
    "deep_arrays": b'{"model": "toy", "input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep_objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "unclosed_arrays": b"[" * 1_000_000,
    "trailing": b'{"model": "toy", "input": "a"} {}',
    "comment": b'{"model": "toy", /* why */ "input": "a"}',
    "single_quotes": b"{'model': 'toy', 'input': 'a'}",
}
NO_OBJECT = {"array": b"[]", "string": b'"a"', "number": b"5", "null": b"null", "true": b"true"}
WRONG: dict[str, list[object]] = {
    "model": [5, True, [], {}, "", ["toy"], 1.5, "x" * 257, None],
    "input": [
        *(5, 1.5, True, [], {}, [[]], [None], [True], [{}], ["a", 5], [["a"]], None),
        *({"text": 5}, {"text": None}, {"text": ["a"]}, {"image": 5}, {"image_url": {}}),
        *({"text": "a", "image": "b"}, {"content": []}, {"content": 5}, {"content": [5]}),
        *({"pdf": 5}, {"content": [{"image": "a"}, {"pdf": "b"}]}),
        *({"content": [{"content": ["a"]}]}, {"nothing": "known"}, {"image_url": {"url": 5}}),
    ],
    "task": [5, True, [], {}, "x" * 257],
    "input_type": [5, [], "unknown", "x" * 257],
    "dimensions": [
        *("x", "", "1.5", 1.5, True, False, [], {}, 0, -1, "0", "-4", "1" * 5000, "٣"),
        *(9, 10**18, 10**30, 1e300, "999999999999999999"),
    ],
    "normalized": [1, 0, "true", "yes", [], {}, 1.0],
    "truncate": [1, "END", "false", [], {}],
    "truncate_prompt_tokens": ["x", -2, True, [], 1.5, 0],
    "late_chunking": [1, "x", [], True],
    "return_multivector": [1, "x", {}, True],
    "return_dense": [1, "x", [], False],
    "return_sparse": [1, "x", [], True],
    "return_tokenized_input": [1, "x", [], True],
    "max_pixels": ["x", 0, -1, True, [], 1.5, 100],
    "embedding_type": [
        "hex",
        "",
        "FLOAT",
        5,
        True,
        {},
        [],
        [5],
        [None],
        ["float", "x"],
        [["float"]],
    ],
}
TOKEN_IDS: list[object] = [[1, 2, 3], [[1, 2], [3]], [0], [[1]], ["a", [1]]]


CASES = [
    pytest.param(field, value, id=f"{field}={str(value)[:24]}")
    for field, values in WRONG.items()
    for value in values
]


def is_error(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    """The body, which is the one error body."""
    body: dict[str, object] = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), answer.text[:300]
    assert isinstance(body["detail"], str)
    assert body["detail"]
    assert body["message"] == body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    error = body["error"]
    assert isinstance(error, dict)
    assert set(error) == {"message", "type", "param", "code"}
    assert ("errors" in body) == (status == 422)
    assert len(answer.content) < 8000
    return body


@pytest.mark.parametrize("name", NOT_JSON)
async def test_what_is_no_json(http: httpx.AsyncClient, name: str) -> None:
    answer = await http.post("/v1/embeddings", content=NOT_JSON[name])
    is_error(answer, 400, "INPUT_INVALID_JSON")


@pytest.mark.parametrize("name", NO_OBJECT)
async def test_json_that_is_no_object(http: httpx.AsyncClient, name: str) -> None:
    answer = await http.post("/v1/embeddings", content=NO_OBJECT[name])
    assert "must be a JSON object" in str(is_error(answer, 422, "INPUT_INVALID")["detail"])


@pytest.mark.parametrize(("field", "value"), CASES)
async def test_a_wrong_value_of_a_field(http: httpx.AsyncClient, field: str, value: object) -> None:
    body = {"model": "toy", "input": "a"} | {field: value}
    answer = await http.post("/v1/embeddings", content=json.dumps(body))
    problems = is_error(answer, 422, "INPUT_INVALID")["errors"]
    assert isinstance(problems, list)
    assert all(set(one) == {"field", "message", "type", "input"} for one in problems)
    assert problems[0]["field"].split(".")[0] == field


@pytest.mark.parametrize("value", TOKEN_IDS, ids=str)
async def test_token_ids_are_refused_with_what_to_do(
    http: httpx.AsyncClient, value: object
) -> None:
    answer = await http.post("/v1/embeddings", json={"model": "toy", "input": value})
    detail = is_error(answer, 422, "INPUT_INVALID")["detail"]
    assert "check_embedding_ctx_length=False" in str(detail)


async def test_every_problem_is_named_at_once(http: httpx.AsyncClient) -> None:
    body = {"input": [5], "dimensions": "x", "embedding_type": "hex", "truncate": 1}
    answer = await http.post("/v1/embeddings", json=body)
    problems = is_error(answer, 422, "INPUT_INVALID")["errors"]
    assert isinstance(problems, list)
    named = {one["field"] for one in problems}
    assert named == {"model", "input.0", "dimensions", "embedding_type", "truncate"}


async def test_an_unknown_encoding_is_refused_with_the_choices(http: httpx.AsyncClient) -> None:
    body = {"model": "toy", "input": "a", "encoding_format": "hex"}
    refused = is_error(await http.post("/v1/embeddings", json=body), 422, "INPUT_INVALID")
    for name in ("float", "base64", "binary", "ubinary", "int8", "uint8"):
        assert name in str(refused["detail"])
    assert refused["errors"][0]["field"] == "encoding_format"  # type: ignore[index]


async def test_missing_fields_are_missing(http: httpx.AsyncClient) -> None:
    refused = is_error(await http.post("/v1/embeddings", json={}), 422, "INPUT_INVALID")
    assert refused["errors"] == [
        {"field": name, "message": "is missing", "type": "missing", "input": None}
        for name in ("model", "input")
    ]


async def test_one_input_too_many(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/embeddings", json={"model": "toy", "input": ["a"] * 2049})
    assert "2049 items; at most 2048" in str(is_error(answer, 422, "INPUT_INVALID")["detail"])


async def test_a_large_wrong_input_is_not_repeated_whole(http: httpx.AsyncClient) -> None:
    body = {"model": "toy", "input": "a", "task": ["x" * 100_000], "dimensions": "y" * 100_000}
    is_error(await http.post("/v1/embeddings", json=body), 422, "INPUT_INVALID")
    body = {"model": "toy", "input": [{"text": 5}] * 2000}
    is_error(await http.post("/v1/embeddings", json=body), 422, "INPUT_INVALID")


async def test_an_unknown_model_is_refused_with_the_models(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/embeddings", json={"model": "gpt-9", "input": "a"})
    refused = is_error(answer, 404, "INPUT_MODEL_NOT_FOUND")
    assert f"{MODEL}, tasked, toy, able" in str(refused["detail"])


async def test_a_compressed_body_is_refused_by_name(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        "/v1/embeddings", content=b"\x1f\x8b", headers={"content-encoding": "gzip"}
    )
    assert "gzip" in str(is_error(answer, 400, "INPUT_INVALID_JSON")["detail"])


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-service-class", "fast"),
        *(("x-request-timeout-ms", wrong) for wrong in ("0", "-5", "soon", "9" * 5000)),
    ],
)
async def test_a_wrong_header_is_named(http: httpx.AsyncClient, header: str, value: str) -> None:
    answer = await http.post(
        "/v1/embeddings", json={"model": "toy", "input": "a"}, headers={header: value}
    )
    assert is_error(answer, 422, "INPUT_INVALID")["errors"][0]["field"] == header  # type: ignore[index]


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=x"],
)
async def test_the_content_type_is_not_looked_at(
    http: httpx.AsyncClient, content_type: str
) -> None:
    body = b'{"model": "toy", "input": "a"}'
    answer = await http.post("/v1/embeddings", content=body, headers={"content-type": content_type})
    assert answer.status_code == 200
