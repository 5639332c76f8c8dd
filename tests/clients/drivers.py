"""Each client of the matrix as four verbs. Knows command lines, and nothing of what the registry should answer.

A reference is `repository:tag`. `push` takes an image's layout; `pull` says what arrived: the manifest's digest where
the client keeps manifests (`exact`), the image's identity (its configuration's digest) where it unpacks images.
"""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, final

from tests.support.endpoint import Account, Endpoint
from tests.support.images import Image, docker_archive
from tests.support.peers import path_of

TIMEOUT_S = 110


class Client(ABC):
    """One client, speaking to one registry, with a home folder of its own."""

    name: ClassVar[str]
    exact: ClassVar[bool] = True
    searches_as_itself: ClassVar[bool] = False

    def __init__(self, endpoint: Endpoint, home: Path, daemon: str = "") -> None:
        self.at, self.home, self.daemon = endpoint, home, daemon
        docker = home / "docker"
        docker.mkdir(parents=True)
        (home / "registries.conf").write_text("", encoding="utf-8")
        account = endpoint.account
        auths = {} if account is None else {endpoint.address: {"auth": account.basic}}
        (docker / "config.json").write_text(json.dumps({"auths": auths}), encoding="utf-8")
        self.certificates = home / "certificates"
        self.certificates.mkdir()
        if endpoint.ca is not None:
            (self.certificates / "ca.crt").write_bytes(endpoint.ca.read_bytes())

    @abstractmethod
    def push(self, image: Image, reference: str) -> None: ...

    @abstractmethod
    def pull(self, reference: str) -> str: ...

    def environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "HOME": str(self.home),
            "DOCKER_CONFIG": str(self.home / "docker"),
            "REGISTRY_AUTH_FILE": str(self.home / "docker" / "config.json"),
            "CONTAINERS_REGISTRIES_CONF": str(self.home / "registries.conf"),
        }

    def run(self, *arguments: str | Path, stdin: str = "", program: str | None = None) -> str:
        """Run the client; it must succeed. Give its stdout."""
        ended = self.try_run(*arguments, stdin=stdin, program=program)
        assert ended.returncode == 0, f"{ended.args}\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    def try_run(
        self, *arguments: str | Path, stdin: str = "", program: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [path_of(program or self.name), *map(str, arguments)],
            env=self.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def full(self, reference: str) -> str:
        return f"{self.at.address}/{reference}"

    def log_in(self, account: Account) -> bool:
        """Say whether the client was let in; it remembers the account then."""
        flags = ["--username", account.name, "--password-stdin", *self.transport()]
        return self.try_run("login", *flags, self.at.address, stdin=account.password).returncode == 0

    def transport(self) -> list[str]:
        """Flags that make the client speak to this registry as it is."""
        return []


class _Trusting(Client):
    """Trusts whom a variable names: for programs of Go that have no flag for it, or not for all they do."""

    def environment(self) -> Mapping[str, str]:
        trust = {} if self.at.ca is None else {"SSL_CERT_FILE": str(self.at.ca)}
        return {**super().environment(), **trust}


class _Containers(Client):
    """skopeo, podman and buildah read the same configuration and share flags."""

    def transport(self) -> list[str]:
        return ["--tls-verify=false"] if self.at.ca is None else [f"--cert-dir={self.certificates}"]


@final
class Skopeo(_Containers):
    """It copies between a layout and the registry, and keeps nothing."""

    name = "skopeo"

    def _flags(self, side: str) -> list[str]:
        return [flag.replace("--", f"--{side}-", 1) for flag in self.transport()]

    def push(self, image: Image, reference: str) -> None:
        source, target = f"oci:{image.folder}:{image.tag}", f"docker://{self.full(reference)}"
        self.run("copy", "--all", "--preserve-digests", *self._flags("dest"), source, target)

    def pull(self, reference: str) -> str:
        return _top(self.fetch(reference, self.home / "pulled"))

    def fetch(self, reference: str, folder: Path) -> Path:
        """Copy into a layout."""
        flags = ["--all", "--preserve-digests", *self._flags("src")]
        self.run("copy", *flags, f"docker://{self.full(reference)}", f"oci:{folder}:pulled")
        return folder

    def tags(self, repository: str) -> set[str]:
        told = self.run("list-tags", *self.transport(), f"docker://{self.full(repository)}")
        return set(json.loads(told)["Tags"])

    def delete(self, reference: str) -> None:
        self.run("delete", *self.transport(), f"docker://{self.full(reference)}")


