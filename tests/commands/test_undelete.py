"""`cas undelete` and `cas repo rm`, beside a live server and without one."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path

import pytest

from cas import Store
from tests.support.serving import Server, StartServer, run_cas
from tests.wire.v2.content import Home
from tests.wire.v2.pushing import Client


@pytest.fixture
def running(server: StartServer) -> Server:
    return server(workers=2)


def test_what_was_deleted_is_listed_and_brought_back_beside_a_live_server(running: Server) -> None:
    """A tag, a manifest, a repository; served again from the next request on."""
    with closing(Client(running.url)) as client:
        home = Home(client)
        image = home.push(home.numbered(1), "some")
        name = home.name
        for what in (f"{name}:some", f"{name}@{image.digest}", name):
            if what == name:
                ended = run_cas("repo", "rm", name, "--root", running.root)
                assert ended.stdout == f"removed {name}; for 7 days, this brings it back: cas undelete {name}\n"
            else:
                assert home.delete(image.digest if "@" in what else "some") == 202
            assert home.get("some").status_code == 404
            told = json.loads(run_cas("undelete", "--list", "--json", "--root", running.root).stdout)
            assert [each["what"] for each in told] == [what]
            assert told[0]["until"] - told[0]["deleted"] == 7 * 86400
            assert abs(told[0]["deleted"] - time.time()) < 600
            ended = run_cas("undelete", what, "--root", running.root)
            along = f", and with it {name}:some" if "@" in what else ""
            assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{what} is back{along}\n", "")
            assert home.get("some").content == image.body


def test_a_tag_that_went_with_its_manifest_is_listed_and_found_by_its_name(running: Server) -> None:
    """As most clients delete: by digest, whatever name they were given."""
    with closing(Client(running.url)) as client:
        home = Home(client, "some/repo")
        image = home.push(home.numbered(1), "1.0")
        home.put(image, "latest")
        home.push(home.numbered(2), "2.0")
        assert home.delete(image.digest) == home.delete("2.0") == 202
        what, tags = f"some/repo@{image.digest}", ["some/repo:1.0", "some/repo:latest"]
        told = json.loads(run_cas("undelete", "--list", "--json", "--root", running.root).stdout)
        assert {each["what"]: each["tags"] for each in told} == {what: tags, "some/repo:2.0": []}
        for asked in (["some/repo:1.0"], ["some/repo:latest"], [what]):
            (line,) = run_cas("undelete", *asked, "--list", "--root", running.root).stdout.splitlines()
            assert line.endswith(f"  {what}  with some/repo:1.0, some/repo:latest")
        assert len(run_cas("undelete", "--list", "--root", running.root).stdout.splitlines()) == 2
        ended = run_cas("undelete", "some/repo:1.0", "--root", running.root)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout == f"some/repo:1.0 is back, and with it {what}, some/repo:latest\n"
        assert [home.get(tag).content for tag in ("1.0", "latest")] == [image.body] * 2
        home.delete(image.digest)
        ended = run_cas("undelete", "some/repo:latest", "--json", "--root", running.root)
        assert json.loads(ended.stdout)["with"] == [what, "some/repo:1.0"]


def test_an_image_of_very_many_tags_is_a_line_that_can_be_read(running: Server) -> None:
    """In the list and once it is back: ten by name, and how many more; as JSON all of them."""
    with closing(Client(running.url)) as client:
        home = Home(client, "some/repo")
        image = home.push(home.numbered(1))
        tags = [f"some/repo:1.{number:02}" for number in range(13)]
        for tag in tags:
            assert home.put(image, tag.partition(":")[2]).status_code == 201
        assert home.delete(image.digest) == 202
        assert json.loads(run_cas("undelete", "--list", "--json", "--root", running.root).stdout)[0]["tags"] == tags
        what, told = f"some/repo@{image.digest}", f"{', '.join(tags[:10])} and 3 more"
        listed = run_cas("undelete", "--list", "--root", running.root).stdout
        assert listed.endswith(f"  {what}  with {told}\n")
        ended = run_cas("undelete", what, "--root", running.root)
        assert ended.stdout == f"{what} is back, and with it {told}\n"
        assert home.tags() == [tag.partition(":")[2] for tag in tags]


def test_a_list_shows_what_is_in_a_repository_with_how_long_it_can_come_back(running: Server) -> None:
    """Oldest first, and nothing of its neighbours."""
    with closing(Client(running.url)) as client:
        one, other = Home(client, "some/repo"), Home(client, "some/repo2")
        for home in (one, other):
            for tag in ("a", "b"):
                home.push(home.numbered(1), tag)
                home.delete(tag)
    listed = run_cas("undelete", "some/repo", "--list", "--root", running.root).stdout.splitlines()
    assert [line.split()[-1] for line in listed] == ["some/repo:a", "some/repo:b"]
    assert all("6 days left" in line for line in listed)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("undelete",), 2, "say what to bring back, or --list"),
        (
            ("undelete", "some/repo"),
            66,
            "no deletion of some/repo can be undone; `cas undelete --list` shows which can",
        ),
        (("undelete", "foo:1"), 66, "no deletion of library/foo:1 can be undone"),
        (("undelete", "some/*"), 65, "'some/*' is no repository"),
        (("undelete", "Some/repo:x"), 65, "is no repository, as NAMESPACE/NAME or NAME\n"),
        (("du", "Some/repo"), 65, "is no repository, as NAMESPACE/NAME or NAME\n"),
        (("du", "some/*"), 65, "is no repository, as NAMESPACE/NAME or NAME\n"),
        (("repo", "rm", "Some/repo"), 65, "is no repository, as NAMESPACE/NAME or NAME\n"),
        (("repo", "set", "some/repo", "--public", "--private"), 2, "--public or --private, not both."),
        (("import", "oci", ".", "a/b", "--private", "--public"), 2, "--public or --private, not both."),
        (("grant", "gina", "some/repo", "pull"), 67, "if a password file has it, say --htpasswd FILE, else make it"),
        (("repo", "rm", "some/*"), 65, "some/* stands for many repositories: name one"),
        (("repo", "rm", "some/repo"), 66, "there is no repository some/repo"),
        (
            ("repo", "rm", "some/repo:one"),
            65,
            "some/repo:one is a tag, no repository; it goes by the server: DELETE /v2/some/repo/manifests/one, or ",
        ),
        (("repo", "rm", "foo@sha256:1"), 65, "an image, no repository; it goes by the server: DELETE /v2/library/foo/"),
        (
            ("repo", "set", "some/repo:one", "--public"),
            65,
            "some/repo:one is a tag, no repository; who may see it is said of some/repo",
        ),
        (("repo", "rm", "Some/repo:one"), 65, "'Some/repo' is no repository, as NAMESPACE/NAME or NAME\n"),
        (("grant", "gina", "some/repo:1", "pull"), 65, "rights are for repositories, not for tags: say some/repo\n"),
        (("revoke", "gina", "foo@sha256:1"), 65, "rights are for repositories, not for tags: say library/foo\n"),
        (("grant", "gina", "some/*:1", "pull"), 65, "not for tags: say some/*\n"),
        (("grant", "gina", "Some/*:1", "pull"), 65, "'Some/*' is no repository, as NAMESPACE/NAME or NAME, nor all"),
    ],
)
def test_what_cannot_be_done_says_why(tmp_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    """An exit code of the table, a sentence, and no traceback."""
    Store.open(tmp_path / "root", create=True).close()
    ended = run_cas(*arguments, "--root", tmp_path / "root")
    assert ended.returncode == code
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_list_of_nothing_says_so(tmp_path: Path) -> None:
    """People read a sentence; a script reads an empty array."""
    Store.open(tmp_path / "root", create=True).close()
    told = run_cas("undelete", "--list", "--root", tmp_path / "root")
    assert (told.returncode, told.stdout) == (0, "nothing that was deleted can be brought back\n")
    assert run_cas("undelete", "--list", "--json", "--root", tmp_path / "root").stdout == "[]\n"


def test_a_list_of_nothing_in_a_repository_says_of_what_it_speaks(tmp_path: Path) -> None:
    """There may be something elsewhere; `foo` is `library/foo`."""
    Store.open(tmp_path / "root", create=True).close()
    for asked, meant in (("some/repo", "some/repo"), ("foo:1", "library/foo:1")):
        told = run_cas("undelete", asked, "--list", "--root", tmp_path / "root")
        assert (told.returncode, told.stdout) == (0, f"nothing that was deleted can be brought back in {meant}\n")
