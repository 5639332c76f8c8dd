"""One round of the campaign against real servers: clients on sockets, and everything that can befall the machine room.

`kill -9` of a worker, of all of them, of the supervisor, of everything; collections, checks and backups beside, two
at once and killed on their way; a worker that is stopped across a collection; a clock that jumps; a disk that is full
for a while. Then the store is judged: what was acknowledged is there byte for byte, what was not is not.
"""

# ruff: noqa: SLF001 - what nobody should have left behind is looked for inside

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from api import maintenance
from api.content import removal, repositories
from api.content.repositories import Access
from api.content.repository import Repository
from api.content.settings import KeepingSettings
from cas import Depth, EngineSettings, Store, rebuild_index, restore
from cas.commit import JOURNAL_SEQ
from cas.records import Role
from cas.scan import scan_pack
from tests.crash.damage import spoil
from tests.crash.load import Arena, Client
from tests.crash.tally import DAMAGE, KILL, WORK, Tally
from tests.support.beside import Beside
from tests.support.clock import JumpingClock
from tests.support.dump import differences, dump, leftovers, pack_sizes
from tests.support.engine import KIB, packs_of
from tests.support.serving import Server, StartServer, starting

CLIENTS = 3
EVENTS = 12
_ANSWERS = 6  # that clients get between two events
_WITHIN_S = 60.0
_DAY_S = 86400.0
_NOT_ALONE = (75, 8)  # what a command ends with that somebody else keeps from its work; a check has a code of its own
_TRACE_BYTES = 80  # the journal keeps of each change that there was one
_PASSWORD = "a secret of the campaign"
_ENGINE = EngineSettings(run_bytes=96 * KIB, segment_chunks=64, pack_bytes=4096 * KIB, write_wait_s=10.0)
_FLAGS = ("--run-bytes", "98304", "--segment-chunks", "64", "--pack-bytes", "4194304", "--write-wait-s", "10")


