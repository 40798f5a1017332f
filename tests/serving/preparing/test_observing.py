"""What a preparer tells of the images of its jobs."""

from __future__ import annotations

from serving.media import MediaOptions
from serving.models.spec import ModelSpec
from serving.preparing import open_preparer
from serving.preparing.vision import VisionPreparer
from serving.telemetry import Telemetry
from serving.telemetry.prometheus import PrometheusBackend
from serving.values import Job, Text
from tests.scraping import shown
from tests.serving.preparing.visual import image


async def test_images_are_told_with_their_pixels_and_their_time(spec: ModelSpec) -> None:
    telemetry = Telemetry(PrometheusBackend())
    preparer = open_preparer(spec, MediaOptions(), telemetry)
    one = await preparer.prepare(Job("tiny", (image(), image(500, 300), Text("a"))))
    sizes = [pixels.array.shape[0] * pixels.array.shape[1] for pixels in one.pixels]
    found = shown(telemetry)
    assert found["polyvec_image_pixels_sum", spec.id] == sum(sizes)
    assert found["polyvec_image_pixels_count", spec.id] == 2
    assert found["polyvec_stage_duration_seconds_count", "image", spec.id] == 1
    assert found["polyvec_stage_duration_seconds_sum", "image", spec.id] > 0


async def test_texts_alone_are_no_images(spec: ModelSpec) -> None:
    telemetry = Telemetry(PrometheusBackend())
    await open_preparer(spec, MediaOptions(), telemetry).prepare(Job("tiny", (Text("a"),)))
    assert shown(telemetry)["polyvec_image_pixels_count", spec.id] == 0


def test_where_nobody_listens_nothing_stands_between(spec: ModelSpec) -> None:
    assert isinstance(open_preparer(spec, MediaOptions()), VisionPreparer)
