"""Commands for accounts, rights, repositories and keys: beside a live server, which sees each change at once."""

from __future__ import annotations

import base64
import json
import os
import pty
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import bcrypt
import pytest

from api.content import repositories
from api.content.repositories import Access
from api.content.repository import Repository
from cas import Store
from tests.support.serving import CAS, Server, StartServer, clean_environment, run_cas

Ended = subprocess.CompletedProcess[str]
Cas = Callable[..., Ended]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty store."""
    Store.open(tmp_path / "root", create=True).close()
    return tmp_path / "root"


@pytest.fixture
def cas(root: Path) -> Cas:
    """Run a command on that store."""

    def run(*arguments: str, stdin: str = "") -> Ended:
        return run_cas(*arguments, "--root", root, stdin=stdin)

    return run


def add(cas: Cas, name: str, *flags: str) -> None:
    ended = cas("user", "add", name, "--password-stdin", *flags, stdin="secret\n")
    assert ended.returncode == 0, ended.stderr


def make(root: Path, *names: str, access: Access = Access.PRIVATE) -> None:
    with Store.open(root) as store:
        for name in names:
            made = Repository.of(name)
            store.change(lambda inside, made=made: repositories.ensure(inside, made, 0, access))  # type: ignore[misc]


def login(server: Server, user: str, password: str) -> int:
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    return server.get("/v1/users/", {"Authorization": f"Basic {credentials}"})[0]


def search(server: Server, user: str) -> list[str]:
    credentials = base64.b64encode(f"{user}:secret".encode()).decode()
    status, body = server.get("/v1/search?q=", {"Authorization": f"Basic {credentials}"})
    assert status == 200
    return [result["name"] for result in json.loads(body)["results"]]


class TestBesideALiveServer:
    """No restart, no signal, no waiting."""

    def test_an_account_logs_in_once_it_is_made_and_not_once_it_is_removed(
        self, server: StartServer, root: Path, cas: Cas
    ) -> None:
        """Nor with the password it had before."""
        running = server(root, workers=2, flags=["--mode", "auth"])
        assert login(running, "bob", "secret") == 401
        add(cas, "bob")
        assert login(running, "bob", "secret") == 200
        assert cas("user", "passwd", "bob", "--password-stdin", stdin="another\n").stdout == (
            "changed the password of bob\n"
        )
        assert (login(running, "bob", "secret"), login(running, "bob", "another")) == (401, 200)
        assert cas("user", "rm", "bob").stdout == "removed bob\n"
        assert login(running, "bob", "another") == 401

    def test_grants_and_repositories_change_what_is_seen(self, server: StartServer, root: Path, cas: Cas) -> None:
        """Given, taken back, public, private."""
        make(root, "eve/app", "busybox")
        add(cas, "bob")
        running = server(root, workers=2, flags=["--mode", "auth"])
        assert search(running, "bob") == []
        assert cas("grant", "bob", "eve/*", "pull").stdout == "bob may pull eve/*\n"
        assert search(running, "bob") == ["eve/app"]
        assert cas("revoke", "bob", "eve/app").stdout == "bob has no right of its own to eve/app\n"
        assert search(running, "bob") == []
        assert cas("repo", "set", "busybox", "--public").stdout == "library/busybox is public\n"
        assert search(running, "bob") == ["library/busybox"]
        assert cas("repo", "set", "library/busybox", "--private").stdout == "library/busybox is private\n"
        assert search(running, "bob") == []


class TestPasswords:
    """From a terminal or stdin, never from the command line."""

    def test_a_terminal_is_asked_twice_and_shows_nothing(self, root: Path, cas: Cas) -> None:
        """What differs is asked for again."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [CAS, "user", "add", "bob", "--root", str(root)],
            env=clean_environment(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        shown = b""
        for typed in (b"one-secret\n", b"another\n", b"one-secret\n", b"one-secret\n"):
            while not shown.endswith((b"assword: ", b"confirmation: ")):
                shown += os.read(ours, 1024)
            shown += b"\n"
            os.write(ours, typed)
        while b"added bob" not in shown:
            shown += os.read(ours, 1024)
        assert process.wait(60) == 0
        os.close(ours)
        assert b"secret" not in shown

    def test_without_a_terminal_the_flag_is_named(self, cas: Cas) -> None:
        """Nothing is guessed, nothing is made."""
        ended = cas("user", "add", "bob", stdin="secret\n")
        assert ended.returncode == 2
        assert "--password-stdin" in ended.stderr
        assert cas("user", "list").stdout == ""

    @pytest.mark.parametrize("stdin", ["", "\n", "x\n", "x" * 1025, "x" * (2 << 20)])
    def test_a_password_that_cannot_be_is_refused(self, cas: Cas, stdin: str) -> None:
        """Too short, too long, much too long; with the reason in one line."""
        ended = cas("user", "add", "bob", "--password-stdin", stdin=stdin)
        assert ended.returncode == 65
        assert ended.stderr.startswith("cas: a password has at ")
        assert len(ended.stderr.splitlines()) == 1


class TestAccounts:
    """What there is and what is not."""

    def test_a_list_names_all_accounts_wherever_they_are_kept(self, tmp_path: Path, cas: Cas) -> None:
        """For people and for scripts; no hash in either."""
        add(cas, "bob", "--email", "bob@here")
        add(cas, "ann", "--admin")
        file = tmp_path / "htpasswd"
        file.write_text("zoe:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode() + "\n")
        rows = json.loads(cas("user", "list", "--json", "--htpasswd", str(file)).stdout)
        assert [(row["name"], row["admin"], row["email"], row["kept"]) for row in rows] == [
            ("ann", True, None, "store"),
            ("bob", False, "bob@here", "store"),
            ("zoe", False, None, "htpasswd"),
        ]
        told = cas("user", "list", "--htpasswd", str(file)).stdout
        assert [line.split()[0] for line in told.splitlines()] == ["ann", "bob", "zoe"]
        assert "$" not in told
        assert cas("grant", "zoe", "acme/app", "pull", "--htpasswd", str(file)).returncode == 0
        for command, instead in ((("rm",), "-D"), (("passwd", "--password-stdin"), "-B")):
            ended = cas("user", *command, "zoe", "--htpasswd", str(file), stdin="another\n")
            assert (ended.returncode, ended.stdout) == (77, "")
            assert f"`htpasswd {instead} {file} zoe`" in ended.stderr

    def test_a_password_file_that_cannot_be_used_is_named_before_anything_is_served(
        self, tmp_path: Path, root: Path
    ) -> None:
        """One line, with the place, and exit code 2."""
        file = tmp_path / "htpasswd"
        file.write_text("ann:plain\n")
        flags = ["--mode", "auth", "--htpasswd", str(file), "--bind", "127.0.0.1:0"]
        ended = run_cas("serve", "--root", root, *flags)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.startswith(f"cas: {file}:1: no bcrypt hash")
        assert len(ended.stderr.splitlines()) == 1

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("repo", "set", "acme/*", "--public"), "acme/* stands for many repositories: name one"),
            (("user", "passwd", "eve", "--password-stdin"), "there is no account eve; `cas user list` shows all"),
            (("user", "rm", "eve"), "there is no account eve; `cas user list` shows all"),
            (("revoke", "eve", "acme/app"), "there is no account eve; `cas user list` shows all"),
            (("user", "list", "--htpasswd", "nowhere"), "No such file or directory; `htpasswd -c -B FILE NAME` makes"),
        ],
    )
    def test_a_slip_is_answered_with_what_to_do(self, cas: Cas, arguments: tuple[str, ...], said: str) -> None:
        """One line that names the way out."""
        ended = cas(*arguments)
        assert ended.returncode != 0
        assert said in ended.stderr
        assert len(ended.stderr.splitlines()) == 1

    def test_a_name_that_is_taken_is_told_before_a_password_is_asked_for(self, cas: Cas) -> None:
        """With the commands that change the account which is there."""
        add(cas, "bob")
        assert "there is an account bob already; `cas user passwd bob` sets" in cas("user", "add", "bob").stderr

    def test_a_grant_to_what_is_an_account_hints_at_its_repositories(self, cas: Cas) -> None:
        """It is given as it was said, and whoever meant another thing learns how to say that."""
        add(cas, "bob")
        add(cas, "ann")
        ended = cas("grant", "bob", "ann", "pull")
        assert (ended.returncode, ended.stdout) == (0, "bob may pull library/ann\n")
        assert ended.stderr == "that is one repository; for those of the account ann say 'ann/*'\n"
        assert cas("grant", "bob", "ann/*", "pull").stderr == ""

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (("user", "add", "bob", "--password-stdin"), 73),
            (("user", "add", "B\u00f6b", "--password-stdin"), 65),
            (("user", "add", "library", "--password-stdin"), 65),
            (("user", "add", "eve", "--password-stdin", "--email", "nowhere"), 65),
            (("user", "passwd", "eve", "--password-stdin"), 67),
            (("user", "rm", "eve"), 67),
            (("user", "show", "eve"), 67),
            (("user", "set", "eve", "--admin"), 67),
            (("user", "set", "bob"), 2),
            (("grant", "eve", "acme/app", "pull"), 67),
            (("revoke", "eve", "acme/app"), 67),
            (("grant", "bob", "Acme/app", "pull"), 65),
            (("grant", "bob", "acme/app", "pull,fly"), 2),
            (("grant", "bob", "acme/app", ""), 2),
            (("grant", "bob", "acme/app"), 2),
            (("repo", "set", "acme/app", "--public"), 66),
            (("repo", "set", "acme/*", "--public"), 65),
            (("repo", "set", "acme/app"), 2),
            (("key", "rotate", "--keep", "-1"), 2),
        ],
    )
    def test_what_cannot_be_done_says_why(self, cas: Cas, arguments: tuple[str, ...], code: int) -> None:
        """An exit code of the table, a sentence, and no traceback."""
        add(cas, "bob")
        ended = cas(*arguments, stdin="secret\n")
        assert (ended.returncode, ended.stdout) == (code, "")
        assert "Traceback" not in ended.stderr
        if arguments[0] == "grant" and code == 67:
            assert "cas user add eve" in ended.stderr

    @pytest.mark.parametrize(
        "arguments",
        [
            ("user", "list"),
            ("user", "passwd", "bob", "--password-stdin"),
            ("user", "show", "bob"),
            ("user", "set", "bob", "--admin"),
            ("grant", "bob", "acme/app", "pull"),
            ("revoke", "bob", "acme/app"),
            ("repo", "list"),
            ("repo", "set", "acme/app", "--public"),
            ("key", "rotate"),
        ],
    )
    def test_no_other_command_makes_a_store_where_there_is_none(
        self, tmp_path: Path, arguments: tuple[str, ...]
    ) -> None:
        """A mistyped root stays mistyped."""
        ended = run_cas(*arguments, "--root", tmp_path / "nowhere")
        assert ended.returncode == 66
        assert not (tmp_path / "nowhere").exists()

    def test_the_first_account_may_come_before_the_first_start(self, server: StartServer, tmp_path: Path) -> None:
        """A store is made for it and said so; a folder that is something else stays what it is."""
        made = subprocess.run(
            [CAS, "user", "add", "bob", "--password-stdin", "--root", tmp_path / "new"],
            env=clean_environment(),
            input="secret",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (made.returncode, made.stdout) == (0, "added bob\n")
        assert f"made a new store at {tmp_path / 'new'}\naccounts are asked for" in made.stderr
        serving = server(tmp_path / "new", flags=["--mode", "auth"])
        credentials = base64.b64encode(b"bob:secret").decode()
        assert serving.get("/v1/users/", {"Authorization": f"Basic {credentials}"})[0] == 200
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "file").touch()
        assert run_cas("user", "add", "bob", "--root", tmp_path / "other").returncode != 0
        assert [path.name for path in (tmp_path / "other").iterdir()] == ["file"]


