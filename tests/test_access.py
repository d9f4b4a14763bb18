"""Every page and panel against the rules of WCAG 2.2 A and AA that a program can check (axe-core)."""

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Page, expect

from tests.browser import Visiting
from tests.services.archived import Server

pytest_plugins = ["tests.services.archived"]

RULES = {
    "resultTypes": ["violations"],
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]},
}
LOOKS = [(390, "light"), (390, "dark"), (1100, "light"), (1100, "dark")]


def broken(page: Page) -> list[str]:
    """Returns each rule that is broken, with the places."""
    page.wait_for_timeout(300)  # colours that fade in
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{rule['id']}: {node['target']} {node['failureSummary']}" for rule in found for node in rule["nodes"]]


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_the_chat_and_its_panels_break_no_rule(kept_server: Server, visit: Visiting, width: int, scheme: str) -> None:
    me = visit(kept_server.url, color_scheme=scheme, viewport={"width": width, "height": 800})
    assert broken(me.page) == []
    me.ask("Hola", rows=2)
    me.ask("Quiero matarme", rows=4)
    assert broken(me.page) == []
    me.find("#help-now").click()
    expect(me.find("#help-text")).to_be_visible()
    assert broken(me.page) == []
    me.find("#help-close").click()
    me.find("#keep").click()
    expect(me.find("#kept")).to_be_visible()
    assert broken(me.page) == []


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
@pytest.mark.parametrize("paper", ["plan", "crisis", "privacy"])
def test_the_other_pages_break_no_rule(
    kept_server: Server, visit: Visiting, paper: str, width: int, scheme: str
) -> None:
    me = visit(color_scheme=scheme, viewport={"width": width, "height": 800})
    me.page.goto(f"{kept_server.url}{paper}")
    assert broken(me.page) == []
