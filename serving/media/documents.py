"""A PDF to the pixels of its pages.

PDFium keeps state for the whole process and takes one caller at a time, hence the lock; it is held
for a page at a time, so that a long document does not keep a short one waiting.
"""

from __future__ import annotations

import math
import threading

import pypdfium2
from PIL import Image
from pypdfium2.raw import FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY

from serving.errors import MediaInvalid, MediaTooLarge
from serving.media import MediaOptions
from serving.media.pictures import Pixels, resized
from serving.media.resizing import ASPECT, Sizing

__all__ = ["render"]

_PDFIUM = threading.Lock()
_POINTS = 72  # an inch
_HEADER = 1024  # bytes within which %PDF- has to be (ISO 32000-1, annex H.3.4.1)


def render(data: bytes, sizing: Sizing, options: MediaOptions, field: str) -> list[Pixels]:
    """`[height, width, 3]` of every page, at `options.page_dpi` or less.

    No page is drawn larger than `sizing` keeps. Raises `MediaTooLarge` for too many pages and
    `MediaInvalid` for what is no PDF, is encrypted or is broken.
    """
    if b"%PDF-" not in data[:_HEADER]:
        raise MediaInvalid(f"{field} is no PDF: it does not begin with %PDF-", field)
    with _PDFIUM:
        document = _opened(data, field)
    try:
        with _PDFIUM:
            pages = len(document)
        if pages > options.pages:
            raise MediaTooLarge(
                f"{field} has {pages} pages; a PDF may have {options.pages} (media.pages)", field
            )
        if not pages:
            raise MediaInvalid(f"{field} is a PDF without pages", field)
        return [_page(document, number, sizing, options, field) for number in range(pages)]
    finally:
        with _PDFIUM:
            document.close()


def _opened(data: bytes, field: str) -> pypdfium2.PdfDocument:
    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        locked = error.err_code in (FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY)
        why = "is encrypted" if locked else "is broken"
        raise MediaInvalid(f"{field} is a PDF that cannot be read: it {why}", field) from None


def _page(
    document: pypdfium2.PdfDocument, number: int, sizing: Sizing, options: MediaOptions, field: str
) -> Pixels:
    with _PDFIUM:
        try:
            drawn = _drawn(document, number, min(sizing.max_pixels, options.pixels), options)
        except pypdfium2.PdfiumError:
            drawn = None
    if drawn is None:
        raise MediaInvalid(
            f"{field} is a PDF whose page {number + 1} cannot be drawn: it is broken, or one side"
            f" is more than {ASPECT} times the other",
            field,
        )
    width, height = drawn.size
    return resized(drawn, sizing.fit(height, width, field))


def _drawn(
    document: pypdfium2.PdfDocument, number: int, most: int, options: MediaOptions
) -> Image.Image | None:
    """A page in RGB with at most about `most` pixels, or None where it is a strip."""
    page = document[number]
    try:
        width, height = page.get_size()
        if not 0 < max(width, height) <= ASPECT * min(width, height):
            return None
        scale = min(options.page_dpi / _POINTS, math.sqrt(most / (width * height)))
        bitmap = page.render(scale=scale)
        try:
            # A copy: the bitmap's memory ends with it.
            drawn: Image.Image = bitmap.to_pil().convert("RGB").copy()
        finally:
            bitmap.close()
    finally:
        page.close()
    return drawn
