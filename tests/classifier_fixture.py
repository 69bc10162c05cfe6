"""Fixture, as a plugin: a folder of single cells."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from classifier_scenes import forget_parts, write_cells


@pytest.fixture
def cells(tmp_path: Path) -> Iterator[Path]:
    """See `write_cells`."""
    forget_parts()
    yield write_cells(tmp_path)
    forget_parts()
