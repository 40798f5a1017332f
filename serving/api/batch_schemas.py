"""The wire of batches as pydantic models, with Jina's names: they describe, and parse nothing."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["BatchRequest", "BatchStats", "BatchStatus"]


class BatchRequest(BaseModel):
    """A batch with its lines in it, or with the address of a JSONL file of them.

    Every other field of `/v1/embeddings`, such as `embedding_type`, holds for all lines likewise.
    """

    model_config = ConfigDict(extra="allow")

    model: str
    input: list[dict[str, object]] | None = Field(
        None,
        description="The lines, or else `input_url`. A line has a `body`, which is a request to "
        "/v1/embeddings without what the batch says, and a `custom_id`, which comes back.",
    )
    input_url: str | None = Field(
        None, description="An http or https address of the lines, where addresses are fetched."
    )
    task: str | None = None
    dimensions: int | None = Field(None, ge=1)
    normalized: bool | None = None
    webhook_url: str | None = Field(None, description="Refused: nobody is called; ask for status.")


class BatchStats(BaseModel):
    """What became of the lines so far."""

    total: int
    completed: int
    failed: int
    total_tokens: int = Field(description="What was billed.")


class BatchStatus(BaseModel):
    """How a batch stands."""

    batch_id: str
    status: Literal["pending", "processing", "completed", "failed", "expired", "cancelled"]
    model: str
    created_at: str = Field(description="ISO 8601, in UTC, as every time here.")
    completed_at: str | None = Field(description="When it ended, however it did.")
    expires_at: str = Field(
        description="Until then it must be done; once it has ended, until then its files are there."
    )
    output_url: str | None = Field(description="Where the output is, once there is one.")
    error_file_url: str | None = Field(description="Where the lines that failed are, if any did.")
    error: str | None = Field(description="Why it failed as a whole.")
    stats: BatchStats
