"""`POST /v1/embeddings`: every spelling that clients use, and what comes back."""

from __future__ import annotations

import base64

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import given as given_any
from hypothesis import settings
from hypothesis import strategies as some

from serving.api.dialects.jina import NAMES, read
from serving.errors import InvalidInput
from serving.values import Fused, Image, Item, Output, Pdf, Text
from tests.services import MODEL

DATA_URI = "data:image/png;base64,iVBORw0KGgo="
DATA_PDF = "data:application/pdf;base64,JVBERi0="
VERY_LONG = "dog " * 300


async def post(http: httpx.AsyncClient, **body: object) -> dict[str, object]:
    answer = await http.post("/v1/embeddings", json={"model": "toy", "input": "hi"} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def first(http: httpx.AsyncClient, **body: object) -> object:
    return (await post(http, **body))["data"][0]["embedding"]  # type: ignore[index]


def items(value: object) -> tuple[Item, ...]:
    return read({"model": "m", "input": value}, 100).items


repeatably = settings(derandomize=True, database=None, deadline=None, max_examples=80)
JSON = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-(2**63), 2**64 - 1)
    | some.floats()
    | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text() | some.just("text"), inner),
    max_leaves=6,
)
KNOWN = sorted({name for names in NAMES.values() for name in names})


def refusal(body: dict[str, object]) -> object:
    """The problems found, or None."""
    try:
        read(body, 100)
    except InvalidInput as refused:
        return refused.problems
    return None


@repeatably
@given_any(some.dictionaries(some.sampled_from(KNOWN), JSON, max_size=5))
def test_any_json_is_read_or_refused_with_problems_that_can_be_written(
    body: dict[str, object],
) -> None:
    problems = refusal(body)
    assert problems is None or len(orjson.dumps(problems)) < 10_000


@repeatably
@given_any(some.lists(some.text()) | some.text(), some.sampled_from(["float", "base64", None]))
def test_a_plain_body_is_read_as_one_that_spells_out_its_defaults(
    value: object, encoding: str | None
) -> None:
    plain = {"model": "m", "input": value, "encoding_format": encoding}
    spelt = plain | {"normalized": True, "truncate": False, "late_chunking": False}
    assert refusal(plain) == refusal(spelt)
    if refusal(plain) is None:
        assert read(plain, 100) == read(spelt, 100)


async def test_the_answer_has_openais_shape(http: httpx.AsyncClient) -> None:
    answer = await post(http, input=["hi", "there"])
    assert list(answer) == ["object", "model", "data", "usage"]
    assert (answer["object"], answer["model"]) == ("list", "toy")
    assert [(one["object"], one["index"]) for one in answer["data"]] == [  # type: ignore[attr-defined]
        ("embedding", 0),
        ("embedding", 1),
    ]
    assert answer["usage"] == {"prompt_tokens": 11, "total_tokens": 11}


@pytest.mark.parametrize("name", ["toy", "org/toy", "jina-ai/toy"])
async def test_the_models_own_id_comes_back(http: httpx.AsyncClient, name: str) -> None:
    assert (await post(http, model=name))["model"] == "toy"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", [Text("a")]),
        ("", [Text("")]),
        ([""], [Text("")]),
        (["a", "b"], [Text("a"), Text("b")]),
        ({"text": "a"}, [Text("a")]),
        ({"text": ""}, [Text("")]),
        ([{"text": "a"}, "b"], [Text("a"), Text("b")]),
        ({"text": "a", "image": None}, [Text("a")]),
        ({"image": "x"}, [Image("x")]),
        ({"url": "https://x"}, [Image("https://x")]),
        ([{"bytes": "aGk="}], [Image("aGk=")]),
        (DATA_URI, [Image(DATA_URI)]),
        (["a", DATA_URI], [Text("a"), Image(DATA_URI)]),
        ([{"type": "text", "text": "a"}], [Text("a")]),
        ([{"type": "image_url", "image_url": {"url": "u"}}], [Image("u")]),
        ([{"type": "image_url", "image_url": "u"}], [Image("u")]),
        ([{"type": "image_base64", "image_base64": "u"}], [Image("u")]),
        ({"content": [{"type": "text", "text": "a"}, {"text": "b"}, "c"]}, [Text("a\nb\nc")]),
        ({"content": "a"}, [Text("a")]),
        ({"content": [{"image": "x"}]}, [Image("x")]),
        (
            {"content": ["a", {"image": "x"}, {"type": "text", "text": "b"}]},
            [Fused((Text("a"), Image("x"), Text("b")))],
        ),
        ({"content": [DATA_URI, DATA_URI]}, [Fused((Image(DATA_URI), Image(DATA_URI)))]),
        ({"pdf": "x"}, [Pdf("x")]),
        ([{"pdf": "x"}], [Pdf("x")]),
        (DATA_PDF, [Pdf(DATA_PDF)]),
        ("iVBORw0KGgo=", [Text("iVBORw0KGgo=")]),
        ("data:,a", [Text("data:,a")]),
    ],
)
def test_inputs_in_every_form(value: object, expected: list[Item]) -> None:
    assert items(value) == tuple(expected)


