"""PDFs to the pixels of their pages, within pages and pixels."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pypdfium2
import pytest
from PIL import Image

from serving.errors import MediaInvalid, MediaTooLarge
from serving.media import MediaOptions
from serving.media.documents import render
from serving.media.resizing import Sizing
from tests.serving.media.pictures import encoded, smooth

SIZING = Sizing(28, 3136, 602_112)
# An empty document, encrypted with a password (the standard handler, revision 2).
ENCRYPTED = b"""%%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]>>endobj
4 0 obj<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>endobj
trailer<</Root 1 0 R/Size 5/Encrypt 4 0 R/ID[<00><00>]>>
""" % (b"11" * 32, b"22" * 32)


def document(*sizes: tuple[float, float]) -> bytes:
    """Empty pages of these widths and heights in points."""
    made, file = pypdfium2.PdfDocument.new(), BytesIO()
    for width, height in sizes:
        made.new_page(width, height)
    made.save(file)
    made.close()
    return file.getvalue()


def pages(data: bytes, sizing: Sizing = SIZING, **options: int) -> list[np.ndarray]:
    return render(data, sizing, MediaOptions(**options), "input.4")


def test_a_page_is_an_image() -> None:
    data = encoded(smooth(500, 400), "PDF", resolution=72)
    [page] = pages(data, Sizing(4, 1, 200_000), page_dpi=72)
    assert (page.shape, page.dtype) == ((500, 400, 3), np.uint8)
    assert np.abs(page.astype(int) - np.asarray(smooth(500, 400))).mean() < 3


def test_pages_come_in_order_and_are_white_where_nothing_is() -> None:
    found = pages(document((300, 400), (400, 300), (280, 280)), page_dpi=72)
    assert [page.shape for page in found] == [(392, 308, 3), (308, 392, 3), (280, 280, 3)]
    assert all((page == 255).all() for page in found)


def test_a_page_is_drawn_at_its_dots_an_inch() -> None:
    data = document((280, 280))
    assert [pages(data, page_dpi=dpi)[0].shape[0] for dpi in (36, 72, 144)] == [140, 280, 560]


def test_a_huge_page_is_drawn_no_larger_than_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    fit = Sizing.fit

    def seen(sizing: Sizing, height: int, width: int, field: str) -> tuple[int, int]:
        drawn.append((height, width))
        return fit(sizing, height, width, field)

    monkeypatch.setattr(Sizing, "fit", seen)
    [page] = pages(document((14_400, 14_400)), page_dpi=600)
    assert page.shape == (756, 756, 3)
    [(height, width)] = drawn
    assert 0.99 * 602_112 < height * width < 1.01 * 602_112


def test_a_page_is_bounded_by_the_pixels_of_an_image_too() -> None:
    [page] = pages(document((1000, 1000)), Sizing(28, 3136, 10**9), pixels=10_000, page_dpi=600)
    assert page.shape == (112, 112, 3)


def test_too_many_pages_are_refused() -> None:
    data = document(*[(50, 50)] * 4)
    assert len(pages(data, pages=4)) == 4
    with pytest.raises(MediaTooLarge) as caught:
        pages(data, pages=3)
    assert caught.value.message == "input.4 has 4 pages; a PDF may have 3 (media.pages)"
    assert caught.value.field == "input.4"


def test_a_page_that_is_a_strip_is_refused() -> None:
    with pytest.raises(MediaInvalid, match="page 2 cannot be drawn"):
        pages(document((50, 50), (14_000, 50)))


def test_an_encrypted_document_is_refused() -> None:
    with pytest.raises(MediaInvalid, match=r"input\.4 is a PDF that cannot be read: it is encrypt"):
        pages(ENCRYPTED)


@pytest.mark.parametrize("data", [b"%PDF-1.7", b"%PDF-1.4\n" + bytes(500)])
def test_a_broken_document_is_refused(data: bytes) -> None:
    with pytest.raises(MediaInvalid, match="it is broken") as caught:
        pages(data)
    assert caught.value.status == 422


@pytest.mark.parametrize("data", [b"", b"hello", encoded(Image.new("L", (9, 9)), "PNG")])
def test_what_is_no_pdf_is_refused(data: bytes) -> None:
    with pytest.raises(MediaInvalid, match=r"input\.4 is no PDF"):
        pages(data)


def test_a_damaged_document_never_raises_anything_of_pdfiums() -> None:
    data = encoded(smooth(40, 40), "PDF")
    random = np.random.default_rng(3)
    for _ in range(40):
        broken = bytearray(data)
        for at in random.integers(0, len(data), 30):
            broken[at] = random.integers(256)
        try:
            pages(bytes(broken))
        except (MediaInvalid, MediaTooLarge) as refused:
            message = refused.message
        else:
            continue
        assert message.startswith("input.4 ")


def test_threads_draw_at_the_same_time_and_get_their_own_pages() -> None:
    datas = [document(*[(100 + 56 * n, 100)] * 3) for n in range(4)]
    barrier = threading.Barrier(4)

    def one(data: bytes) -> list[tuple[int, ...]]:
        barrier.wait()
        return [page.shape for page in pages(data, page_dpi=72)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, datas)) == [[(112, 112 + 56 * n, 3)] * 3 for n in range(4)]
