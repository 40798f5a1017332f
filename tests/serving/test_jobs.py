"""The one door: what a model cannot do is refused by name, and the rest becomes a job."""

from __future__ import annotations

import pytest

from serving.errors import InvalidInput, ModalityNotSupported, TaskNotFound
from serving.jobs import plan
from serving.models.spec import ModelSpec, Pairwise, TaskSpec
from serving.values import Ask, Fused, Image, Item, Job, Output, Pair, Pdf, Text
from tests.services import able, tasked, toy

HELLO = (Text("hello"),)
FUSED = Fused((Text("a"), Image("x")))


def job(spec: ModelSpec, **wanted: object) -> Job:
    return plan(spec, Ask(**({"model": "any", "items": HELLO} | wanted)), max_inputs=3)  # type: ignore[arg-type]


def test_a_job_is_of_the_models_own_name() -> None:
    assert job(toy()) == Job("toy", HELLO)


def test_no_items_are_refused() -> None:
    with pytest.raises(InvalidInput, match="input is empty"):
        job(toy(), items=())


def test_the_largest_number_of_items_is_taken_and_one_more_is_not() -> None:
    assert len(job(toy(), items=HELLO * 3).items) == 3
    with pytest.raises(InvalidInput, match="4 items; at most 3"):
        job(toy(), items=HELLO * 4)


@pytest.mark.parametrize(
    ("item", "kind"), [(Image("x"), "an image"), (Pdf("x"), "a PDF"), (FUSED, "an image with text")]
)
def test_an_image_to_a_text_model_is_refused_by_name_and_place(item: Item, kind: str) -> None:
    with pytest.raises(
        ModalityNotSupported, match=f"input 1 is {kind}; toy embeds text only"
    ) as refused:
        job(toy(), items=(*HELLO, item))
    assert refused.value.field == "input.1"


@pytest.mark.parametrize("items", [(Image("x"), *HELLO, FUSED), (Pdf("x"),)])
def test_an_image_to_a_model_of_images_is_taken(items: tuple[Item, ...]) -> None:
    assert job(able(), items=items).items == items


def test_a_pdf_is_the_only_input_of_its_request() -> None:
    with pytest.raises(InvalidInput, match="input 1 is a PDF, which must be the only") as refused:
        job(able(), items=(*HELLO, Pdf("x")))
    assert refused.value.field == "input.1"


@pytest.mark.parametrize("pixels", [1, 7840])
def test_the_bound_of_images_may_be_lowered(pixels: int) -> None:
    assert job(able(), max_pixels=pixels).max_pixels == pixels


@pytest.mark.parametrize("pixels", [0, -1, 7841])
def test_a_bound_of_images_beyond_the_models_own_is_refused_with_it(pixels: int) -> None:
    with pytest.raises(InvalidInput, match="between 1 and 7840, the bound of able") as refused:
        job(able(), max_pixels=pixels)
    assert refused.value.field == "max_pixels"


def test_a_text_model_has_no_bound_of_images() -> None:
    with pytest.raises(InvalidInput, match="toy embeds no images; leave max_pixels out"):
        job(toy(), max_pixels=100)


def test_what_a_model_can_give_is_planned_whole() -> None:
    output = Output(None, dense=False, multi=True, sparse=True, tokens=True)
    assert job(able(), output=output).output == output
    assert job(able(), late_chunking=True).late_chunking


@pytest.mark.parametrize(
    ("wanted", "field", "sentence"),
    [
        ({"output": Output(multi=True)}, "return_multivector", "toy gives one vector per input"),
        ({"output": Output(sparse=True)}, "return_sparse", "toy has no sparse weights"),
        ({"late_chunking": True}, "late_chunking", "toy has no late chunking"),
    ],
)
def test_what_a_model_has_not_is_refused_by_its_name(
    wanted: dict[str, object], field: str, sentence: str
) -> None:
    with pytest.raises(InvalidInput, match=f"{sentence}.*leave {field} out") as refused:
        job(toy(), **wanted)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"output": Output(tokens=True)}, "return_tokenized_input"),
        ({"output": Output(dense=False)}, "return_dense"),
        ({"output": Output(8, dense=False, multi=True)}, "dimensions"),
        ({"output": Output(4, dense=True, multi=True)}, "dimensions"),
        ({"output": Output(None, False, dense=False, multi=True)}, "normalized"),
        ({"late_chunking": True, "items": (Image("x"),)}, "late_chunking"),
        ({"late_chunking": True, "items": (Pdf("x"),)}, "late_chunking"),
        ({"late_chunking": True, "items": (*HELLO, FUSED)}, "late_chunking"),
        ({"late_chunking": True, "output": Output(multi=True)}, "return_multivector"),
        ({"late_chunking": True, "output": Output(sparse=True)}, "return_sparse"),
    ],
)
def test_what_does_not_go_together_is_refused_by_its_field(
    wanted: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidInput, match=field) as refused:
        job(able(), **wanted)
    assert refused.value.field == field


def test_a_task_is_taken_by_its_name_or_another_name_of_it() -> None:
    assert job(tasked(), task="retrieval.query").task == "retrieval.query"
    assert job(tasked(), task="query").task == "retrieval.query"


def test_an_omitted_task_is_the_models_default() -> None:
    assert job(tasked()).task == "retrieval.passage"
    assert job(toy()).task is None