@pytest.mark.parametrize("name", NAMES["input"])
async def test_the_input_has_several_names(http: httpx.AsyncClient, name: str) -> None:
    answer = await http.post("/v1/embeddings", json={"model": "toy", name: ["hi"]})
    assert answer.json()["data"][0]["embedding"] == await first(http, input="hi")


@pytest.mark.parametrize("field", ["input", "task", "dimensions", "truncate", "embedding_type"])
def test_the_first_name_that_is_not_null_counts(field: str) -> None:
    values: dict[str, list[object]] = {
        "input": ["a", "b", "c"],
        "task": ["a", "b", "c"],
        "dimensions": [1, 2, 3],
        "truncate": [True, False],
        "embedding_type": ["int8", "uint8", "binary", "base64"],
    }
    given = dict(zip(NAMES[field], values[field], strict=True))
    needed = {"model": "m"} | ({} if field == "input" else {"input": "x"})
    for name in NAMES[field]:
        backwards = dict(reversed(given.items()))
        assert read(needed | given, 9) == read(needed | backwards, 9)
        assert read(needed | given, 9) == read(needed | {name: given[name]}, 9)
        given[name] = None


async def test_every_optional_field_may_be_null(http: httpx.AsyncClient) -> None:
    optional = {
        name: None for field in NAMES if field not in ("model", "input") for name in NAMES[field]
    }
    assert await post(http, **optional) == await post(http)


async def test_unknown_fields_are_ignored(http: httpx.AsyncClient) -> None:
    assert await post(http, user="me", nonsense={"a": [1]}, priority=3) == await post(http)


@pytest.mark.parametrize("value", [4, "4", " 4 ", "+4", 4.0])
async def test_dimensions_may_be_a_string_of_digits(http: httpx.AsyncClient, value: object) -> None:
    assert len(await first(http, model="tasked", dimensions=value)) == 4  # type: ignore[arg-type]


async def test_normalized_false_leaves_the_length(http: httpx.AsyncClient) -> None:
    lengths = [
        np.linalg.norm(await first(http, normalized=value))  # type: ignore[arg-type]
        for value in (True, None, False)
    ]
    assert lengths[:2] == pytest.approx([1, 1], abs=1e-6)
    assert lengths[2] != pytest.approx(1, abs=1e-2)


async def test_a_long_text_is_refused_with_the_counts_unless_it_may_be_cut(
    http: httpx.AsyncClient,
) -> None:
    body: dict[str, object] = {"model": MODEL, "input": VERY_LONG}
    refused = await http.post("/v1/embeddings", json=body)
    assert (refused.status_code, refused.json()["code"]) == (400, "INPUT_TOKEN_LIMIT_EXCEEDED")
    assert "302" in refused.json()["detail"]
    assert "256" in refused.json()["detail"]
    for flag in ({"truncate": True}, {"truncation": True}, {"truncate_prompt_tokens": 256}):
        assert (await post(http, **body, **flag))["usage"]["total_tokens"] == 256  # type: ignore[index]
    refused = await http.post("/v1/embeddings", json=body | {"truncate_prompt_tokens": 100})
    assert refused.status_code == 422
    assert "256 tokens only" in refused.json()["detail"]


async def test_a_task_by_any_of_its_fields_names(http: httpx.AsyncClient) -> None:
    for name in NAMES["task"]:
        await post(http, model="tasked", **{name: "retrieval.query"})
        refused = await http.post(
            "/v1/embeddings", json={"model": "tasked", "input": "a", name: "retrieval"}
        )
        assert (refused.status_code, refused.json()["code"]) == (400, "INPUT_TASK_NOT_FOUND")
        assert "retrieval.query, retrieval.passage, separation" in refused.json()["detail"]


async def test_base64_is_the_same_floats_little_endian(http: httpx.AsyncClient) -> None:
    encoded = await first(http, embedding_type="base64")
    assert isinstance(encoded, str)
    floats = np.frombuffer(base64.b64decode(encoded), "<f4")
    np.testing.assert_array_equal(floats, np.array(await first(http), np.float32))


@pytest.mark.parametrize(
    ("name", "width", "least", "most"),
    [
        ("int8", 8, -127, 127),
        ("uint8", 8, 1, 255),
        ("binary", 1, -128, 127),
        ("ubinary", 1, 0, 255),
    ],
)
async def test_number_types_come_as_lists_of_integers(
    http: httpx.AsyncClient, name: str, width: int, least: int, most: int
) -> None:
    numbers = await first(http, embedding_type=name)
    assert isinstance(numbers, list)
    assert len(numbers) == width
    assert all(type(one) is int and least <= one <= most for one in numbers)


