"""How views are made: once, whoever asks and however many do; and what becomes of one that is not finished."""

# ruff: noqa: SLF001 - somebody is faster at just the worst moment

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api import maintenance
from api.bridge.asked import Asked
from api.bridge.images import image_of
from api.bridge.layers import LAYER, Layers
from api.bridge.manifests import manifest_of
from api.content import tags
from api.content.repository import Repository
from api.content.settings import KeepingSettings
from api.content.views import NotShown
from api.v1.settings import V1Settings
from api.v2 import manifests
from api.v2.call import Call
from cas import Busy, Digest, NoSpace, Store
from cas.disk import Disk
from tests.support.processes import run_to_its_death
from tests.support.serving import StartServer
from tests.v1client import Client as V1Client
from tests.v1client import chain
from tests.wire.generations.both import MANIFEST, Both, Sample, both, new_tar, packed
from tests.wire.generations.test_to_v1 import ZSTD, zstd
from tests.wire.harness import NOW, PATIENCE_S
from tests.wire.v1.talk import new_repository

HOME = "some/thing"
LARGE = 3_000_000  # more than one piece


class Interrupted(Exception):
    """What a test raises in the middle of the work."""


def asked(store: Store, repository: str, tick: Callable[[], object] = bool, tag: str = "latest") -> Asked:
    """Ask as a worker of its own does."""
    inside = Layers(store, V1Settings().max_unpacked_bytes, tick)
    return Asked(store, V1Settings(), inside, Repository.of(repository), tag, NOW)


def view(store: Store, repository: str) -> tags.Image | tags.Manifest | None:
    found = store.read(lambda reads: tags.find(reads, Repository.of(repository), "latest"))
    assert found is not None
    return found.view


@pytest.mark.parametrize("way", ["v1", "v2"])
def test_of_two_who_ask_at_once_one_does_the_work(registry: Both, way: str) -> None:
    """The other one waits for it, in this process or another, and gets the same."""
    repository, store, pieces = new_repository(), registry.store, Counter[str]()
    if way == "v1":
        registry.push(repository, Sample([new_tar(LARGE)], pack=zstd, layer_type=ZSTD))
    else:
        registry.push_v1(repository, [new_tar(LARGE)])
    make: Callable[[Asked], object] = image_of if way == "v1" else manifest_of
    begun, go_on = threading.Event(), threading.Event()

    def first() -> None:
        pieces["first"] += 1
        begun.set()
        assert go_on.wait(PATIENCE_S)

    def second() -> None:
        pieces["second"] += 1

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(make, asked(store, repository, first))
        assert begun.wait(PATIENCE_S)
        other = pool.submit(make, asked(store, repository, second))
        go_on.set()
        assert one.result(PATIENCE_S) == other.result(PATIENCE_S) == view(store, repository)
    assert pieces["first"] > 1
    assert pieces["second"] == 0


@pytest.mark.parametrize("way", ["v1", "v2"])
def test_work_that_breaks_off_changes_nothing(registry: Both, way: str) -> None:
    """No view, no note, no name; who asks next has it made from the start."""
    repository, store = new_repository(), registry.store
    if way == "v1":
        registry.push(repository, Sample([new_tar(LARGE)], pack=zstd, layer_type=ZSTD))
    else:
        registry.push_v1(repository, [new_tar(LARGE)])
    make: Callable[[Asked], object] = image_of if way == "v1" else manifest_of

    def interrupt() -> None:
        raise Interrupted

    before = store.stats()
    with pytest.raises(Interrupted):
        make(asked(store, repository, interrupt))
    assert (view(store, repository), store.stats().names) == (None, before.names)
    assert store.stats().blobs == before.blobs
    assert make(asked(store, repository)) == view(store, repository)


DIES = """
import os, signal, sys
from pathlib import Path
from cas import Store
from tests.wire.generations.test_making import asked
from api.bridge.manifests import manifest_of

left = [int(sys.argv[2])]

def tick():
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

with Store.open(Path(sys.argv[1])) as store:
    manifest_of(asked(store, "some/thing", tick))
"""


def test_a_process_killed_in_the_middle_leaves_garbage_and_nothing_else(tmp_path: Path) -> None:
    """The next one makes the whole; a collection takes what was left."""
    root, archive = tmp_path / "root", new_tar(24 << 20)
    with both(root) as registry:
        registry.push_v1(HOME, [archive])
    run_to_its_death(DIES, root, "20")  # of 24 pieces of a MiB: runs were written by then
    with both(root) as registry:
        assert view(registry.store, HOME) is None
        registry.store.tick()
        made = maintenance.run(registry.store, maintenance.terms(KeepingSettings(), lambda: NOW))
        assert made.names.removed == Counter()
        assert [len(each) for each in registry.pull_v2(HOME)[2]] == [len(packed(archive))]
        again = maintenance.run(registry.store, maintenance.terms(KeepingSettings(), lambda: NOW))
        assert again.names.removed == Counter()
        assert list(registry.store.check()) == []
        registry.pull_v2(HOME)