class _Storing(_Containers):
    """podman and buildah keep images unpacked in a storage of their own."""

    exact = False

    def storage(self) -> list[str]:
        return ["--root", str(self.home / "root"), "--runroot", str(self.home / "run"), "--storage-driver", "vfs"]

    def push(self, image: Image, reference: str) -> None:
        identity = self.run(*self.storage(), "pull", "-q", f"oci:{image.folder}:{image.tag}").strip()
        self.run(*self.storage(), "push", "-q", *self.transport(), identity, f"docker://{self.full(reference)}")

    def pull(self, reference: str) -> str:
        return "sha256:" + self.run(*self.storage(), "pull", "-q", *self.transport(), self.full(reference)).strip()


@final
class Podman(_Trusting, _Storing):
    """The only one beside the engine that searches; it does that as nobody, even when it has an account.

    Without a term it lists the catalogue, and that as its account. To search it has no flag that names a certificate.
    """

    name = "podman"

    def storage(self) -> list[str]:
        return [*super().storage(), "--cgroup-manager=cgroupfs", "--events-backend=none"]

    def _search(self, *arguments: str) -> list[str]:
        flags = ["--tls-verify=false"] if self.at.ca is None else []
        return self.run(*self.storage(), "search", *flags, *arguments).splitlines()

    def tags(self, repository: str) -> set[str]:
        rows = self._search("--list-tags", self.full(repository))[1:]
        return {row.split()[1] for row in rows}

    def search(self, term: str) -> set[str]:
        found = self._search("--limit=1000", "--format={{.Name}}", self.full(term))
        return {name.removeprefix(f"{self.at.address}/") for name in found}


@final
class Buildah(_Storing):
    """Podman's sister, with a storage of its own here."""

    name = "buildah"


@final
class Ctr(Client):
    """containerd's own client; its daemon is named by a socket."""

    name = "ctr"

    def _images(self, *arguments: str | Path) -> str:
        return self.run("--address", self.daemon, "images", *arguments)

    def transport(self) -> list[str]:
        """Of a registry on loopback it expects plain http, whatever flags say; a folder of hosts may say otherwise."""
        flags = ["--plain-http"] if self.at.ca is None else ["--hosts-dir", str(self._hosts(self.at.ca))]
        account = self.at.account
        return flags if account is None else [*flags, "--user", f"{account.name}:{account.password}"]

    def _hosts(self, ca: Path) -> Path:
        folder = self.home / "hosts" / self.at.address
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hosts.toml").write_text(f'[host."{self.at.url}"]\nca = "{ca}"\n', encoding="utf-8")
        return folder.parent

    def push(self, image: Image, reference: str) -> None:
        archive = self.home / "image.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(image.folder, ".")
        repository, _, tag = reference.rpartition(":")
        assert tag == image.tag, "containerd names what it imports by the layout's own tag"
        self._images("import", "--no-unpack", "--base-name", self.full(repository), archive)
        self._images("push", *self.transport(), self.full(reference))

    def pull(self, reference: str) -> str:
        self._images("pull", "--snapshotter", "native", *self.transport(), self.full(reference))
        rows = [line.split() for line in self._images("ls", f"name=={self.full(reference)}").splitlines()[1:]]
        return rows[0][2]


@final
class Docker(Client):
    """The engine does the work; it takes any certificate of a registry on loopback."""

    name = "docker"
    exact = False
    searches_as_itself = True

    def environment(self) -> Mapping[str, str]:
        return {**super().environment(), "DOCKER_HOST": self.daemon}

    def push(self, image: Image, reference: str) -> None:
        archive = self.home / "image.tar"
        docker_archive(image, self.full(reference), archive)
        self.run("load", "--quiet", "--input", archive)
        self.run("push", "--quiet", self.full(reference))

    def pull(self, reference: str) -> str:
        self.run("pull", "--quiet", self.full(reference))
        return self.run("image", "inspect", "--format={{.Id}}", self.full(reference)).strip()

    def search(self, term: str) -> set[str]:
        return set(self.run("search", "--format={{.Name}}", self.full(term)).splitlines())


