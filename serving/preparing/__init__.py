"""A job to token ids and usage. The only place where tokens are counted."""

from __future__ import annotations

from typing import Protocol

from serving.media import MediaOptions
from serving.models.spec import Listwise, ModelSpec, Pairwise
from serving.telemetry import SILENT, Telemetry
from serving.values import Job, Prepared

__all__ = ["Preparer", "open_preparer"]


class Preparer(Protocol):
    """Tokenizes a job for one model."""

    async def prepare(self, job: Job) -> Prepared:
        """Token ids and the usage of the job, and the pixels of its images.

        Never blocks the event loop for long. Raises `TokenLimitExceeded` for an over-long input
        unless `job.truncate`, which cuts texts only; a truncated input is counted by what the model
        sees. Raises `MediaTooLarge`, `MediaInvalid` or `MediaUnreachable` for an image or a PDF.
        """
        ...


def open_preparer(spec: ModelSpec, media: MediaOptions, telemetry: Telemetry = SILENT) -> Preparer:
    """The preparer of a model, its tokenizer read from the checkpoint.

    `media` is used where the model sees images. Raises `ModelUnavailable` for a checkpoint that
    cannot be read, and `InvalidConfig` for options that cannot be.
    """
    preparer = _opened(spec, media)
    if spec.vision is None or telemetry is SILENT:
        return preparer
    from serving.preparing.observing import ObservedPreparer

    return ObservedPreparer(preparer.prepare, telemetry, spec.id)


def _opened(spec: ModelSpec, media: MediaOptions) -> Preparer:
    # Imported here, so that a process which prepares nothing loads neither tokenizer nor decoder.
    from serving.preparing.text import load

    texts = load(spec)
    match spec.reranker:
        case Listwise():
            from serving.preparing.listwise import ListPreparer

            return ListPreparer(spec, spec.reranker, texts)
        case Pairwise():
            from serving.media.media import Media
            from serving.preparing.pairs import PairPreparer

            return PairPreparer(spec, spec.reranker, texts, Media(media) if spec.vision else None)
    if spec.vision is None:
        return texts
    from serving.media.media import Media
    from serving.preparing.vision import VisionPreparer

    return VisionPreparer(spec, spec.vision, texts, Media(media))
