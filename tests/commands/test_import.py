"""`cas import` and `cas export` as commands: what they print, how they end, what a terminal shows."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.support import images
from tests.support.images import Image
from tests.support.serving import CAS, clean_environment, run_cas, without_privileges


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """One image in a layout of its own."""
    return images.image(tmp_path / "layout", "one", layers=2)


def damaged(image: Image) -> str:
    """Damage a layer; give its digest."""
    layer = str(image.manifest()["layers"][0]["digest"])
    (image.folder / "blobs" / layer.replace(":", "/")).write_bytes(b"x")
    return layer


def test_an_import_makes_the_store_and_counts_what_came(image: Image, tmp_path: Path) -> None:
    """One object for scripts, a table for eyes, nothing on stderr."""
    command = ("import", "oci", image.folder, "--repo", "acme/app", "--root", tmp_path / "root")
    first = run_cas(*command, "--json")
    assert (first.returncode, first.stderr) == (0, "")
    size = sum(len(image.blob(digest)) for digest in image.digests() - {image.digest})
    counts = {"repositories": 1, "manifests": 1, "images": 0, "tags": 1, "blobs": 3, "bytes": size}
    assert json.loads(first.stdout) == counts | {"unchanged": 0, "skipped": 0, "left_out": []}
    again = run_cas(*command)
    assert (again.returncode, again.stderr) == (0, "")
    assert "        1  there already\n" in again.stdout
    listed = json.loads(run_cas("repo", "list", "--json", "--root", tmp_path / "root").stdout)
    assert [(each["name"], each["access"]) for each in listed] == [("acme/app", "private")]


@pytest.mark.parametrize("choice", ["public", "private"])
def test_who_may_pull_what_was_imported_can_be_said(image: Image, tmp_path: Path, choice: str) -> None:
    """Whatever the setting says."""
    where = ("--root", tmp_path / "root")
    other = {"CAS_DEFAULT_ACCESS": "private" if choice == "public" else "public"}
    ended = run_cas("import", "oci", image.folder, "--repo", "acme/app", f"--{choice}", *where, env=other)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(run_cas("repo", "list", "--json", *where).stdout)[0]["access"] == choice


def test_what_is_left_out_is_named_on_stderr_and_ends_with_1(image: Image, tmp_path: Path) -> None:
    """In the object, too."""
    layer = damaged(image)
    ended = run_cas("import", "oci", image.folder, "--repo", "acme/app", "--json", "--root", tmp_path / "root")
    assert ended.returncode == 1
    said = json.loads(ended.stdout)
    why = f"blobs/{layer.replace(':', '/')} is damaged: its bytes have another digest"
    assert said["left_out"] == [{"what": f"acme/app@{image.digest}", "why": why}]
    assert ended.stderr == f"left out: acme/app@{image.digest}: {why}\n"


def test_names_in_a_folder_give_no_commands_to_a_terminal(tmp_path: Path) -> None:
    """They are spelled out, be they bytes that are no text."""
    for name in (b"\x1b]0;owned\x07", b"new\nline", b"\xff\xfe"):
        folder = tmp_path / "storage/docker/registry/v2/repositories" / os.fsdecode(name)
        (folder / "_manifests").mkdir(parents=True)
    ended = run_cas("import", "distribution", tmp_path / "storage", "--json", "--root", tmp_path / "root")
    assert (ended.returncode, json.loads(ended.stdout)["skipped"]) == (1, 3)
    assert ended.stderr.count("\n") == 3
    assert ended.stderr.replace("\n", "").isprintable()


def test_what_may_not_be_read_is_named_and_not_taken_for_missing(tmp_path: Path) -> None:
    """The owner of the old registry's folder is often another one."""
    repository = tmp_path / "storage/docker/registry/v2/repositories/acme/app"
    (repository / "_manifests/revisions/sha256" / ("0" * 64)).mkdir(parents=True)
    (repository / "_manifests/revisions").chmod(0)
    command = ("import", "distribution", tmp_path / "storage", "--root", tmp_path / "root")
    ended = run_cas(*command, before=without_privileges())
    (repository / "_manifests/revisions").chmod(0o755)
    assert ended.returncode == 1
    assert "_manifests/revisions" in ended.stderr
    assert "Permission denied" in ended.stderr


@pytest.mark.parametrize("kind", ["distribution", "v1", "oci"])
@pytest.mark.parametrize("there", [True, False])
def test_a_folder_of_another_kind_ends_with_65(tmp_path: Path, kind: str, there: bool) -> None:
    """And is one line that names it."""
    folder = tmp_path / "folder"
    if there:
        folder.mkdir()
    repo = ("--repo", "acme/app") if kind == "oci" else ()
    ended = run_cas("import", kind, folder, *repo, "--root", tmp_path / "root")
    assert (ended.returncode, ended.stdout) == (65, "")
    assert str(folder) in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (("import", "oci", "layout"), 2, "--repo"),
        (("import", "oci", "layout", "--repo", "acme/*"), 65, "name one"),
        (("export", "oci", "acme/*", "out"), 65, "name one"),
        (("export", "oci", "acme/none", "out"), 66, "no repository acme/none"),
        (("export", "oci", "acme/app:none", "out"), 66, "no tag none"),
        (("export", "oci", "acme/app", "/proc/self/out"), 73, "cannot write"),
        (("export", "oci", "acme/app", "."), 73, "name a new folder"),
    ],
)
def test_what_cannot_be_done_says_what_can(
    image: Image, tmp_path: Path, command: tuple[str, ...], code: int, words: str
) -> None:
    """Each with its code."""
    where = ("--root", tmp_path / "root")
    run_cas("import", "oci", image.folder, "--repo", "acme/app", *where)
    ended = run_cas(*command, *where, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert words in ended.stderr
    assert not (tmp_path / "out").exists()


def test_an_export_counts_what_it_wrote(image: Image, tmp_path: Path) -> None:
    """And then finds all of it there."""
    where = ("--root", tmp_path / "root")
    run_cas("import", "oci", image.folder, "--repo", "acme/app", *where)
    said = [
        json.loads(run_cas("export", "oci", "acme/app:one", tmp_path / "out", "--json", *where).stdout)
        for _ in range(2)
    ]
    assert [(each["tags"], each["manifests"], each["blobs"], each["unchanged"]) for each in said] == [
        (1, 1, 3, 0),
        (1, 0, 0, 1),
    ]


def test_a_terminal_shows_a_bar_and_what_is_left_out(image: Image, tmp_path: Path) -> None:
    """The bar is on stderr, so that what is counted can be piped."""
    damaged(image)
    command = [
        CAS,
        "import",
        "oci",
        str(image.folder),
        "--repo",
        "acme/app",
        "--json",
        "--root",
        str(tmp_path / "root"),
    ]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, env=clean_environment(TERM="xterm")
    ) as process:
        os.close(theirs)
        shown = _all(ours)
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["skipped"] == 1
        assert process.wait(60) == 1
    assert "left out: acme/app@" in shown
    assert "1/1" in shown


def _all(fd: int) -> str:
    """Read a terminal until nobody writes to it any more."""
    shown = b""
    try:
        while block := os.read(fd, 65536):
            shown += block
    except OSError:  # how a terminal says so
        pass
    finally:
        os.close(fd)
    return shown.decode()