class ServerRound:
    """A store, its servers, its clients, and what was promised to them."""

    def __init__(
        self, folder: Path, seed: int, tally: Tally, *, small_disk: bool = False, events: int = EVENTS
    ) -> None:
        """Prepare.

        Args:
            folder: empty, the round's own.
            seed: decides everything but the moment.
            tally: counts.
            small_disk: put the store on a small filesystem, and fill it. Needs to be allowed to mount.
            events: how much befalls it.
        """
        self._folder, self._root, self._copy = folder, folder / "root", folder / "copy"
        self._dice, self._tally, self._small, self._count = random.Random(seed), tally, small_disk, events
        self._auth = seed % 3 == 0
        self._numbers = itertools.count()
        self._past: list[str] = []
        self._clock = JumpingClock(folder / "clock")
        self._arena = Arena(tally)
        password = _PASSWORD if self._auth else ""
        self._clients = [Client(n, seed, self._arena, self._operate, password=password) for n in range(CLIENTS)]
        self._grants: dict[tuple[str, str], str] = {}
        self._access: dict[str, Access] = {}

    def run(self) -> None:
        """Play and judge."""
        with ExitStack() as stack:
            if self._small:
                self._root.mkdir()
                subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", self._root], check=True)
                stack.callback(lambda: subprocess.run(["umount", "-l", self._root], check=True))
            self._start_server = stack.enter_context(starting(self._folder))
            self._prepare()
            self._server = self._boot(self._start_server)
            with self._loading():
                for event in self._dice.sample(self._events(), self._count):
                    self._arena.wait(_ANSWERS, _WITHIN_S)
                    if self._arena.failure is not None:
                        break
                    self._past.append(f"{time.monotonic():.3f} {event.__name__}")
                    event()
            self._judge()

    def _prepare(self) -> None:
        for client in self._clients if self._auth else ():
            self._operate("user", "add", client.name, "--password-stdin", stdin=_PASSWORD, codes=(0,))

    def _boot(self, start: StartServer) -> Server:
        flags = [*_FLAGS, "--mode", "auth" if self._auth else "open"]
        server = start(self._root, workers=2, flags=flags, env=self._clock.environment())
        self._arena.move((server.host, server.port))
        return server

    @contextmanager
    def _loading(self) -> Iterator[None]:
        threads = [threading.Thread(target=client.work, name=client.name) for client in self._clients]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._arena.end()
            for thread in threads:
                thread.join(2 * _WITHIN_S)
        assert not any(thread.is_alive() for thread in threads), "a client waits for ever"
        if self._arena.failure is not None:
            befell = "\n".join(("what befell the server:", *self._past, self._server.log()))
            raise AssertionError(f"{self._arena.failure}\n{befell}") from self._arena.failure

    # What befalls.

    def _events(self) -> list[Callable[[], None]]:
        events: list[Callable[[], None]] = [
            *[self._kill_worker] * 6,
            *[self._kill_workers] * 2,
            *[self._kill_supervisor] * 2,
            *[self._kill_all] * 2,
            self._collect,
            self._collect_twice,
            *[self._kill_collection] * 2,
            *[self._stop_worker] * 2,
            self._check,
            self._back_up,
            self._jump,
        ]
        if not self._small:  # what is mended there needs room
            events += [self._rot] * 3
        if self._auth:
            events += [self._grant, self._grant, self._publish]
        return events + [self._fill] * 4 if self._small else events

    def _count_kill(self, what: str) -> None:
        self._tally.add(KILL, what)

    def _kill_worker(self) -> None:
        """Another one takes its place."""
        if workers := self._server.workers():
            self._kill(self._dice.choice(workers))
            self._count_kill("workers")

    def _kill_workers(self) -> None:
        for worker in self._server.workers():
            self._kill(worker)
        self._count_kill("all workers at once")

    def _kill_supervisor(self) -> None:
        """Its workers end by themselves, perhaps beside the next server."""
        self._arena.move(None)
        self._kill(self._server.pid)
        self._count_kill("supervisors")
        self._server = self._boot(self._start_server)

    def _kill_all(self) -> None:
        self._arena.move(None)
        self._server.kill()
        self._count_kill("whole servers")
        self._server = self._boot(self._start_server)

    @staticmethod
    def _kill(pid: int, signum: signal.Signals = signal.SIGKILL) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)

    def _collect(self) -> None:
        self._run("gc", "--grace", "0").end(0, 1, 75)
        self._tally.add(WORK, "collections beside")

    def _collect_twice(self) -> None:
        """At once: one of them, at least, is told that it is not alone, or comes after."""
        both = [self._run("gc", "--grace", "0") for _ in range(2)]
        for each in both:
            each.end(0, 1, 75)
        self._tally.add(WORK, "two collections at once")

    def _kill_collection(self) -> None:
        command = self._run("gc", "--grace", "0")
        command.wait(self._dice.uniform(0, 1.0))
        command.kill()
        self._count_kill("collections")

    def _stop_worker(self) -> None:
        """One worker stands still while everything that nobody needs is taken."""
        workers = self._server.workers()
        if not workers:
            return
        worker = self._dice.choice(workers)
        self._kill(worker, signal.SIGSTOP)
        try:
            command = self._run("gc", "--grace", "0")
            command.wait(2.0)
        finally:
            self._kill(worker, signal.SIGCONT)
        command.end(0, 1, 75)
        self._tally.add(WORK, "workers stopped across a collection")

    def _check(self) -> None:
        """Nothing is found, beside all this."""
        self._run("fsck", self._dice.choice(("--quick", "--data", "--deep"))).end(0, 8)
        self._tally.add(WORK, "checks beside")

    def _back_up(self) -> None:
        command = self._run("backup", self._copy)
        if self._dice.random() < 0.5:
            command.wait(self._dice.uniform(0, 0.5))
            command.kill()
            self._count_kill("backups")
        else:
            command.end(0, 73, 75)
            self._tally.add(WORK, "backups beside")

    def _rot(self) -> None:
        """A pack rots, is set aside, and what went with it comes back from a backup: beside a server, at rest."""
        with self._arena.rest():
            if self._arena.failure is not None or not (packs := self._data_packs()):
                return
            self._end_alone("backup", self._copy, codes=(0,))
            self._see({"whole"})
            if unnoticed := self._dice.random() < 0.5:  # what the backup has whole is moved, and then it rots
                self._end_alone("gc", "--grace", "0", codes=(0, 1))
                packs = self._data_packs()
            self._tally.add(DAMAGE, spoil(self._dice.choice(packs), self._dice))
            if unnoticed:
                self._perhaps_kill("backups", "backup", self._copy)
                self._end_alone("backup", self._copy, codes=(0, 1))
                self._tally.add(WORK, "backups of what rotted unnoticed")
            elif self._dice.random() < 0.5 and "cut short" in self._pulled():
                self._see_scrubbed()
            self._perhaps_kill("repairs", "fsck", "--repair")
            self._end_alone("fsck", "--repair", codes=(0, 1, 4))
            lost = self._see({"whole", "missing"})["missing"]
            self._perhaps_kill("backups", "backup", self._copy)
            self._end_alone("backup", self._copy, codes=(0, 1))
            self._perhaps_kill("recoveries", "fsck", "--repair", "--from", self._copy)
            self._end_alone("fsck", "--repair", "--from", self._copy, codes=(0, 1))
            self._see({"whole"})
            self._end_alone("backup", self._copy, codes=(0,))
        self._tally.add(WORK, "packs that rotted, mended from a backup" + ("" if lost else "; no client lost anything"))

    def _data_packs(self) -> list[Path]:
        found = []
        for path in packs_of(self._root):
            with suppress(FileNotFoundError):
                header = scan_pack(1, path).header
                if header is not None and header.role is Role.DATA:
                    found.append(path)
        return found

    def _pulled(self) -> Counter[str]:
        return sum((client.pull_all() for client in self._clients), Counter())

    def _see(self, allowed: set[str]) -> Counter[str]:
        """Pull all that was promised; see that nothing else came of it."""
        pulled = self._pulled()
        assert set(pulled) <= allowed, f"{dict(pulled)}\n{self._server.log()}"
        return pulled

    def _see_scrubbed(self) -> None:
        """Whoever pulled saw damage: the server looks into it by itself, at once."""
        deadline = time.monotonic() + _WITHIN_S
        doubted = 1
        while doubted:
            assert time.monotonic() < deadline, f"nobody looks into what a reader saw\n{self._server.log()}"
            command = self._run("stats", "--json")
            command.end(0)
            doubted = json.loads(command.said())["doubted"]
        self._tally.add(WORK, "scrubs of what a reader saw")

    def _perhaps_kill(self, what: str, *arguments: str | Path) -> None:
        if self._dice.random() < 0.5:
            command = self._run(*arguments)
            command.wait(self._dice.uniform(0, 1.0))
            command.kill()
            self._count_kill(what)

    def _end_alone(self, *arguments: str | Path, codes: tuple[int, ...]) -> None:
        """Run a command to its end, as often as others keep it from it."""
        deadline = time.monotonic() + _WITHIN_S
        while (code := self._run(*arguments).end(*codes, *_NOT_ALONE)) not in codes:
            assert time.monotonic() < deadline, f"cas {' '.join(map(str, arguments))} is kept from it: {code}"

    def _jump(self) -> None:
        self._clock.set(self._dice.choice((-400, -1, 0.1, 8, 400)) * _DAY_S)
        self._tally.add(WORK, "jumps of the clock")

    def _fill(self) -> None:
        """Leave no byte; what grows is refused, and once there is room it goes on."""
        filler = self._root / "filler"
        with suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(64 * KIB))
                file.flush()
        self._arena.wait(2 * _ANSWERS, 5.0)
        if self._dice.random() < 0.5:
            self._run("gc", "--grace", "0").end(0, 1, 73, 74, 75)
        if self._dice.random() < 0.3:
            self._kill_worker()
        filler.unlink()
        self._tally.add(WORK, "times the disk was full")

    def _grant(self) -> None:
        """What one client has, another may pull; or not any more."""
        whose, other = self._dice.sample(self._clients, 2)
        key = (other.name, f"{whose.name}/one")
        if self._dice.random() < 0.7:
            self._operate("grant", *key, "pull", codes=(0,))
            self._grants[key] = "pull"
        else:
            self._operate("revoke", *key, codes=(0,))
            self._grants[key] = ""
        self._tally.add(WORK, "grants")

    def _publish(self) -> None:
        """Let everybody pull what an old engine pushed, or only those who may."""
        repository = f"{self._dice.choice(self._clients).name}/old"
        access = self._dice.choice((Access.PUBLIC, Access.PRIVATE))
        if self._operate("repo", "set", repository, f"--{access}", codes=(0, 66)) == 0:  # it may not be there yet
            self._access[repository] = access
        self._tally.add(WORK, "repositories published")

    def _run(self, *arguments: str | Path, stdin: str = "") -> Beside:
        log = self._folder / f"command-{next(self._numbers)}.log"
        return Beside(log, self._clock.path, *arguments, "--root", self._root, stdin=stdin)

    def _operate(self, *arguments: str, stdin: str = "", codes: tuple[int, ...] = (0,)) -> int:
        return self._run(*arguments, stdin=stdin).end(*codes)

    # What is left of it.

    def _judge(self) -> None:
        self._arena.over = False
        self._clock.set(0.0)
        self._arena.move(None)
        self._server.kill() if self._dice.random() < 0.5 else self._server.stop()
        self._server = self._boot(self._start_server)
        self._run("gc", "--grace", "0").end(0)
        for client in self._clients:
            client.look()
        self._see_grants()
        self._run("fsck", "--deep").end(0)
        assert self._server.stop() == 0, self._server.log()
        before = self._rebuild()
        if self._copy.exists() and (self._copy / "store.json").exists():
            with Store.open(self._copy, _ENGINE, reading=True) as store:  # as fsck does: it is a backup still
                findings = list(store.check(Depth.DEEP))
            assert not findings, findings
        self._restore(before)
        self._empty()

    def _see_grants(self) -> None:
        clients = {client.name: client for client in self._clients}
        for (user, pattern), right in self._grants.items():
            status = clients[user].ask("GET", f"/v2/{pattern}/tags/list").status
            there = clients[pattern.partition("/")[0]].ask("GET", f"/v2/{pattern}/tags/list").status == 200
            assert (status == 200) == (bool(right) and there), f"{user}: {right or 'nothing'} on {pattern}, {status}"

    def _rebuild(self) -> dict[str, dict[str, object]]:
        with Store.open(self._root, _ENGINE) as store:
            assert leftovers(store) == []
            before = dump(store)
        shutil.rmtree(self._root / "index")
        report = rebuild_index(self._root, _ENGINE)
        assert not report.damaged, report.damaged
        with Store.open(self._root, _ENGINE) as store:
            changed = differences(before, dump(store))
            for name, access in self._access.items():
                repository = Repository.of(name)
                found = store.read(lambda reads, one=repository: repositories.find(reads, one))  # type: ignore[misc]
                assert found is not None
                assert found.access == access, f"{repository} is {found.access}, and was made {access}"
        assert not changed, changed
        return before

    def _restore(self, before: dict[str, dict[str, object]]) -> None:
        shutil.rmtree(self._copy, ignore_errors=True)
        with Store.open(self._root, _ENGINE) as store:
            assert not store.backup(self._copy).damaged
        restore(self._copy, self._folder / "restored", _ENGINE)
        with Store.open(self._folder / "restored", _ENGINE) as store:
            changed = differences(before, dump(store))
            assert not changed, changed
            assert not list(store.check(Depth.DEEP))

    def _empty(self) -> None:
        """Delete all of it: the space comes back."""
        with Store.open(self._root, _ENGINE) as store:
            for client in self._clients:
                for repository in client.repositories():
                    removal.remove(store, Repository.of(repository), time.time())
            for _ in range(4):  # what one of them removes is written down, which is for the next one
                done = maintenance.run(store, maintenance.terms(KeepingSettings(), time.time, grace_s=0))
                assert done.left == []
            stats = store.stats()
            changes = store._parts.index.read(lambda view: view.number(JOURNAL_SEQ))
        assert stats.chunks == 0, stats
        sizes, few = pack_sizes(self._root), 32 * KIB + _TRACE_BYTES * changes
        assert sum(sizes.values()) < few, f"nothing is stored after {changes} changes, and packs are {sizes}"
