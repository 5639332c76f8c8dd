"""What was lost by damage is told by every command until it is back, and a backup brings it back (I9)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.commands.test_fsck import push_image
from tests.support.engine import flip, noise
from tests.support.serving import Server, StartServer, run_cas
from tests.wire.v2.pushing import Client

LAYER = noise(3 << 20)


class Lossy(NamedTuple):
    """A served store that lost a layer, and its backup from before."""

    running: Server
    client: Client
    layer: str
    backup: Path

    def cas(self, *arguments: str | Path) -> tuple[int, str]:
        ended = run_cas(*arguments, "--root", self.running.root)
        assert ended.stderr == ""
        return ended.returncode, ended.stdout

    def is_served(self) -> bool:
        answer = self.client.blob("team/app", self.layer)
        return answer.status_code == 200 and answer.content == LAYER


@pytest.fixture
def lossy(server: StartServer, tmp_path: Path) -> Iterator[Lossy]:
    running = server()
    with closing(Client(running.url)) as client:
        found = Lossy(running, client, push_image(client, LAYER), tmp_path / "backup")
        code, text = found.cas("backup", found.backup)
        assert code == 0, text
        flip(max((running.root / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size), 1 << 20)
        code, text = found.cas("fsck", "--repair")
        assert (code, "1 blob answered as missing" in text) == (1, True), text
        yield found


def summary(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text.splitlines()[-1])["summary"]
    return found


def test_a_backup_says_what_is_lost_and_keeps_it(lossy: Lossy) -> None:
    """Exit code 1, REPO:TAG, and what brings it back; the backup itself is sound."""
    for _ in range(2):
        code, text = lossy.cas("backup", lossy.backup, "--json")
        told = json.loads(text)
        assert (code, told["damaged"], told["lost"]) == (1, [], [])
        assert told["kept"] == [{"blob": lossy.layer, "names": ["team/app:1.0"]}]
    code, text = lossy.cas("backup", lossy.backup)
    assert code == 1
    assert text.splitlines()[1:] == [
        f"lost: blob {lossy.layer}, of team/app:1.0; the backup has it: cas fsck --repair --from {lossy.backup}"
    ]
    assert run_cas("fsck", "--deep", "--root", lossy.backup).returncode == 0


def test_a_backup_says_what_rotted_unnoticed_and_goes_on_having_it(server: StartServer, tmp_path: Path) -> None:
    """Moved by a collection and rotten since, before anybody knew: which image, and what brings it back."""
    running = server()
    with closing(Client(running.url)) as client:
        for layer in (noise(1 << 20, 7), LAYER):  # the first one of the tag is what the collection takes
            digest = push_image(client, layer)
    assert running.stop() == 0
    backup, ours = tmp_path / "backup", ("--root", running.root)
    assert run_cas("backup", backup, *ours).returncode == 0
    assert run_cas("gc", "--grace", "0", "--untagged", *ours).returncode == 0
    flip(max((running.root / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size), 1 << 20)
    line = f"damaged: blob {digest}, of team/app:1.0; the backup has it: cas fsck --repair --from {backup}"
    for _ in range(2):
        ended = run_cas("backup", backup, *ours)
        assert (ended.returncode, ended.stderr, ended.stdout.splitlines()[-1]) == (1, "", line)
        assert run_cas("fsck", "--deep", "--root", backup).returncode == 0
    told = json.loads(run_cas("backup", backup, *ours, "--json").stdout)
    assert (told["spared"], told["spoilt"]) == ([{"blob": digest, "names": ["team/app:1.0"]}], [])
    late = run_cas("backup", tmp_path / "late", *ours)
    assert late.returncode == 1
    assert late.stdout.endswith(
        f"blob {digest}, of team/app:1.0; run cas fsck --repair, then push the same content again\n"
    )
    assert run_cas("fsck", "--repair", "--from", backup, *ours).returncode == 1
    assert run_cas("fsck", "--deep", *ours).returncode == 0
    assert run_cas("backup", backup, *ours).returncode == 0


def test_a_backup_says_what_it_has_not_got_either(lossy: Lossy, tmp_path: Path) -> None:
    """One that was first made too late; nor has what is restored from it."""
    code, text = lossy.cas("backup", tmp_path / "late")
    assert code == 1
    assert text.splitlines()[1:] == [f"lost: blob {lossy.layer}, of team/app:1.0; push the same content again"]
    ended = run_cas("restore", tmp_path / "late", "--root", tmp_path / "new")
    assert ended.returncode == 1
    (said,) = ended.stdout.splitlines()[1:]
    assert said.startswith(f"damaged: blob {lossy.layer}: ")
    assert "; it concerns team/app:1.0; " in said


def test_a_backup_brings_back_what_was_lost_beside_a_live_server(lossy: Lossy) -> None:
    """Exit code 1: there was something, and it is mended. Then all is well, here and there."""
    assert not lossy.is_served()
    lossy.cas("backup", lossy.backup)
    code, text = lossy.cas("fsck", "--repair", "--from", lossy.backup, "--json")
    told = summary(text)
    assert (code, told["recovered"], told["lost"], told["left"]) == (1, [lossy.layer], [], 0)
    assert json.loads(text.splitlines()[0])["remedy"] == "mended"
    assert lossy.is_served()
    assert lossy.cas("fsck", "--deep")[0] == 0
    assert lossy.cas("fsck", "--repair", "--from", lossy.backup)[0] == 0
    assert lossy.cas("backup", lossy.backup)[0] == 0


@pytest.mark.parametrize("meanwhile", [True, False])
def test_a_backup_keeps_what_was_lost_of_what_was_deleted_and_brings_it_back(lossy: Lossy, *, meanwhile: bool) -> None:
    """Whatever is done in between: it stays in the backup, and comes back from there, in the trash or out of it."""
    assert lossy.cas("repo", "rm", "team/app")[0] == 0
    for _ in range(2):
        code, text = lossy.cas("backup", lossy.backup, "--json")
        told = json.loads(text)
        assert (code, told["lost"]) == (1, [])
        assert told["kept"] == [{"blob": lossy.layer, "names": [f"team/app@{lossy.layer} (deleted)"]}]
        assert lossy.cas("gc")[0] == 0
    if meanwhile:
        assert summary(lossy.cas("fsck", "--repair", "--from", lossy.backup, "--json")[1])["recovered"] == [lossy.layer]
    assert lossy.cas("undelete", "team/app") == (0, "team/app is back\n")
    assert lossy.is_served() == meanwhile
    if not meanwhile:
        told = json.loads(lossy.cas("backup", lossy.backup, "--json")[1])
        assert told["kept"] == [{"blob": lossy.layer, "names": ["team/app:1.0"]}]
        assert lossy.cas("fsck")[0] == 4
        assert summary(lossy.cas("fsck", "--repair", "--from", lossy.backup, "--json")[1])["recovered"] == [lossy.layer]
    assert lossy.is_served()
    assert lossy.cas("fsck", "--deep")[0] == 0
    assert lossy.cas("backup", lossy.backup)[0] == 0


def test_a_repair_that_cannot_bring_back_what_was_lost_before_says_so(lossy: Lossy) -> None:
    """Exit code 4, as of a check: which blobs, whose, and what would help; a push then does."""
    for arguments in ((), ("--from", lossy.backup)):
        if arguments:  # a backup that has rotted too
            flip(max((lossy.backup / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size), 1 << 20)
        code, text = lossy.cas("fsck", "--repair", *arguments)
        first, *whose, said = text.splitlines()
        assert (code, [line.strip() for line in whose]) == (4, ["team/app:1.0"])
        assert first.startswith(f"lost (I9): blob {lossy.layer}: ")
        assert said.endswith(
            " 0 packs set aside in quarantine/, 1 blob answered as missing until they are pushed again, 1 not mended"
        )
        where = f"cas fsck --root {lossy.running.root} --repair --from BACKUP"
        assert first.endswith(f"push the same content again, or bring it back from a backup: {where}")
    told = summary(lossy.cas("fsck", "--repair", "--json")[1])
    assert (told["exit"], told["lost"], told["recovered"], told["left"]) == (4, [lossy.layer], [], 1)
    push_image(lossy.client, LAYER)
    assert lossy.cas("fsck", "--repair")[0] == 0


def test_a_rebuild_names_what_is_lost_as_people_know_it(lossy: Lossy) -> None:
    """REPO:TAG, which is known once the names are back."""
    assert lossy.running.stop() == 0
    code, text = lossy.cas("fsck", "--rebuild-index", "--force")
    line = f"damaged: blob {lossy.layer} is incomplete from byte "
    (said,) = [each for each in text.splitlines() if each.startswith(line)]
    assert code == 1
    assert "; it concerns team/app:1.0; push the same content again, or bring it back from a backup: " in said


def test_a_folder_that_is_no_help_is_refused(lossy: Lossy, tmp_path: Path) -> None:
    """Not a store, one whose index is damaged, the store itself: said by that folder's name, and nothing was done."""
    for folder, said in ((tmp_path / "none", "it does not exist"), (tmp_path, "it has no store.json")):
        ended = run_cas("fsck", "--repair", "--from", folder, "--root", lossy.running.root)
        assert (ended.returncode, ended.stdout) == (8, "")
        assert (
            ended.stderr == f"cas: there is no backup in {folder}: {said}; name the folder that a cas backup went to\n"
        )
    data = lossy.backup / "index" / "data.mdb"
    with data.open("r+b") as file:
        file.truncate(8192)
    ended = run_cas("fsck", "--repair", "--from", lossy.backup, "--root", lossy.running.root)
    assert (ended.returncode, ended.stdout) == (8, "")
    assert f"cas fsck --rebuild-index --force --root {lossy.backup}" in ended.stderr
    ended = run_cas("fsck", "--repair", "--from", lossy.running.root, "--root", lossy.running.root)
    assert (ended.returncode, ended.stdout) == (16, "")
    assert "another folder" in ended.stderr