async def test_a_list_of_one_type_is_that_type(http: httpx.AsyncClient) -> None:
    single = await first(http, embedding_type="ubinary")
    assert await first(http, embedding_type=["ubinary"]) == single
    assert await first(http, embedding_type=["ubinary", "ubinary"]) == single


async def test_several_types_come_as_an_object_in_the_order_asked(http: httpx.AsyncClient) -> None:
    types = ["ubinary", "float", "base64", "int8", "uint8", "binary"]
    several = await first(http, embedding_type=types)
    assert isinstance(several, dict)
    assert list(several) == types
    for name, value in several.items():
        assert value == await first(http, embedding_type=name)


async def test_openais_default_gives_way_to_an_explicit_type(http: httpx.AsyncClient) -> None:
    both = await first(http, encoding_format="base64", embedding_type="float")
    assert isinstance(both, list)


async def test_the_order_is_that_of_the_inputs(http: httpx.AsyncClient) -> None:
    texts = [f"text {i}" for i in range(50)]
    answer = await post(http, input=texts)
    assert [one["index"] for one in answer["data"]] == list(range(50))  # type: ignore[attr-defined]
    for i in (0, 17, 49):
        assert answer["data"][i]["embedding"] == await first(http, input=texts[i])  # type: ignore[index]


async def test_a_large_answer_is_whole(http: httpx.AsyncClient) -> None:
    answer = await post(http, model=MODEL, input=["a"] * 300)
    assert [one["index"] for one in answer["data"]] == list(range(300))  # type: ignore[attr-defined]


async def test_as_many_inputs_as_openai_takes(http: httpx.AsyncClient) -> None:
    answer = await post(http, input=["a"] * 2048, embedding_type="ubinary")
    assert len(answer["data"]) == 2048  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "👩‍👩‍👧 \U0010ffff", " " * 50, "‮", "\n"])
async def test_odd_texts_are_texts(http: httpx.AsyncClient, text: str) -> None:
    await post(http, model=MODEL, input=text)


@pytest.mark.parametrize(
    "field", ["late_chunking", "return_multivector", "return_colbert_vecs", "return_sparse"]
)
async def test_what_a_model_does_not_is_refused_by_its_name(
    http: httpx.AsyncClient, field: str
) -> None:
    assert await post(http, **{field: False}) == await post(http)
    refused = await http.post(
        "/v1/embeddings", json={"model": "org/toy", "input": "a", field: True}
    )
    assert refused.status_code == 422
    assert refused.json()["error"]["param"] in NAMES.get(field, ("return_multivector",))
    assert "toy " in refused.json()["detail"]


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ({"return_multivector": True}, Output(dense=False, multi=True)),
        ({"return_colbert_vecs": True}, Output(dense=False, multi=True)),
        ({"return_colbert_vecs": True, "return_multivector": False}, Output()),
        ({"return_multivector": True, "return_dense": True}, Output(multi=True)),
        ({"return_sparse": True}, Output(sparse=True)),
        ({"return_sparse": True, "return_dense": False}, Output(dense=False, sparse=True)),
        (
            {"return_multivector": True, "return_tokenized_input": True},
            Output(dense=False, multi=True, tokens=True),
        ),
    ],
)
def test_what_is_returned_is_said_in_jinas_words_or_flagembeddings(
    body: dict[str, object], output: Output
) -> None:
    assert read({"model": "m", "input": "x"} | body, 9).options.output == output


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"image": "x"}, "input.0"),
        (DATA_URI, "input.0"),
        (["a", DATA_URI], "input.1"),
        ({"pdf": "x"}, "input.0"),
        (["a", {"audio": "x"}], "input.1.audio"),
        ({"content": [{"text": "a"}, {"image": "x"}]}, "input.0"),
    ],
)
async def test_what_is_no_text_is_refused_by_the_models_name(
    http: httpx.AsyncClient, value: object, field: str
) -> None:
    refused = await http.post("/v1/embeddings", json={"model": "toy", "input": value})
    body = refused.json()
    assert (refused.status_code, body["code"]) == (400, "INPUT_MODALITY_NOT_SUPPORTED")
    assert body["error"]["param"] == field
    assert "toy " in body["detail"]


async def test_an_unknown_model_counts_before_what_it_cannot_do(http: httpx.AsyncClient) -> None:
    refused = await http.post("/v1/embeddings", json={"model": "x", "input": {"pdf": "x"}})
    assert (refused.status_code, refused.json()["code"]) == (404, "INPUT_MODEL_NOT_FOUND")
    assert f"{MODEL}, tasked, toy, able" in refused.json()["detail"]
