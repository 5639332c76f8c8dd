"""Who may pull a repository may pull both of what its tags show, and nobody else any of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.v1client import Refused, chain
from tests.wire.generations.both import Both, Sample, both, new_tar, packed
from tests.wire.v1.talk import Guarded, basic, guarding, new_id
from tests.wire.v1.test_vouched import Pair, pair
from tests.wire.v2.pushing import Client

__all__ = ["pair"]  # a fixture

NAME = "alice/app"


@dataclass
class Members:
    """A registry with accounts, spoken to by both protocols."""

    guarded: Guarded

    @contextmanager
    def as_(self, user: str | None) -> Iterator[Both]:
        registry = self.guarded.registry
        host, port = registry.server.address
        headers = basic(user) if user else {}
        with closing(Client(f"http://{host}:{port}", headers=headers)) as client:
            yield Both(registry, client)


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Members]:
    with guarding(tmp_path / "root") as guarded:
        for name in ("alice", "bob"):
            guarded.account(name)
        yield Members(guarded)


def test_what_v2_pushed_into_a_private_repository_is_not_pulled_by_v1(members: Members, tmp_path: Path) -> None:
    """Ids are no secret, and open nothing to whoever may not pull; once everybody may, everybody can."""
    sample = Sample([new_tar(), new_tar()])
    with members.as_("alice") as alice:
        alice.push(NAME, sample)
    guarded = members.guarded
    pulled = guarded.client("alice").pull(NAME, "latest", tmp_path)
    assert [(tmp_path / f"{each.id}.layer").read_bytes() for each in pulled] == sample.layers
    for outsider in (guarded.client("bob"), guarded.client(None)):
        with pytest.raises(Refused, match="begin pull"):
            outsider.pull(NAME, "latest")
        for each in pulled:
            assert outsider.registry("GET", f"/v1/images/{each.id}/json").status in {401, 404}
    bob = guarded.client("bob")
    guarded.push("bob", "bob/own")
    bob.index("GET", "/v1/repositories/bob/own/images")
    for each in pulled:  # with a token for a repository of his own
        assert bob.registry("GET", f"/v1/images/{each.id}/layer").status == 404
    guarded.publish(NAME)
    for puller in (guarded.client("bob"), guarded.client(None)):
        assert [each.id for each in puller.pull(NAME, "latest")] == [each.id for each in pulled]


def test_what_v1_pushed_into_a_private_repository_is_not_pulled_by_v2(members: Members) -> None:
    """Neither the manifest that was made, nor a blob of it, from there or from anywhere else."""
    guarded = members.guarded
    guarded.client("alice").push(NAME, chain([packed(new_tar())], seed=new_id()), ["latest"])
    with members.as_("alice") as alice, members.as_("bob") as bob, members.as_(None) as nobody:
        assert bob.manifest(NAME).status_code == 403
        assert nobody.manifest(NAME).status_code == 401
        manifest, _, layers = alice.pull_v2(NAME)
        digests = [manifest[part]["digest"] for part in ("config",)] + [manifest["layers"][0]["digest"]]
        for digest in digests:
            assert bob.client.blob(NAME, digest).status_code == 403
            assert nobody.client.blob(NAME, digest).status_code == 401
        guarded.push("bob", "bob/own")
        assert {bob.client.blob("bob/own", digest).status_code for digest in digests} == {404}
        guarded.publish(NAME)
        assert bob.pull_v2(NAME)[2] == nobody.pull_v2(NAME)[2] == layers


def test_a_right_to_pull_is_none_to_delete_by_either_protocol(members: Members) -> None:
    """And who may push may not delete what the other generation pushed either."""
    members.guarded.client("alice").push(NAME, chain([packed(new_tar())], seed=new_id()), ["latest"])
    members.guarded.grant("bob", NAME, "pull", "push")
    with members.as_("alice") as alice, members.as_("bob") as bob:
        digest = bob.manifest(NAME).headers["docker-content-digest"]
        for reference in ("latest", digest):
            assert bob.manifest(NAME, reference, "DELETE").status_code == 403
        answer = bob.registry.ask("DELETE", f"/v1/repositories/{NAME}/tags/latest", headers=basic("bob"))
        assert answer.status == 403
        assert alice.manifest(NAME).status_code == 200


def test_an_index_that_vouches_for_v1_opens_what_v2_pushed(pair: Pair, tmp_path: Path) -> None:
    """In `token` mode v2 is not there, and its images are v1's, with the index's word and without no more than ever."""
    sample = Sample([new_tar(), new_tar()])
    with both(tmp_path / "registry") as registry:  # another process on the same store, before the mode was changed
        registry.push(NAME, sample)
    alice = pair.client("alice")
    alice.index("PUT", f"/v1/repositories/{NAME}/", [])
    pulled = alice.pull(NAME, "latest", tmp_path)
    assert [(tmp_path / f"{each.id}.layer").read_bytes() for each in pulled] == sample.layers
    assert pair.registry.get(f"/v2/{NAME}/manifests/latest")[0] == 404
    assert pair.registry.get(f"/v1/repositories/{NAME}/tags/latest")[0] == 401
    assert pair.registry.get(f"/v1/images/{pulled[-1].id}/json")[0] == 401
