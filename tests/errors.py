"""Errors by their ids: what a test expects to go wrong, whatever the words."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import pytest

from sparkops.core.errors import SparkopsError
from sparkops.core.messages import Refused, Unknown


@contextmanager
def fails(
    id: str, error: type[SparkopsError] | type[Refused] | type[Unknown] = SparkopsError
) -> Generator[pytest.ExceptionInfo[SparkopsError | Refused | Unknown], None, None]:
    """The block raises an `error` of this id."""
    with pytest.raises(error) as caught:
        yield caught
    assert caught.value.id == id, f"{caught.value.id or 'no id'}: {caught.value}"
