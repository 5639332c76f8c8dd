"""Parts of blobs as curl asks for them, and a download that goes on where it was cut."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.conftest import World
from tests.support.endpoint import Endpoint, Witness
from tests.support.images import image
from tests.support.peers import path_of

pytestmark = pytest.mark.needs("curl")
EVERYWHERE = [("plain", "open"), ("plain", "auth"), ("tls", "open"), ("tls", "auth")]


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer that the registry has, and its bytes."""

    at: Endpoint
    target: str
    data: bytes

    def curl(self, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        trust = ["--cacert", str(self.at.ca)] if self.at.ca else []
        account = ["--user", f"{self.at.account.name}:{self.at.account.password}"] if self.at.account else []
        command = [path_of("curl"), "--silent", "--show-error", *trust, *account, *map(str, arguments)]
        return subprocess.run([*command, self.at.url + self.target], capture_output=True, timeout=60, check=False)


@pytest.fixture(params=EVERYWHERE, ids=["-".join(each) for each in EVERYWHERE])
def blob(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Blob:
    at = world.endpoint(*request.param)
    put = image(tmp_path / "put", "ranges", layers=1, layer_bytes=3_000_000)
    Witness(at).put("bob/ranges", put)
    digest = put.manifest()["layers"][0]["digest"]
    return Blob(at, f"/v2/bob/ranges/blobs/{digest}", put.blob(digest))


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("500-1499", slice(500, 1500)),
        ("2900000-", slice(2_900_000, None)),
        ("-500", slice(-500, None)),
        ("0-0", slice(0, 1)),
    ],
)
def test_curl_gets_the_part_it_asks_for(asked: str, part: slice, blob: Blob) -> None:
    """From the front, to the end, the last bytes, a single one: 206 and exactly those."""
    got = blob.curl("--range", asked, "--write-out", "%{stderr}%{http_code}")
    assert (got.stderr, got.stdout) == (b"206", blob.data[part])


def test_a_part_past_the_end_is_refused(blob: Blob) -> None:
    """416 tells how long the blob is."""
    got = blob.curl("--range", "99000000-", "--head").stdout.decode().lower()
    assert " 416" in got.splitlines()[0]
    assert f"content-range: bytes */{len(blob.data)}\r\n" in got


def test_curl_resumes_a_download(blob: Blob, tmp_path: Path) -> None:
    """It continues the file it has and ends with the whole blob."""
    file = tmp_path / "half"
    file.write_bytes(blob.data[:1_234_567])
    assert blob.curl("--continue-at", "-", "--output", file).returncode == 0
    assert file.read_bytes() == blob.data
