"""Which template a page's path becomes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anvil_monitor.exporter.names import UNMATCHED
from anvil_monitor.exporter.pagetemplates import PageTemplates
from anvil_monitor.targets import settings

TEMPLATES = (
    "/",
    "/products/new",
    "/products/{id}",
    "/products/{id}/reviews/{review}",
    "/a/",
    "/docs/{rest:path}",
    "/docs/late",
)


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/", "/"),
        ("/products/new", "/products/new"),
        ("/products/7", "/products/{id}"),
        ("/products/7/", "/products/{id}"),
        ("/products/7/reviews/9", "/products/{id}/reviews/{review}"),
        ("/products", UNMATCHED),
        ("/products//reviews/9", UNMATCHED),
        ("/products/7/reviews", UNMATCHED),
        ("/Products/7", UNMATCHED),
        ("/a", "/a/"),
        ("/a/", "/a/"),
        ("/docs", "/docs/{rest:path}"),
        ("/docs/", "/docs/{rest:path}"),
        ("/docs/a/b//c", "/docs/{rest:path}"),
        ("/docs/late", "/docs/{rest:path}"),
        ("/documents", UNMATCHED),
        ("/made/up", UNMATCHED),
        ("/{id}", UNMATCHED),
    ],
)
def test_the_first_that_matches(path: str, template: str) -> None:
    """Step by step, in the order of the list; a step that is a name takes any text that is not empty."""
    assert PageTemplates(TEMPLATES).of_page(path) == template


def test_the_rest_goes_on() -> None:
    """What no template takes is for the server's routes, which alone know of a root path."""

    class Others:
        def of_page(self, path: str, root: str = "") -> str:
            return f"{path} below {root}"

    pages = PageTemplates(["/shop/{id}"], Others())
    assert pages.of_page("/shop/1", "/shop") == "/shop/{id}"
    assert pages.of_page("/shop/1/2", "/shop") == "/shop/1/2 below /shop"
    assert PageTemplates(()).of_page("/") == UNMATCHED
    assert PageTemplates(["/{all:path}"]).of_page("/any/thing") == "/{all:path}"


@given(st.lists(st.from_regex(settings.PAGE, fullmatch=True), max_size=8), st.text(max_size=50))
def test_only_templates_come_out(templates: list[str], path: str) -> None:
    """Whatever the configuration allows and a browser says: the label is one of the templates, or the shared value."""
    assert PageTemplates(templates).of_page(f"/{path}") in {*templates, UNMATCHED}


@given(st.from_regex(settings.PAGE, fullmatch=True))
def test_a_template_matches_itself(template: str) -> None:
    """A path made of a template by putting a word for each name is of that template."""
    path = "/".join("word" if step.startswith("{") else step for step in template.split("/"))
    assert PageTemplates([template]).of_page(path) == template
