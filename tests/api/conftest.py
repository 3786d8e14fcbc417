"""The recording that the tests of the API ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.asking import Asking, written


@pytest.fixture(scope="session")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with Asking(written(tmp_path_factory.mktemp("api"))) as asking:
        yield asking
