"""The gallery in use: keyboard, mouse, address, windows of any width, dark, and what its page lets in."""

from pathlib import Path

import pytest
from gallery_scenes import CLASSES, NASTY, large_gallery, write_gallery
from gallery_tabs import count, labels, names, needs_browser, pane, slide, visit

pytest_plugins = ["gallery_browser"]
pytestmark = needs_browser

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_pictures_load_near_the_window_alone(tab, tmp_path: Path):
    address = write_gallery(tmp_path / "report", large_gallery(200, 5))
    asked: set[str] = set()
    tab.on("request", lambda request: asked.add(request.url) if request.url.endswith(".jpg") else None)
    tab.goto(address)
    tab.locator("article img").first.wait_for()
    tab.wait_for_load_state("networkidle")
    first = set(asked)
    assert 1 <= len(first) <= 10
    assert tab.locator("article").count() == 200
    tab.locator("article").nth(150).scroll_into_view_if_needed()
    tab.locator("article").nth(150).locator("img").first.wait_for()
    tab.wait_for_load_state("networkidle")
    assert len(first) < len(asked) <= 40
    assert tab.locator("article").nth(0).locator("img").count() == 0  # emptied again


def test_names_from_data_stay_text(tab, two_runs):
    visit(tab, two_runs)
    assert NASTY in tab.locator("[name=class] option").all_inner_texts()
    assert tab.locator(".swatches li").all_inner_texts() == list(CLASSES)
    assert tab.locator("h1").inner_text() == NASTY
    assert tab.locator("script").count() == 5  # report.js, the gallery's three and its data
    tab.get_by_role("button", name="img10").click()
    assert f"{NASTY} 0.90" in labels(tab.locator("dialog figure").nth(1))


def test_second_run_stands_beside_the_first(tab, two_runs):
    visit(tab, two_runs)
    heads = tab.locator("article").first.locator("figcaption").all_inner_texts()
    assert heads == ["truth 1 found, 1 missed", "run 1 correct, 1 background", f"{NASTY} 1 correct"]
    assert labels(pane(tab, "img10", 2)) == {"hsil 0.80"}
    assert count(tab) == "4 of 4 images; 2 missed, 2 wrong"  # the first's


def test_large_view_by_keyboard(tab, address):
    visit(tab, address)
    title, dialog = tab.locator("#gallery-title"), tab.locator("dialog")
    tab.get_by_role("button", name="img10").focus()
    tab.keyboard.press("Enter")
    assert title.inner_text() == "img10 (slide A)"
    assert dialog.locator("figure").count() == 2
    tab.keyboard.press("ArrowLeft")  # there is none before the first
    assert title.inner_text() == "img10 (slide A)"
    tab.keyboard.press("ArrowRight")
    assert title.inner_text() == "img2 (slide B)"
    assert tab.locator("#gallery-place").inner_text() == "2 of 4"
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowLeft")
    assert title.inner_text() == "img2 (slide B)"
    tab.keyboard.press("Escape")
    assert not dialog.is_visible()
    tab.locator("article button:focus", has_text="img2").wait_for()


def test_large_view_by_mouse(tab, address):
    visit(tab, address)
    pane(tab, "img9", 1).locator(".pane").click()
    assert tab.locator("#gallery-title").inner_text() == "img9 (slide A)"
    tab.get_by_role("button", name="Next image").click()
    assert tab.locator("#gallery-title").inner_text() == "img1"
    tab.get_by_role("button", name="Previous image").click()
    tab.locator("dialog").get_by_role("button", name="Labels").click()
    assert not tab.locator("dialog .tag").first.is_visible()
    tab.get_by_role("button", name="Close").click()
    assert not tab.locator("dialog").is_visible()


def test_address_tells_the_view_and_brings_it_back(tab, address):
    visit(tab, address)
    slide(tab, "0.1")
    tab.locator("[name=class]").select_option(NASTY)
    tab.locator("[name=error]").select_option("any")
    tab.locator("[name=sort]").select_option("name")
    tab.wait_for_url(lambda url: "sort=name" in url and "score=0.1" in url)
    expected = (names(tab), count(tab))
    assert expected == (["img2", "img9"], "2 of 4 images; 0 missed, 2 wrong")  # img10's error is of the other class
    shared = tab.url
    tab.goto("about:blank")
    tab.goto(shared)
    assert (names(tab), count(tab)) == expected
    tab.get_by_role("button", name="Reset").click()
    tab.wait_for_url(lambda url: url.endswith("#gallery"))
    assert len(names(tab)) == 4


def test_address_with_nonsense_is_harmless(tab, address):
    tab.goto(f"{address}#gallery?score=x&class=none&sort=&nothing=1&error=%3Cb%3E")
    assert names(tab) == ["img10", "img2", "img9", "img1"]
    assert tab.locator("[name=sort]").input_value() == "worst"


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_page_never_scrolls_sideways(tab, two_runs, width):
    tab.set_viewport_size({"width": width, "height": 800})
    tab.goto(two_runs)
    assert tab.evaluate(OVERFLOW) == 0
    tab.get_by_role("button", name="img10").click()
    assert tab.locator("dialog").evaluate("(dialog) => dialog.scrollWidth - dialog.clientWidth") == 0


def test_dark_where_the_system_is_dark(tab, address):
    tab.goto(address)
    background = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    assert min(tab.evaluate(background)) > 200
    tab.emulate_media(color_scheme="dark")
    assert max(tab.evaluate(background)) < 60


def test_keyboard_skips_to_the_content(tab, address):
    tab.goto(address)
    tab.keyboard.press("Tab")
    assert tab.locator(".skip").bounding_box()["y"] >= 0
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "content"


def test_policy_stops_what_is_not_of_the_page(browser, address):
    tab = browser.new_page()
    tab.goto(address)
    tab.evaluate(
        "window.stopped = [];"
        "addEventListener('securitypolicyviolation', (event) => stopped.push(event.effectiveDirective));"
        "const script = document.createElement('script'); script.textContent = 'window.ran = 1';"
        "document.body.append(script); document.body.insertAdjacentHTML('beforeend', '<i style=\"color: red\">x</i>');"
        "new Image().src = 'https://example.org/a.png'"
    )
    # Not wait_for_function: it evaluates text, which the policy stops as well.
    stopped = tab.evaluate("async () => { while (stopped.length < 3) await new Promise(setTimeout); return stopped }")
    assert sorted(stopped) == ["img-src", "script-src-elem", "style-src-attr"]
    assert tab.evaluate("window.ran") is None
    tab.close()


def test_without_scripts_figures_show_and_the_gallery_says_what_it_needs(browser, address):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(address)
    assert tab.get_by_text("50.00").is_visible()
    assert tab.locator("noscript p").is_visible()
    assert not tab.locator("[name=sort]").is_visible()
    context.close()