class TestShow:
    """What one account may do, and how it came to be an admin."""

    def test_every_grant_is_shown_beside_the_own_name_space(self, tmp_path: Path, cas: Cas) -> None:
        """For people and for scripts, also of the password file; so is a grant that takes something away."""
        add(cas, "ci", "--email", "ci@here")
        file = tmp_path / "htpasswd"
        file.write_text("zoe:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode() + "\n")
        cas("grant", "ci", "acme/*", "pull,push")
        cas("revoke", "ci", "acme/secret")
        assert cas("grant", "zoe", "*", "delete", "--htpasswd", str(file)).returncode == 0
        first, *rows = cas("user", "show", "ci").stdout.splitlines()
        assert first.split() == ["ci", "store", f"{datetime.now(UTC):%Y-%m-%d}", "ci@here"]
        assert [row.split(maxsplit=1) for row in rows] == [
            ["acme/*", "pull, push"],
            ["acme/secret", "nothing"],
            ["ci/*", "pull, push, delete"],
        ]
        told = json.loads(cas("user", "show", "ci", "--json").stdout)
        assert (told["name"], told["admin"], told["kept"]) == ("ci", False, "store")
        assert told["rights"] == {"acme/*": ["pull", "push"], "acme/secret": [], "ci/*": ["pull", "push", "delete"]}
        listed = json.loads(cas("user", "list", "--json", "--htpasswd", str(file)).stdout)
        assert listed[0] == told
        assert listed[1]["rights"] == {"*": ["delete"], "zoe/*": ["pull", "push", "delete"]}
        assert json.loads(cas("user", "show", "zoe", "--json", "--htpasswd", str(file)).stdout) == listed[1]

    def test_a_revoked_name_space_is_shown_as_such(self, cas: Cas) -> None:
        """A grant speaks louder than the name."""
        add(cas, "ci")
        cas("revoke", "ci", "ci/*")
        assert cas("user", "show", "ci").stdout.splitlines()[1].split() == ["ci/*", "nothing"]

    def test_an_account_becomes_an_admin_and_is_none_again(self, server: StartServer, root: Path, cas: Cas) -> None:
        """Beside a live server, from the next request on, with the password it has."""
        make(root, "eve/app")
        add(cas, "ann", "--admin")
        add(cas, "bob")
        running = server(root, workers=2, flags=["--mode", "auth"])
        assert search(running, "bob") == []
        ended = cas("user", "set", "bob", "--admin")
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "bob is an admin\n", "")
        assert search(running, "bob") == ["eve/app"]
        assert "may do everything" in cas("user", "show", "bob").stdout
        ended = cas("user", "set", "bob", "--no-admin")
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "bob is no admin\n", "")
        assert search(running, "bob") == []

    @pytest.mark.parametrize("command", [("rm", "ann"), ("set", "ann", "--no-admin")])
    def test_who_takes_away_the_last_admin_is_told_so(self, cas: Cas, command: tuple[str, ...]) -> None:
        """It is done as it was said; an operator can make another at any time. Of others nothing is said."""
        add(cas, "ann", "--admin")
        add(cas, "bob")
        assert cas("user", "set", "bob", "--no-admin").stderr == ""
        ended = cas("user", *command)
        assert ended.returncode == 0
        assert ended.stderr == "there is no admin now; make one: cas user set NAME --admin\n"
        assert cas("user", "rm", "bob").stderr == ""

    def test_an_account_of_the_password_file_is_never_an_admin(self, tmp_path: Path, cas: Cas) -> None:
        """The refusal names what comes near."""
        file = tmp_path / "htpasswd"
        file.write_text("zoe:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode() + "\n")
        ended = cas("user", "set", "zoe", "--admin", "--htpasswd", str(file))
        assert (ended.returncode, ended.stdout) == (77, "")
        assert "cas grant zoe '*' pull,push,delete" in ended.stderr


class TestRights:
    """What a revoke leaves, it says."""

    def test_a_revoke_takes_back_the_own_name_space_too(self, server: StartServer, root: Path, cas: Cas) -> None:
        """And a grant gives it again."""
        make(root, "bob/app")
        add(cas, "bob")
        running = server(root, flags=["--mode", "auth"])
        assert search(running, "bob") == ["bob/app"]
        assert cas("revoke", "bob", "*").returncode == 0
        assert search(running, "bob") == []
        assert cas("grant", "bob", "bob/*", "pull,push,delete").stdout == "bob may pull, push, delete bob/*\n"
        assert search(running, "bob") == ["bob/app"]

    def test_a_revoke_says_what_others_may_still_do(self, root: Path, cas: Cas) -> None:
        """Everybody pulls what is public; an admin does everything, which is a finding."""
        make(root, "busybox", access=Access.PUBLIC)
        add(cas, "bob")
        add(cas, "ann", "--admin")
        ended = cas("revoke", "bob", "busybox")
        assert ended.returncode == 0
        assert "cas repo set library/busybox --private" in ended.stdout
        ended = cas("revoke", "ann", "acme/app")
        assert ended.returncode == 1
        assert "ann is an admin" in ended.stdout

    def test_an_operator_may_give_a_name_space_to_a_new_account(self, root: Path, cas: Cas) -> None:
        """And is told so; a removed account leaves its repositories."""
        make(root, "bob/app")
        assert cas("user", "add", "bob", "--password-stdin", stdin="secret").stdout == (
            "added bob, who has the repositories in bob/\n"
        )
        assert "the repositories in bob/ stay" in cas("user", "rm", "bob").stdout

    def test_repositories_are_listed_by_name(self, root: Path, cas: Cas) -> None:
        """More than fit into one read."""
        names = [f"acme/app-{n:04}" for n in range(1100)]
        with Store.open(root) as store:
            store.change(
                lambda inside: [
                    repositories.ensure(inside, Repository.of(name), 86_400, Access.PRIVATE) for name in names
                ]
            )
        assert [row["name"] for row in json.loads(cas("repo", "list", "--json").stdout)] == names
        assert cas("repo", "list").stdout.splitlines()[0] == "private  1970-01-02  acme/app-0000"
