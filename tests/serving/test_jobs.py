"""The one door: what a model cannot do is refused by name, and the rest becomes a job."""

from __future__ import annotations

import pytest

from serving.errors import InvalidInput, ModalityNotSupported, TaskNotFound
from serving.jobs import plan
from serving.models.spec import ModelSpec, TaskSpec
from serving.values import Ask, Image, Job, Output, Text
from tests.services import tasked, toy

HELLO = (Text("hello"),)


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


def test_an_image_to_a_text_model_is_refused_by_name_and_place() -> None:
    with pytest.raises(
        ModalityNotSupported, match="input 1 is an image; toy embeds text only"
    ) as e:
        job(toy(), items=(*HELLO, Image("data:image/png;base64,")))
    assert e.value.field == "input.1"


def test_an_image_to_a_model_of_images_is_taken() -> None:
    assert job(toy(modalities=("text", "image")), items=(Image("x"),)).items == (Image("x"),)


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


def test_the_rest_is_handed_on() -> None:
    done = job(toy(), truncate=True, service_class="bulk")
    assert (done.truncate, done.service_class) == (True, "bulk")
