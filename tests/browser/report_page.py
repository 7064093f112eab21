"""The report in a real browser: it loads without errors, and each control does what it says (`make test-browser`).

Needs Chromium (Debian's package is enough; CHROMIUM names another), and Playwright, which the target installs apart.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from playwright.sync_api import Page, sync_playwright
from synthetic import folders_of, sweep

from eval.analysis.analysis import Analysis
from eval.figures import write_figures
from eval.report.page import write_report
from eval.report.tables import write_tables

WIDTHS = (400, 1280)


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """The report of a made-up sweep, drawn and bound as a real one is."""
    root = tmp_path_factory.mktemp("report")
    records = sweep()
    analysis, folders = Analysis(records), folders_of(records, root)
    for folder in folders:
        (folder / "metrics.json").write_text("{}")
    write_tables(analysis, root)
    write_figures(analysis, folders, root / "figures")
    paths = [folder / "metrics.json" for folder in folders]
    write_report(
        analysis, paths, root, "default", root / "report.html", runs="http://127.0.0.1:5000/#/experiments/1/runs"
    )
    return (root / "report.html").as_uri()


@pytest.fixture(scope="module")
def chromium():
    binary = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert binary, "no Chromium; install Debian's package chromium, or name one in CHROMIUM"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=WIDTHS, ids=[f"{width} px" for width in WIDTHS])
def page(request, chromium, address):
    """The report, open; no message of an error and no request of it may come until the test's end."""
    wrong: list[str] = []
    found = chromium.new_page(viewport={"width": request.param, "height": 900})
    found.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("request", lambda one: None if one.url.startswith(("file:", "data:")) else wrong.append(one.url))
    found.goto(address)
    yield found
    assert not wrong
    found.close()


def cards(page: Page) -> list[str]:
    return page.locator(".card h3").all_inner_texts()


def labels(page: Page) -> list[str]:
    return page.locator(".card").first.locator("figcaption span").all_inner_texts()


def test_nothing_is_wider_than_the_window(page):
    for each in page.locator("details").all():
        each.evaluate("e => { e.open = true; }")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_images_come_first_and_tables_are_folded(page):
    order = page.locator("main > section").evaluate_all("all => all.map(each => each.id)")
    assert order[:3] == ["images", "quality", "answers"]
    assert page.locator("#table table:visible").count() == 0
    page.locator("#table summary").first.click()
    assert page.locator("#table table:visible").count() > 0


def test_methods_sparsities_and_captions_are_chosen(page):
    assert len(cards(page)) == 6 and labels(page) == ["dense", "random", "wanda", "sparsegpt", "obs_diff"]
    page.get_by_label("wanda", exact=True).uncheck()
    assert labels(page) == ["dense", "random", "sparsegpt", "obs_diff"]
    high = page.locator(".card button img").first.get_attribute("src")
    page.get_by_label("0.30", exact=True).check()
    assert page.locator(".card button img").first.get_attribute("src") != high
    page.get_by_label("worst", exact=True).uncheck()
    assert len(cards(page)) == 4 and not any("worst" in text for text in cards(page))
    page.get_by_label("all 24 captions").check()
    assert len(cards(page)) == 16
    page.get_by_placeholder("words of a caption").fill("nowhere")
    assert not cards(page) and page.get_by_text("No caption is chosen.").is_visible()


def test_holding_an_image_shows_the_dense_models(page):
    button = page.locator(".card button").first
    image, caption = button.locator("img"), page.locator(".card").first.locator("figcaption span").nth(1)
    dense, own = page.locator(".card .still img").first.get_attribute("src"), image.get_attribute("src")
    button.scroll_into_view_if_needed()
    button.hover()
    page.mouse.down()
    assert image.get_attribute("src") == dense != own and caption.inner_text() == "dense"
    page.mouse.up()
    assert image.get_attribute("src") == own and caption.inner_text() == "random"
    button.focus()
    page.keyboard.down("Space")
    assert image.get_attribute("src") == dense
    page.keyboard.up("Space")
    assert image.get_attribute("src") == own


def test_tables_are_sorted_and_filtered(page):
    page.locator("#table summary").first.click()
    table = page.locator("#table table").first
    heads = table.locator("thead th").all_inner_texts()
    place = next(i for i, head in enumerate(heads) if head.startswith("FID"))

    def values() -> list[float]:
        read = "(rows, i) => rows.map(row => Number(row.cells[i].dataset.sort))"
        return list(table.locator("tbody tr:visible").evaluate_all(read, place))

    before = values()
    table.locator("thead th").nth(place).focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#table th[aria-sort]')")
    page.wait_for_timeout(50)
    assert values() == sorted(before)
    table.locator("thead th").nth(place).click()
    page.wait_for_timeout(50)
    assert values() == sorted(before, reverse=True)
    page.locator("#table").get_by_placeholder("words of a row").first.fill("sparsegpt")
    assert len(values()) == 2 and page.get_by_text(f"2 of {len(before)} rows").is_visible()


def test_links_open_what_is_folded(page):
    assert page.locator("#provenance table a:visible").count() == 0
    page.locator("#provenance summary").click()
    assert page.locator("#provenance table a:visible").count() > 0
    page.evaluate("location.hash = '#deviation'")
    page.wait_for_function("!document.getElementById('deviation') || document.getElementById('deviation').open")


def test_dark_mode_and_print(page):
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.emulate_media(media="print")
    assert not page.locator(".controls").is_visible() and page.locator(".card").first.is_visible()
    assert len(page.pdf()) > 10_000