def test_an_unknown_task_is_refused_with_the_tasks() -> None:
    with pytest.raises(TaskNotFound, match=r"'retrieval'.* retrieval\.query, retrieval\.passage"):
        job(tasked(), task="retrieval")
    with pytest.raises(TaskNotFound, match="toy has no task"):
        job(toy(), task="retrieval.query")


@pytest.mark.parametrize(
    ("role", "task"),
    [
        ("query", "retrieval.query"),
        ("search_query", "retrieval.query"),
        ("document", "retrieval.passage"),
        ("search_document", "retrieval.passage"),
        ("clustering", "separation"),
        ("classification", "retrieval.passage"),
        ("image", "retrieval.passage"),
    ],
)
def test_a_hint_means_the_models_own_task_or_its_default(role: str, task: str) -> None:
    assert job(tasked(), role=role).task == task


def test_a_hint_finds_the_names_of_sentence_transformers_too() -> None:
    spec = toy(tasks=(TaskSpec("query"), TaskSpec("document")))
    assert job(spec, role="search_query").task == "query"
    assert job(spec, role="search_document").task == "document"


def test_a_hint_means_nothing_to_a_model_without_tasks() -> None:
    assert job(toy(), role="query").task is None


def test_a_task_counts_more_than_a_hint() -> None:
    assert job(tasked(), task="separation", role="query").task == "separation"


def test_an_unknown_hint_is_refused_with_the_choices() -> None:
    with pytest.raises(InvalidInput, match="input_type 'x' is unknown; it may be query"):
        job(toy(), role="x")


def test_the_full_width_is_no_shortening() -> None:
    assert job(tasked(), output=Output(8)).output == Output(None)
    assert job(tasked(), output=Output(4)).output == Output(4)
    assert job(tasked(), output=Output(None, normalized=False)).output == Output(None, False)


def test_a_default_width_counts_where_none_is_asked_for() -> None:
    spec = toy(matryoshka=(2, 4), default_dimensions=4)
    assert job(spec).output == Output(4)
    assert job(spec, output=Output(8)).output == Output(None)


@pytest.mark.parametrize("wanted", [3, 9, 10**30])
def test_another_width_is_refused_with_the_sizes(wanted: int) -> None:
    with pytest.raises(InvalidInput, match="its sizes: 2, 4, 8"):
        job(tasked(), output=Output(wanted))


@pytest.mark.parametrize("wanted", [2, 5, 7])
def test_any_width_from_the_least_on_is_taken(wanted: int) -> None:
    assert job(able(), output=Output(wanted)).output == Output(wanted)


@pytest.mark.parametrize("wanted", [1, 9])
def test_a_width_outside_the_range_is_refused_with_the_range(wanted: int) -> None:
    with pytest.raises(InvalidInput, match="its sizes: 2 to 8"):
        job(able(), output=Output(wanted))


def test_the_rest_is_handed_on() -> None:
    ask = Ask("any", HELLO, truncate=True)
    done = plan(toy(), ask, 3, "bulk")
    assert (done.truncate, done.service_class) == (True, "bulk")


# Rerankers

PAIR = Pair(Text("q"), Text("d"))
RERANKER = toy(id="ranks", reranker=Pairwise("", "{query}{document}", ""))


def test_a_reranker_takes_pairs() -> None:
    wanted = {"items": (PAIR,), "field": "documents", "document_tokens": 9}
    found = job(RERANKER, **wanted)
    assert (found.items, found.field, found.document_tokens) == ((PAIR,), "documents", 9)


@pytest.mark.parametrize("item", [Text("a"), Image("x"), Pdf("x"), FUSED])
def test_a_reranker_embeds_nothing(item: Item) -> None:
    with pytest.raises(ModalityNotSupported, match=r"ranks embeds nothing.*/v1/rerank") as refused:
        job(RERANKER, items=(item,))
    assert refused.value.field == "model"


def test_a_model_that_embeds_scores_no_pairs() -> None:
    with pytest.raises(ModalityNotSupported, match="is a query with a document; able embeds"):
        job(able(), items=(PAIR,))


@pytest.mark.parametrize(
    ("pair", "field"),
    [(Pair(Image("x"), Text("d")), "query"), (Pair(Text("q"), Image("x")), "documents.0")],
)
def test_an_image_to_a_reranker_of_texts_is_refused_by_its_side(pair: Pair, field: str) -> None:
    with pytest.raises(ModalityNotSupported, match="is an image; ranks ranks text only") as refused:
        job(RERANKER, items=(pair,), field="documents")
    assert refused.value.field == field


def test_an_instruction_is_for_rerankers_that_take_one() -> None:
    pair = Pair(Text("q"), Text("d"), "find code")
    with pytest.raises(InvalidInput, match="ranks takes no instruction"):
        job(RERANKER, items=(pair,))
    told = toy(reranker=Pairwise("", "{query}{document}", "", instruction="find"))
    assert job(told, items=(pair,)).items == (pair,)


@pytest.mark.parametrize("output", [Output(dimensions=4), Output(multi=True), Output(sparse=True)])
def test_a_reranker_gives_one_number_and_no_other_output(output: Output) -> None:
    with pytest.raises(InvalidInput):
        job(RERANKER, items=(PAIR,), output=output)
