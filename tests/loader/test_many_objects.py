"""A prefix of very many objects: the loader's container has 1 GiB, and would be killed without a word."""

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from sluice.loader import s3
from sluice.loader.failure import LoadFailed
from sluice.loader.item import Found
from sluice.loader.request import LoadRequest, Source
from sluice.loader.s3 import MAX_OBJECTS, S3

PREFIX = Source("model", "s3://models/churn/", "Prefix", "None", "/opt/ml/model")
MOST_BYTES = 700 * 1024**2
"""What is left of 1 GiB beside the process itself and its journal."""


class Listing:
    """botocore's client, as far as a listing goes: so many objects, page by page."""

    def __init__(self, count: int) -> None:
        self._count = count

    def get_paginator(self, _: str) -> "Listing":
        return self

    def paginate(self, **_: Any) -> Iterator[dict[str, Any]]:
        for start in range(0, self._count, 1000):
            yield {"Contents": [self._object(number) for number in range(start, start + 1000)]}

    @staticmethod
    def _object(number: int) -> dict[str, Any]:
        key = f"churn/shards/part-{number:08d}/weights-{number:08d}.safetensors"
        return {"Key": key, "Size": 10_000_000 + number, "ETag": f'"{number:032x}"'}


def find(count: int) -> Found:
    door = S3(LoadRequest(sources=()))
    door._client = Listing(count)
    return door.find(PREFIX, None)


def test_as_many_objects_as_are_allowed_fit_into_memory() -> None:
    count = 20_000
    tracemalloc.start()
    try:
        found = find(count)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.items) == count
    assert most / count * MAX_OBJECTS < MOST_BYTES


def test_names_that_would_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "MAX_NAME_CHARACTERS", 100_000)
    with pytest.raises(LoadFailed, match="the objects' names have more than 100000 characters together") as caught:
        find(5000)
    assert caught.value.reason == "TooLarge"