def test_a_server_that_is_stopped_does_not_wait_for_long_work(registry: Both) -> None:
    """What is under way ends at its next piece, to be asked for again."""
    repository = new_repository()
    registry.push_v1(repository, [new_tar(LARGE)])

    def stopping() -> None:
        raise Busy("being stopped")

    with pytest.raises(Busy):
        manifest_of(asked(registry.store, repository, stopping))


def test_a_bad_layer_is_unpacked_once(registry: Both) -> None:
    """Whoever asks again is told without that work, whatever tag it is in."""
    repository, pieces = new_repository(), Counter[str]()
    layer = packed(new_tar(LARGE))[:-100]
    for tag in ("latest", "again"):
        registry.push_v1(repository, [layer], tag)

    def count() -> None:
        pieces["all"] += 1

    one = asked(registry.store, repository, count)
    other = Asked(one.store, one.settings, one.inside, one.repository, "again", NOW)
    for each in (one, one, other):
        with pytest.raises(NotShown, match="ends too early"):
            manifest_of(each)
    assert 0 < pieces["all"] <= LARGE // (256 << 10) + 2


def test_a_base_is_unpacked_once_for_all_tags(registry: Both) -> None:
    """What was found in it is noted."""
    repository, pieces = new_repository(), Counter[str]()
    base = packed(new_tar(LARGE))
    for tag in ("latest", "other"):
        registry.push_v1(repository, [base, packed(new_tar(100))], tag)
        manifest_of(asked(registry.store, repository, lambda tag=tag: pieces.update([tag]), tag))  # type: ignore[misc]
    assert pieces["latest"] > pieces["other"] == 1
    assert len(registry.store.scan(LAYER)) >= 3


def test_many_who_ask_two_workers_at_once_get_one_manifest(server: StartServer) -> None:
    """Processes of one server; the layer is packed once, as far as can be counted from outside: one digest."""
    running = server(workers=2)
    V1Client(running.host, running.port).push(HOME, chain([new_tar(8 << 20)]), ["latest"])
    path = f"/v2/{HOME}/manifests/latest"
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: running.get(path), range(12)))
    assert {status for status, _ in answers} == {200}
    assert len({body for _, body in answers}) == 1


class FullDisk(Disk):
    """A disk that has room until a test says otherwise."""

    full = False

    def check_room(self, path: Path, size: int, reserve: Callable[[int], int]) -> None:
        if self.full:
            raise NoSpace("the disk is full")
        super().check_room(path, size, reserve)


def test_on_a_full_disk_nothing_is_made_and_everybody_is_told(tmp_path: Path) -> None:
    """By either protocol, one tag or all of them; what was made before, and all that was pushed, is served."""
    disk = FullDisk()
    with both(tmp_path / "root", disk=disk) as registry:
        ask = registry.registry.ask
        for tag in ("made", "new"):
            registry.push(HOME, Sample([new_tar()]), tag)
        images = registry.push_v1(HOME, [packed(new_tar())], "old")
        image = registry.image(HOME, "made")
        disk.full = True
        for path in ("tags", "tags/new", "images"):
            assert ask("GET", f"/v1/repositories/{HOME}/{path}").status == 507, path
        assert registry.manifest(HOME, "old").status_code == 503
        assert (registry.image(HOME, "made"), registry.image(HOME, "old")) == (image, images[-1].id)
        answer = ask("GET", f"/v1/images/{image}/json")  # its checksum cannot be noted, and is told all the same
        assert answer.headers["X-Docker-Checksum-Payload"].startswith("sha256:")
        assert registry.manifest(HOME, "new").status_code == 200
        disk.full = False
        assert registry.tags_v1(HOME).keys() == {"made", "new", "old"}
        registry.pull_v2(HOME, "old")


def test_a_tag_pushed_while_its_view_was_made_is_seen_at_the_next_question(
    registry: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is answered by then may be of before; but it is not answered again."""
    repository, made = new_repository(), manifests._made
    registry.push_v1(repository, [packed(new_tar())])
    blobs = Sample([new_tar()])
    registry.push(repository, blobs, "other")

    async def overtaken(call: Call, tag: str) -> Digest:
        digest = await made(call, tag)
        registry.store.change(
            lambda names: tags.put(names, call.repository, tag, tags.Manifest(newer, MANIFEST, len(body)), {})
        )
        return digest

    body = blobs.manifest.body
    newer = Digest.of(body)
    monkeypatch.setattr(manifests, "_made", overtaken)
    before = registry.manifest(repository).headers["docker-content-digest"]
    assert before != str(newer)
    assert registry.manifest(repository).headers["docker-content-digest"] == str(newer)
