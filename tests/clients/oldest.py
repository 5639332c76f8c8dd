"""Engines of 2013 and 2014 as tests drive them: a daemon in a folder of its own, and the same program as its client.

They run no containers, so what they would start those with is not there, nor any network. What an engine has of an
image is read from its own folder, past its word for it.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.clients.daemons import running
from tests.support.endpoint import Account, Endpoint
from tests.support.peers import path_of

TIMEOUT_S = 110
# Found before the machine's: 0.6 and 0.7 ask the one for its version before they start, and by the other 0.6 takes away
# the rules of whichever engine the machine runs, also where it is told to leave the firewall alone.
_PROGRAMS = {"lxc-start": '#!/bin/sh\necho "lxc version: 0.9.0"\n', "iptables": "#!/bin/sh\n"}
# 0.6 cannot be without a bridge; it takes any device that has an address for one.
_FLAGS = {
    "0.5.3": ["-b", "none"],
    "0.6.7": ["-b", "lo", "-iptables=false"],
}
_LATER_FLAGS = ["-b", "none", "--iptables=false", "-s", "vfs"]


@dataclass(frozen=True, slots=True)
class OldEngine:
    """One engine, its daemon running; `home` is where its client keeps accounts, and may be another's."""

    version: str
    folder: Path
    at: Endpoint

    def run(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run the client; it must succeed. Give what it said."""
        ended = self.try_run(*arguments, stdin=stdin)
        assert ended.returncode == 0, f"{ended.args}\n{ended.stdout.decode(errors='replace')}\n{self.log()[-2000:]}"
        return ended.stdout.decode()

    def try_run(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [path_of(f"docker-{self.version}"), "-H", f"unix://{self.folder / 'socket'}", *arguments],
            env=environment(self.folder, self.at),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            check=False,
        )

    def full(self, reference: str) -> str:
        return f"{self.at.address}/{reference}"

    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    @property
    def _accounts(self) -> Path:
        return self.folder / ".dockercfg"

    def sign_up(self, account: Account) -> None:
        """Make an account at the registry: an engine does so by logging in with a name that is not taken."""
        assert "Account created" in self._log_in(account)

    def log_in(self, account: Account) -> bool:
        """Say whether the registry let the client in, which then remembers the account."""
        return "Login Succeeded" in self._log_in(account)

    def _log_in(self, account: Account) -> str:
        server = [] if self.version == "0.5.3" else [f"{self.at.url}/v1/"]  # that knows no other than its index
        self._accounts.unlink(missing_ok=True)  # of a name that it remembers it takes no other password
        flags = ["-u", account.name, "-p", account.password, "-e", f"{account.name}@example.com"]
        return self.try_run("login", *flags, *server).stdout.decode()

    def push(self, repository: str) -> str:
        """Push all tags. 0.5 wants an account before, whether the registry asks for one or not."""
        if not self._accounts.exists():
            known = {_index(self.at): {"auth": Account("nobody", "at all").basic, "email": "nobody@example.com"}}
            self._accounts.write_text(json.dumps(known), encoding="utf-8")
        return self.run("push", self.full(repository))

    def pull(self, repository: str) -> str:
        """Pull all tags."""
        return self.run("pull", self.full(repository))

    def make(self, repository: str, files: dict[str, bytes]) -> str:
        """Make an image of one layer, named for the registry; give its id."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        self.run("import", "-", self.full(repository), stdin=buffer.getvalue())
        return self.images(repository)["latest"]

    def images(self, repository: str) -> dict[str, str]:
        """Give the tags it has of a repository, and the ids of their images."""
        found = next((self.folder / "data").glob("repositories*"), None)
        known = json.loads(found.read_text(encoding="utf-8")) if found else {}
        tags: dict[str, str] = known.get("Repositories", {}).get(self.full(repository), {})
        return tags

    def files(self, image_id: str) -> dict[str, bytes]:
        """Give the files of an image, with those below it."""
        return {
            str(path.relative_to(root)): path.read_bytes()
            for root in self._layers(image_id)
            for path in root.rglob("*")
            if path.is_file() and not path.name.startswith(".wh.")
        }

    def _layers(self, image_id: str) -> Iterator[Path]:
        """Yield the folders of an image, base first: 0.5 and 0.6 keep one a layer, later ones all files at each."""
        whole = self.folder / "data" / "vfs" / "dir" / image_id
        if whole.exists():
            yield whole
            return
        described = self.folder / "data" / "graph" / image_id
        parent = json.loads((described / "json").read_text(encoding="utf-8")).get("parent")
        if parent:
            yield from self._layers(parent)
        yield described / "layer"


def environment(folder: Path, at: Endpoint) -> dict[str, str]:
    """Give what an engine and its client run in: one thread at a time, as in their day; 0.9 may not start with more."""
    trust = {} if at.ca is None else {"SSL_CERT_FILE": str(at.ca)}
    path = os.pathsep.join([str(folder / "bin"), os.environ.get("PATH", os.defpath)])
    threads = {"GOMAXPROCS": "1", "GODEBUG": "asyncpreemptoff=1"}
    return {**os.environ, **threads, "PATH": path, "HOME": str(folder), "DOCKER_INDEX_URL": _index(at), **trust}


def _index(at: Endpoint) -> str:
    """Give the registry's address under another name: an engine leaves the name of its index out of those of images."""
    return f"{at.url.replace('127.0.0.1', 'localhost')}/v1/"


@contextmanager
def old_engine(version: str, folder: Path, at: Endpoint) -> Iterator[OldEngine]:
    """Run an engine that takes a registry for the public index too, since that is gone."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    for name, script in _PROGRAMS.items():
        program = folder / "bin" / name
        program.write_text(script, encoding="utf-8")
        program.chmod(0o755)
    engine = OldEngine(version, folder, at)
    where = ["-p", str(folder / "pid"), "-g", str(folder / "data"), "-H", f"unix://{folder / 'socket'}"]
    # Later ones mount their folder onto itself: in a space of mounts that ends with them.
    command = ["unshare", "--mount", path_of(f"docker-{version}"), "-d", *_FLAGS.get(version, _LATER_FLAGS), *where]
    with running(command, folder / "log", environment(folder, at), lambda: engine.try_run("version").returncode == 0):
        yield engine
