"""After `cas fsck --repair`, a push of one image brings back the others that shared what was damaged (I9)."""

from __future__ import annotations

from contextlib import closing

from tests.support.engine import KIB, flip, noise, prose
from tests.support.serving import StartServer, run_cas, until
from tests.wire.v2.content import Home
from tests.wire.v2.pushing import Client, sha256

COMMON = prose(600 * KIB)
ONE, TWO, THREE = (COMMON + noise(300 * KIB, seed) for seed in (1, 2, 3))


def test_another_image_with_the_same_piece_heals_all_of_them(server: StartServer) -> None:
    """Beside a live server of two workers, in a repository of its own, and what came back stays after gc."""
    running = server(workers=2)
    with closing(Client(running.url)) as client:
        homes = [Home(client, layers=(layer,)) for layer in (ONE, TWO)]
        for home in homes:
            home.push(home.numbered(1), "latest")
        flip(max((running.root / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size), 100)
        ended = run_cas("fsck", "--repair", "--root", running.root)
        assert ended.returncode == 1, ended.stdout
        assert "2 blobs answered as missing" in ended.stdout

        def answers() -> list[int]:
            layers = zip(homes, (ONE, TWO), strict=True)
            return [client.blob(home.name, sha256(layer), "HEAD").status_code for home, layer in layers]

        assert answers() == [404, 404]
        other = Home(client, layers=(THREE,))
        other.push(other.numbered(1), "latest")
        until(lambda: answers() == [200, 200])
        assert run_cas("gc", "--root", running.root).returncode == 0
        assert [client.blob(homes[n].name, sha256(layer)).content == layer for n, layer in enumerate((ONE, TWO))] == [
            True
        ] * 2
    assert run_cas("fsck", "--deep", "--root", running.root).returncode == 0
