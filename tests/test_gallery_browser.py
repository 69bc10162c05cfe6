"""The gallery's numbers in a browser: what it shows, counts, filters and orders, by hand for gallery_scenes."""

import pytest
from gallery_scenes import NASTY
from gallery_tabs import count, labels, names, needs_browser, pane, slide, visit

pytest_plugins = ["gallery_browser"]
pytestmark = needs_browser


def test_detections_below_the_slider_vanish(tab, address):
    visit(tab, address)
    found = pane(tab, "img10", 1)
    assert labels(found) == {f"{NASTY} 0.90", "hsil 0.60 · background"}
    assert found.locator("rect.line").count() == 2
    slide(tab, "0.9")  # a score at the threshold shows
    assert labels(found) == {f"{NASTY} 0.90"}
    slide(tab, "0.91")
    assert found.locator("rect").count() == 0
    slide(tab, "0")
    assert labels(found) == {f"{NASTY} 0.90", "hsil 0.60 · background", "hsil 0.40"}


def test_truth_is_found_covered_or_missed_at_the_slider(tab, address):
    visit(tab, address)
    truth = pane(tab, "img9", 0)  # a wrong detection of 0.7 lies on it, a right one never
    assert labels(truth) == {"hsil · covered"}
    slide(tab, "0.71")
    assert labels(truth) == {"missed: hsil"}
    assert truth.locator("figcaption").inner_text() == "truth 1 missed"
    assert labels(pane(tab, "img10", 0)) == {NASTY, "missed: hsil"}
    slide(tab, "0.4")
    assert labels(pane(tab, "img10", 0)) == {NASTY, "hsil"}


def test_what_a_box_is_shows_in_its_line(tab, address):
    visit(tab, address)
    slide(tab, "0.2")
    style = "(line) => [getComputedStyle(line).strokeDasharray, parseFloat(getComputedStyle(line).strokeWidth)]"
    lines = {
        name: tab.locator(f".pane .{name} rect.line").first.evaluate(style)
        for name in ("correct", "class", "duplicate", "background", "ignored", "found", "covered")
    }
    assert lines["correct"][0] == lines["found"][0] == "none"
    assert len({dashes for dashes, _ in lines.values()}) == 6
    slide(tab, "0.8")
    dashes, width = tab.locator(".pane .missed rect.line").first.evaluate(style)
    assert dashes != "none"
    assert width > max(width for _, width in lines.values())


def test_boxes_lie_where_the_data_says(tab, address):
    visit(tab, address)
    inside = pane(tab, "img10", 1).locator(".pane")
    whole, box = inside.bounding_box(), inside.locator(".correct rect.line").bounding_box()
    # (10, 30, 50, 70) of 160 x 120 px; the picture is stretched over the pane, the bounding box has no line width.
    assert (box["x"] - whole["x"]) / whole["width"] == pytest.approx(10 / 160, abs=0.01)
    assert (box["y"] - whole["y"]) / whole["height"] == pytest.approx(30 / 120, abs=0.01)
    assert box["width"] / whole["width"] == pytest.approx(40 / 160, abs=0.01)
    assert inside.locator("img").evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 160


@pytest.mark.parametrize(
    "score, counts, worst",
    [
        # img10: one missed, one wrong; img9: one wrong, its cell covered; img2: one missed.
        ("0.5", "4 of 4 images; 2 missed, 2 wrong", ["img10", "img2", "img9", "img1"]),
        # img10's wrong one, img9's, img2's duplicate.
        ("0.1", "4 of 4 images; 0 missed, 3 wrong", ["img2", "img9", "img10", "img1"]),
        # all of img2's three, both of img10's and img9's.
        ("1", "4 of 4 images; 6 missed, 0 wrong", ["img2", "img10", "img9", "img1"]),
    ],
)
def test_counts_and_worst_first_follow_the_slider(tab, address, score, counts, worst):
    visit(tab, address)
    slide(tab, score)
    assert count(tab) == counts
    assert names(tab) == worst


@pytest.mark.parametrize(
    "order, expected",
    [
        ("name", ["img1", "img2", "img9", "img10"]),
        ("truths", ["img2", "img10", "img9", "img1"]),  # 3 (its region is none), 2, 1, 0
        ("confident", ["img9", "img10", "img1", "img2"]),  # 0.7, 0.6, none, none: what is ignored is no error
    ],
)
def test_orders(tab, address, order, expected):
    visit(tab, address)
    tab.locator("[name=sort]").select_option(order)
    assert names(tab) == expected


def test_cards_stay_in_place_while_the_slider_moves(tab, address):
    visit(tab, address)
    tab.locator("[name=score]").evaluate("(slider) => { slider.value = 1 }")
    tab.locator("[name=score]").dispatch_event("input")
    assert count(tab) == "4 of 4 images; 6 missed, 0 wrong"
    assert names(tab) == ["img10", "img2", "img9", "img1"]
    tab.locator("[name=score]").dispatch_event("change")
    assert names(tab) == ["img2", "img10", "img9", "img1"]


@pytest.mark.parametrize(
    "label, error, text, expected",
    [
        ("hsil", "", "", ["img10", "img9"]),
        (NASTY, "", "", ["img10", "img2", "img9"]),  # img9 for its detection
        ("", "missed", "", ["img10", "img2"]),
        ("", "class", "", ["img9"]),
        ("", "background", "", ["img10"]),
        ("", "duplicate", "", []),  # it has 0.2
        ("", "any", "", ["img10", "img2", "img9"]),
        (NASTY, "missed", "", ["img2"]),  # img10's missed cell is of the other class
        ("", "", "slide b", ["img2"]),
        ("", "", "IMG1", ["img10", "img1"]),
    ],
)
def test_filters(tab, address, label, error, text, expected):
    visit(tab, address)
    tab.locator("[name=class]").select_option(label)
    tab.locator("[name=error]").select_option(error)
    tab.locator("[name=text]").fill(text)
    assert names(tab) == expected
    assert count(tab).startswith(f"{len(expected)} of 4 images")
    assert tab.locator("#gallery-none").is_visible() == (expected == [])
    tab.get_by_role("button", name="Reset").click()
    assert names(tab) == ["img10", "img2", "img9", "img1"]


def test_class_filter_looks_at_shown_detections_alone(tab, address):
    visit(tab, address)
    tab.locator("[name=class]").select_option(NASTY)
    slide(tab, "0.75")
    assert "img9" not in names(tab)


def test_labels_can_be_switched_off(tab, address):
    visit(tab, address)
    tag = tab.locator("article .tag").first
    assert tag.is_visible()
    tab.get_by_label("labels", exact=True).uncheck()
    assert not tag.is_visible()


def test_region_is_hatched_and_center_is_marked(tab, address):
    visit(tab, address)
    assert pane(tab, "img2", 0).locator(".hatch").count() == 1
    assert pane(tab, "img2", 0).locator(".region rect.line").count() == 1
    assert pane(tab, "img10", 0).locator("path.cross").get_attribute("d").startswith("M78.08 60h")  # 80 - 1.2 % of 160
