"""Fixtures, as a plugin: a browser and pages with a gallery in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gallery_scenes import small_gallery, write_gallery
from gallery_tabs import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_gallery(tmp_path_factory.mktemp("small") / "report", small_gallery())


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_gallery(tmp_path_factory.mktemp("two") / "report", small_gallery(other=True))


@pytest.fixture
def tab(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """A page of the browser. Any error, including violations of the content security policy, fails the test.

    It is closed before `tmp_path` is removed, as it may still be loading pictures from there.
    """
    context = browser.new_context(viewport={"width": 1400, "height": 3000}, reduced_motion="reduce")
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.text} {message.location}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    yield page
    context.close()
    assert complaints == []
