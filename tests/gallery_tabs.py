"""The browser, what its tab shows of a gallery, and how long one takes to open.

python tests/gallery_tabs.py FOLDER writes a page of 744 images with 100 detections each and measures it thrice.
"""

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gallery_scenes import large_gallery, write_gallery

MISSING = [
    *([] if importlib.util.find_spec("playwright") else ["the package playwright"]),
    *([] if shutil.which("chromium") else ["the program chromium"]),
]
needs_browser = pytest.mark.skipif(bool(MISSING), reason=f"looks in a browser: needs {' and '.join(MISSING)}")


@contextmanager
def chromium() -> Iterator[Any]:
    """Debian's Chromium, headless. As root it runs only without its sandbox."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


def opening_times(browser: Any, address: str) -> dict[str, float]:
    """Milliseconds since the navigation: the document read, the gallery at work, the pictures in the window shown."""
    tab = browser.new_page(viewport={"width": 1400, "height": 900})
    tab.goto(address)
    tab.locator("article img").first.wait_for()
    pictures = tab.evaluate(
        "async () => { document.getElementById('gallery-cards').scrollIntoView({behavior: 'instant'});"
        "const images = [...document.images]; await Promise.all(images.map((image) => image.decode()));"
        "return performance.now() }"
    )
    document = tab.evaluate("performance.getEntriesByType('navigation')[0].domInteractive")
    ready = tab.evaluate("performance.getEntriesByName('gallery-ready')[0].startTime")
    tab.close()
    return {"document": document, "gallery ready": ready, "pictures shown": pictures}


def visit(tab: Any, address: str, cards: int = 4) -> None:
    """Open a page of `cards`, all of them near the window, and wait until they are drawn."""
    tab.goto(address)
    tab.locator("article figure img").nth(2 * cards - 1).wait_for()


def slide(tab: Any, score: str) -> None:
    tab.locator("[name=score]").fill(score)


def names(tab: Any) -> list[str]:
    return tab.locator("article h3").all_inner_texts()


def count(tab: Any) -> str:
    return tab.locator("#gallery-count").inner_text()


def pane(tab: Any, image: str, place: int) -> Any:
    return tab.locator("article", has=tab.get_by_role("button", name=image, exact=True)).locator("figure").nth(place)


def labels(pane: Any) -> set[str]:
    return set(pane.locator(".tag").all_inner_texts())


if __name__ == "__main__":
    written = write_gallery(Path(sys.argv[1]), large_gallery(744, 100))
    with chromium() as started:
        for _ in range(3):
            print({name: round(value) for name, value in opening_times(started, written).items()})
