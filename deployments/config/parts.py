"""The parts of a graph that are not models: gateway, preprocessor, media, bounds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from deployments.config._frozen import Frozen
from deployments.config.models import Replicas
from serving.batches.batch import BatchOptions
from serving.media import MediaOptions

__all__ = [
    "AwakeReplicas",
    "BatchesConfig",
    "GatewayConfig",
    "LimitsConfig",
    "MediaConfig",
    "PreprocessorConfig",
]


class AwakeReplicas(Replicas):
    """Replicas of a part that never sleeps."""

    min: int = Field(1, ge=1, description="Replicas kept at all times.")


class GatewayConfig(Frozen):
    """The ingress: authenticates, plans, tokenizes short text, answers."""

    replicas: AwakeReplicas = Field(default_factory=AwakeReplicas, description="Gateway replicas.")
    cpus: float = Field(1, gt=0, description="Ray CPUs of a gateway.")
    resources: dict[str, float] = Field(
        default_factory=dict, description="Further Ray resources; only nodes that have them serve."
    )
    flights: int = Field(1, ge=1, description="Coalesced calls under way to one group at a time.")
    flight_tokens: int = Field(
        1024, ge=1, description="Tokens that leave together; a larger job flies alone."
    )
    accept_token_ids: bool = Field(
        False, description="Whether lists of integers are the model's own token ids."
    )


class PreprocessorConfig(Frozen):
    """Where texts are tokenized, and how many do it; images are always a hop away."""

    text: Literal["gateway", "deployment"] = Field(
        "gateway", description="In the gateway's process, or a hop away."
    )
    replicas: AwakeReplicas = Field(
        default_factory=AwakeReplicas, description="Preprocessor replicas."
    )
    cpus: float = Field(1, gt=0, description="Ray CPUs of a preprocessor.")
    resources: dict[str, float] = Field(
        default_factory=dict, description="Further Ray resources; only nodes that have them serve."
    )


class MediaConfig(Frozen):
    """What images and documents may come in, and how they are decoded: `serving.media`."""

    image_bytes: int = Field(8 * 2**20, ge=1, description="Bytes of an encoded image.")
    pdf_bytes: int = Field(8 * 2**20, ge=1, description="Bytes of a PDF.")
    pixels: int = Field(200_000_000, ge=1, description="Pixels of a decoded image; more is a bomb.")
    pages: int = Field(100, ge=1, description="Pages of a PDF.")
    page_dpi: int = Field(144, ge=1, description="Dots an inch at which a page is rendered.")
    fetch: bool = Field(False, description="Whether images may be given by their address.")
    allow: tuple[str, ...] = Field(
        (), description="Networks and host names that may be fetched though they are not global."
    )
    timeout_s: float = Field(8, gt=0, description="Seconds that a fetch may take.")
    connect_timeout_s: float = Field(3, gt=0, description="Seconds of them for a connection.")
    redirects: int = Field(3, ge=0, description="Redirects that a fetch follows.")
    fast: bool = Field(False, description="Let the JPEG decoder shrink, which changes vectors.")
    threads: int = Field(2, ge=1, description="Images decoded at a time in a process.")

    def options(self) -> MediaOptions:
        """What the media room is told."""
        return MediaOptions(**self.model_dump())


class LimitsConfig(Frozen):
    """Bounds of one gateway: beyond them a request is refused at once."""

    body_bytes: int = Field(32 * 2**20, ge=1024, description="Bytes of a request body.")
    body_timeout_s: float = Field(30, gt=0, description="Seconds a body may take to arrive.")
    request_timeout_s: float = Field(60, gt=0, description="Seconds a request may take.")
    inputs: int = Field(2048, ge=1, description="Inputs of one request.")
    requests: int = Field(1024, ge=1, description="Requests under way.")
    tokens: int = Field(2**20, ge=1, description="Tokens under way.")


class BatchesConfig(Frozen):
    """Batches of lines, worked on by every gateway: `serving.batches`."""

    enabled: bool | None = Field(
        None,
        description="Whether batches are taken; by default where there is one gateway or a folder.",
    )
    folder: str | None = Field(
        None,
        description="A folder on a volume that every gateway has, with POSIX locks; by default one "
        "of the machine's state folder.",
    )
    window_s: float = Field(86_400, gt=0, description="Seconds in which a batch must be done.")
    keep_s: float = Field(86_400, gt=0, description="Seconds for which its results are kept.")
    lines: int = Field(50_000, ge=1, description="Lines of a batch.")
    file_bytes: int = Field(2**30, ge=1024, description="Bytes of its file.")
    per_tenant: int = Field(16, ge=1, description="Unfinished batches of a tenant.")
    at_once: int = Field(2, ge=1, description="Batches that a gateway works on at a time.")
    requests: int = Field(4, ge=1, description="Requests of each that are under way.")
    piece_lines: int = Field(32, ge=1, description="Lines of such a request.")
    lease_s: float = Field(30, ge=3, description="Seconds until another takes a dead one's work.")

    def options(self, limits: LimitsConfig) -> BatchOptions:
        """What the batches are told."""
        said = self.model_dump(exclude={"enabled", "folder"})
        return BatchOptions(
            folder=self.folder or "",
            line_bytes=limits.body_bytes,
            request_timeout_s=limits.request_timeout_s,
            **said,
        )
