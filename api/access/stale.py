"""Refresh tokens that no longer open anything: those of an account whose password was changed since.

They were refused all along; this only makes room. Accounts of a password file are not known here. Blocking; no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from api.access import users
from api.access.refresh import REFRESH
from api.content.collect import Garbage, Rule, Terms, walk
from api.content.values import content
from cas import Store


def _find(store: Store, _scope: str, _terms: Terms) -> Iterator[Garbage]:
    for name, found in walk(store, REFRESH):
        user = name.path.rpartition(":")[0]
        account = store.read(lambda reads, user=user: users.find(reads, user))  # type: ignore[misc]
        if account is not None and account.stamp != content(found)["stamp"]:
            yield Garbage.of(name, found, "refresh tokens of older passwords")


RULE: Final = Rule(lambda _: [REFRESH], _find)
