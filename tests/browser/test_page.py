"""The page in a real Chromium, offline, in light and dark, by keyboard, on a phone.

Needs Debian's `chromium` and `pip install '.[browser]'`. UNITVEC_SCREENSHOTS names a folder to keep its pictures in.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Server

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser, server: Server, request: pytest.FixtureRequest) -> Iterator:
    context = browser.new_context(**getattr(request, "param", {}))
    opened = context.new_page()
    opened.problems = []
    opened.on("console", lambda message: message.type in ("error", "warning") and opened.problems.append(message.text))
    opened.on("pageerror", lambda error: opened.problems.append(str(error)))
    opened.on("request", lambda asked: asked.url.startswith(("data:", server.url)) or opened.problems.append(asked.url))
    opened.goto(server.url)
    sync_api.expect(opened.locator("#model option")).to_have_count(1)
    yield opened
    assert opened.problems == []
    context.close()


def keep(page, name: str) -> None:
    if folder := os.environ.get("UNITVEC_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def embed(page) -> None:
    page.click("#send")
    page.wait_for_selector("#results:not([hidden])")


LIGHT = {"viewport": {"width": 1100, "height": 900}, "color_scheme": "light"}
DARK = {"viewport": {"width": 1100, "height": 900}, "color_scheme": "dark"}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.mark.parametrize("page", [LIGHT, DARK], indirect=True, ids=["light", "dark"])
def test_texts_become_a_matrix_and_a_map(page, request: pytest.FixtureRequest) -> None:
    embed(page)
    assert page.locator("#matrix tbody tr").count() == 7
    cells = [float(text) for text in page.locator("#matrix tbody td").all_inner_texts()]
    matrix = [cells[at : at + 7] for at in range(0, 49, 7)]
    assert all(matrix[n][n] == 1 for n in range(7))
    assert matrix == [list(column) for column in zip(*matrix, strict=True)]
    assert matrix[0][1] > 0.5 > matrix[0][4]  # two cats; a cat and a bank
    assert page.locator("#map circle").count() == 7
    told = page.inner_text("#told")
    assert re.match(r"7 texts, \d+ tokens, 384 dimensions: [\d.]+ ms in the server", told)
    sync_api.expect(page.locator("#memory")).to_have_text(re.compile(r"\d [MG]iB$"))
    sync_api.expect(page.locator("#speed")).to_have_text(re.compile(r"\d"), timeout=10_000)
    assert "all-minilm:latest" in page.inner_text("#models")
    assert "256" in page.inner_text("#models")
    keep(page, f"page-{request.node.callspec.id}")


@pytest.mark.parametrize("page", [PHONE], indirect=True, ids=["phone"])
def test_on_a_phone_nothing_is_wider_than_the_screen(page) -> None:
    embed(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    keep(page, "page-phone")


@pytest.mark.parametrize("page", [LIGHT], indirect=True, ids=["keyboard"])
def test_by_keyboard_alone(page) -> None:
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "texts":
            break
    page.keyboard.press("Control+A")
    page.keyboard.type("only one <b>text</b>")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#results:not([hidden])")
    assert page.inner_text("#told").startswith("1 text, ")
    assert "<b>text</b>" in page.inner_text("#matrix tbody th")  # shown, not obeyed
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "model"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "send"


@pytest.mark.parametrize("page", [LIGHT], indirect=True, ids=["mistakes"])
def test_mistakes_are_told(page) -> None:
    page.fill("#texts", " \n ")
    page.click("#send")
    assert page.inner_text("#told") == "Write a text first."
    page.fill("#texts", "a")
    page.evaluate("document.querySelector('#model').options[0].value = 'nope'")
    page.click("#send")
    sync_api.expect(page.locator("#told")).to_contain_text("not found")
    page.problems.clear()  # Chromium notes the 404 in its console


@pytest.mark.parametrize("page", [LIGHT], indirect=True, ids=["many"])
def test_more_texts_than_the_matrix_shows(page) -> None:
    page.fill("#texts", "\n".join(f"text number {n}" for n in range(150)))
    embed(page)
    assert page.locator("#matrix tbody tr").count() == 60
    assert "The first 60 are shown" in page.inner_text("#told")


@pytest.mark.parametrize("page", [DARK], indirect=True, ids=["docs"])
def test_the_description_of_the_api(page, server: Server) -> None:
    page.click("nav a >> text=API")
    page.wait_for_url(f"{server.url}/docs")
    page.get_by_text("/v1/embeddings").click()
    assert "encoding_format" in page.inner_text("details[open]")


def test_a_key_is_the_password(browser, start: Callable[..., Server]) -> None:
    locked = start("all-minilm", "--api-key", "open-sesame")
    context = browser.new_context(http_credentials={"username": "anyone", "password": "open-sesame"})
    opened = context.new_page()
    opened.goto(locked.url)
    sync_api.expect(opened.locator("#model option")).to_have_count(1)
    embed(opened)
    assert opened.inner_text("#told").startswith("7 texts, ")
    sync_api.expect(opened.locator("#memory")).to_have_text(re.compile(r"\d [MG]iB$"))
    context.close()
