"""Files of a model on the hub, into huggingface_hub's cache; whatever is wrong, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from serving.errors import ModelUnavailable

__all__ = ["fetch"]

# Some repositories carry the same weights again for other runtimes.
_NOT_OURS = ("consolidated*", "onnx/*", "openvino/*", "original/*")


def fetch(source: str, revision: str | None, files: Sequence[str]) -> Path:
    """The snapshot's folder, with the files of these patterns. From the cache where it is offline.

    The dozen errors of `snapshot_download` are all a `ModelUnavailable`.
    """
    import huggingface_hub

    try:
        path = huggingface_hub.snapshot_download(
            source, revision=revision, allow_patterns=list(files), ignore_patterns=list(_NOT_OURS)
        )
    except Exception as error:  # its transport's errors are not part of its interface
        raise ModelUnavailable(_why_not(source, revision, error)) from None
    return Path(path)


def _why_not(source: str, revision: str | None, error: Exception) -> str:
    """One sentence for an error of huggingface_hub."""
    from huggingface_hub import constants, errors

    at = source if revision is None else f"{source} at revision {revision}"
    offline = constants.HF_HUB_OFFLINE
    unreached = "HF_HUB_OFFLINE is set" if offline else f"{constants.ENDPOINT} cannot be reached"
    match error:
        case errors.GatedRepoError():
            page = f"{constants.ENDPOINT}/{source}"
            return f"{source} is gated: accept its licence at {page} and set HF_TOKEN"
        case errors.RepositoryNotFoundError():
            return f"there is no model {source} on the hub (or it is private), nor such a directory"
        case errors.RevisionNotFoundError():
            return f"{source} has no revision {revision}"
        case errors.IncompleteSnapshotError():
            return f"only a part of {at} is in {constants.HF_HUB_CACHE}, and {unreached}"
        case errors.LocalEntryNotFoundError():
            return f"{at} is not in {constants.HF_HUB_CACHE}, and {unreached}"
        case _:
            reason = next(iter(str(error).splitlines()), "")
            return f"{at} cannot be fetched: {type(error).__name__}: {reason}"