@final
class Crane(_Trusting):
    """It takes loopback for plain http by itself, unless the other side speaks TLS."""

    name = "crane"

    def push(self, image: Image, reference: str) -> None:
        self.run("push", image.folder, self.full(reference))

    def pull(self, reference: str) -> str:
        self.run("pull", "--format=oci", self.full(reference), self.home / "pulled")
        return _top(self.home / "pulled")

    def tags(self, repository: str) -> set[str]:
        return set(self.run("ls", self.full(repository)).split())

    def delete(self, reference: str) -> None:
        digest = self.run("digest", self.full(reference)).strip()
        self.run("delete", self.full(f"{reference.rpartition(':')[0]}@{digest}"))

    def catalogue(self) -> set[str]:
        return set(self.run("catalog", self.at.address).split())

    def copy(self, source: str, target: str) -> str:
        """Copy within the registry; give what the client says it did."""
        ended = self.try_run("copy", self.full(source), self.full(target))
        assert ended.returncode == 0, ended.stderr
        return ended.stderr

    def log_in(self, account: Account) -> bool:
        """Crane asks nobody while it logs in, so being let in is being able to list."""
        flags = ["--username", account.name, "--password-stdin"]
        self.run("auth", "login", *flags, self.at.address, stdin=account.password)
        return self.try_run("catalog", self.at.address).returncode == 0


@final
class Oras(Client):
    """Artifacts beside images."""

    name = "oras"

    def transport(self) -> list[str]:
        return ["--plain-http"] if self.at.ca is None else ["--ca-file", str(self.at.ca)]

    def _side(self, side: str) -> list[str]:
        return [flag.replace("--", f"--{side}-", 1) for flag in self.transport()]

    def push(self, image: Image, reference: str) -> None:
        source = f"{image.folder}:{image.tag}"
        self.run("cp", "--from-oci-layout", source, *self._side("to"), self.full(reference))

    def pull(self, reference: str) -> str:
        target = f"{self.home / 'pulled'}:pulled"
        self.run("cp", *self._side("from"), self.full(reference), "--to-oci-layout", target)
        return _top(self.home / "pulled")

    def tags(self, repository: str) -> set[str]:
        return set(self.run("repo", "tags", *self.transport(), self.full(repository)).split())

    def delete(self, reference: str) -> None:
        self.run("manifest", "delete", "--force", *self.transport(), self.full(reference))

    def attach(self, reference: str, file: Path, artifact_type: str) -> None:
        flags = ["--artifact-type", artifact_type, "--disable-path-validation", *self.transport()]
        self.run("attach", *flags, self.full(reference), f"{file}:text/plain")

    def discover(self, reference: str, artifact_type: str) -> list[str]:
        """Give the digests of what is attached."""
        flags = ["--artifact-type", artifact_type, "--format=json", *self.transport()]
        return [
            str(each["digest"]) for each in json.loads(self.run("discover", *flags, self.full(reference)))["manifests"]
        ]


@final
class Regctl(_Trusting):
    """It deletes tags by their names, where others resolve them to a digest and delete that."""

    name = "regctl"

    def transport(self) -> list[str]:
        return ["--host", f"reg={self.at.address},tls=disabled"] if self.at.ca is None else []

    def push(self, image: Image, reference: str) -> None:
        source = f"ocidir://{image.folder}:{image.tag}"
        self.run("image", "copy", *self.transport(), source, self.full(reference))

    def pull(self, reference: str) -> str:
        target = f"ocidir://{self.home / 'pulled'}:pulled"
        self.run("image", "copy", *self.transport(), self.full(reference), target)
        return _top(self.home / "pulled")

    def tags(self, repository: str) -> set[str]:
        return set(self.run("tag", "ls", *self.transport(), self.full(repository)).split())

    def delete(self, reference: str) -> None:
        self.run("manifest", "delete", "--force-tag-dereference", *self.transport(), self.full(reference))

    def delete_tag(self, reference: str) -> None:
        self.run("tag", "rm", *self.transport(), self.full(reference))

    def log_in(self, account: Account) -> bool:
        """It remembers a wrong password, too, and says that it is one."""
        flags = ["--user", account.name, "--pass-stdin", *self.transport()]
        return self.try_run("registry", "login", *flags, self.at.address, stdin=account.password).returncode == 0


def _top(layout: Path) -> str:
    """Give the digest of what a layout was filled with; oras lists the members of an index beside it, unnamed."""
    listed = json.loads((layout / "index.json").read_text(encoding="utf-8"))["manifests"]
    (top,) = listed if len(listed) == 1 else [each for each in listed if "annotations" in each]
    return str(top["digest"])


CLIENTS: Mapping[str, type[Client]] = {
    each.name: each for each in (Skopeo, Podman, Buildah, Ctr, Docker, Crane, Oras, Regctl)
}
