"""Data URIs and base64 of every spelling, and what is neither."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from serving.errors import MediaInvalid, MediaTooLarge
from serving.media import Wanted
from serving.media.inline import decode, scheme_of

WANTED = Wanted("input.1", "image", 300, "media.image_bytes")
DATA = bytes(range(251, 256)) + bytes(range(200))
PLAIN = base64.b64encode(DATA).decode()
SAFE = base64.urlsafe_b64encode(DATA).decode()


@pytest.mark.parametrize(
    "source",
    [
        PLAIN,
        SAFE,
        PLAIN.rstrip("="),
        SAFE.rstrip("="),
        f"  {PLAIN}\n",
        "\r\n".join(PLAIN[at : at + 76] for at in range(0, len(PLAIN), 76)),
        f"data:image/png;base64,{PLAIN}",
        f"DATA:image/png;charset=x;BASE64,{PLAIN}",
        f"data:;base64, {SAFE}",
        f"data:image/png;base64,{quote(PLAIN, safe='')}",
        f"data:image/png,{quote(DATA)}",
    ],
)
def test_every_spelling_is_read(source: str) -> None:
    assert "+" in PLAIN and "-" in SAFE and PLAIN.endswith("=")
    assert decode(source, WANTED) == DATA


@pytest.mark.parametrize(
    "source",
    [
        *("", " ", "=", "a", "abcde", "ab!d", "ab=d", "grün", "a b c d e", "hello, world"),
        *("data:image/png;base64", "data:;base64,a", "data:;base64,"),
    ],
)
def test_what_is_neither_is_refused_by_its_place(source: str) -> None:
    with pytest.raises(MediaInvalid) as caught:
        decode(source, WANTED)
    assert (caught.value.field, caught.value.status) == ("input.1", 422)
    assert caught.value.message.startswith("input.1 is neither a data URI nor base64 nor")


@pytest.mark.parametrize("head", ["", "data:image/png;base64,"])
def test_too_much_is_refused_before_it_is_decoded(head: str) -> None:
    exactly = base64.b64encode(bytes(300)).decode()
    assert decode(head + exactly, WANTED) == bytes(300)
    with pytest.raises(MediaTooLarge) as caught:
        decode(head + "!" * 404, WANTED)  # not base64: it is not looked at
    assert caught.value.message == (
        "input.1 has 303 bytes; an image may have 300 (media.image_bytes)"
    )
    assert caught.value.status == 413


def test_too_much_is_refused_in_a_data_uri_without_base64() -> None:
    with pytest.raises(MediaTooLarge):
        decode("data:," + "%00" * 301, WANTED)


@pytest.mark.parametrize(
    ("source", "scheme"),
    [
        ("https://a/b", "https"),
        (" HTTP://a", "http"),
        ("data:,x", "data"),
        ("file:///etc/passwd", "file"),
        (PLAIN, None),
        ("", None),
    ],
)
def test_the_scheme_tells_what_a_source_is(source: str, scheme: str | None) -> None:
    assert scheme_of(source) == scheme
