"""CloudEvents 1.0 over HTTP in the JSON batch format, in OpenMeter's shape.

The id is the event's own and the source is the same in every process, so that a receiver that
drops repeats by both (OpenMeter does) counts an event once however often it is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from serving.errors import Unavailable
from serving.metering.events import UsageEvent
from serving.metering.exports._http import client, post, words
from serving.metering.outbox import Journal

__all__ = ["CloudEvents", "CloudEventsOptions", "cloud_event"]

_TYPE = "application/cloudevents-batch+json"
_TOO_LARGE = 413


@dataclass(frozen=True, slots=True)
class CloudEventsOptions:
    """Where to: `url` takes the POST (`…/api/v1/events` at OpenMeter), with these headers.

    `type` is what the receiver's meters are matched by, `batch` the events of one POST.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    source: str = "polyvec"
    type: str = "embeddings"
    batch: int = 100
    timeout_s: float = 10.0
    name: str = "cloudevents"


def cloud_event(event: UsageEvent, source: str, kind: str) -> dict[str, object]:
    """One event, its tenant as the subject."""
    return {
        "specversion": "1.0",
        "type": kind,
        "id": event.id,
        "source": source,
        "subject": event.tenant,
        "time": event.at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": {
            "model": event.model,
            "task": event.task,
            "modality": event.modality,
            "tokens": event.text_tokens + event.image_tokens,
            "text_tokens": event.text_tokens,
            "image_tokens": event.image_tokens,
            "items": event.items,
            "dimensions": event.dimensions,
            "status": event.status,
            "key_id": event.key_id,
            "duration_s": round(event.duration_s, 6),
        },
    }


class CloudEvents:
    """See `Exporter`. In the ledger's order; what is refused is sent again, nothing is skipped."""

    def __init__(self, journal: Journal, options: CloudEventsOptions) -> None:
        self.name = options.name
        self._journal, self._options = journal, options
        self._http = client(dict(options.headers), options.timeout_s)

    def send(self, now: float) -> int:
        """The next batch. The cursor moves behind it when the receiver has said 2xx."""
        page = self._journal.page(self.name, self._options.batch)
        while page:
            events = [cloud_event(e, self._options.source, self._options.type) for _, e in page]
            answer = post(
                self._http,
                self._options.url,
                self.name,
                content=orjson.dumps(events),
                headers={"content-type": _TYPE},
            )
            if answer.is_success:
                self._journal.advance(self.name, page[-1][0])
                return len(page)
            if answer.status_code != _TOO_LARGE or len(page) == 1:
                raise Unavailable(f"{self.name} refused {len(page)} events: {words(answer)}")
            page = page[: len(page) // 2]
        return 0

    def close(self) -> None:
        """See `Exporter`."""
        self._http.close()
