"""A real client heals what is damaged by doing what it always does: pull, and push again what it could not pull."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.clients.drivers import Skopeo
from tests.support.endpoint import Endpoint, Witness
from tests.support.images import Image, image
from tests.support.serving import StartServer, run_cas, until


@pytest.mark.needs("skopeo")
def test_a_push_heals_what_a_pull_found_damaged(server: StartServer, tmp_path: Path) -> None:
    """The pull fails; soon the layer is answered as missing, so that the push, which asks first, sends it."""
    sent = image(tmp_path / "sent", "healing", layers=1, layer_bytes=3 << 20)
    running = server(workers=2)
    skopeo = Skopeo(Endpoint(f"{running.host}:{running.port}"), tmp_path / "home")
    skopeo.push(sent, "team/app:1.0")
    assert running.stop() == 0
    pack = max((running.root / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size)
    pack.chmod(0o640)
    os.truncate(pack, pack.stat().st_size // 2)
    again = server(workers=2)
    endpoint = Endpoint(f"{again.host}:{again.port}")
    skopeo, witness = Skopeo(endpoint, tmp_path / "other"), Witness(endpoint)
    with pytest.raises(AssertionError, match="EOF"):
        skopeo.pull("team/app:1.0")
    (layer,) = sent.manifest()["layers"]
    until(lambda: witness.ask("HEAD", f"/v2/team/app/blobs/{layer['digest']}").status == 404)
    skopeo.push(sent, "team/app:1.0")
    back = Image(skopeo.fetch("team/app:1.0", tmp_path / "back"), sent.tag, sent.digest, sent.config)
    assert all(back.blob(digest) == sent.blob(digest) for digest in sent.digests())
    assert run_cas("fsck", "--deep", "--root", running.root).returncode == 0
