"""The table of clients is what the tests walk through."""

from __future__ import annotations

from tests.clients.drivers import CLIENTS
from tests.clients.matrix import ABLE, DOCUMENT, VERBS, with_table

METHODS = {"push": "push", "pull": "pull", "list": "tags", "delete": "delete", "search": "search", "login": "log_in"}


def test_the_documents_table_shows_the_cells_that_are_tested() -> None:
    """`make docs` writes it anew."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_table(text) == text


def test_no_client_is_said_to_do_less_than_its_driver_can() -> None:
    """A verb without cells would be one nobody tests."""
    assert set(ABLE) == set(CLIENTS)
    assert set(METHODS) == set(VERBS)
    for name, driver in CLIENTS.items():
        able = {verb for verb, method in METHODS.items() if callable(getattr(driver, method, None))}
        assert able - ({"login"} if name == "ctr" else set()) == set(ABLE[name])
