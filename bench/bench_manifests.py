"""How many manifests a second: GET and HEAD by tag, as every pull begins and every poll for news is.

Clients ask by the same words, as one program does on many machines; in the last two rows each time by others, so that
nothing that was said before can be said again. In the last one they show a token, which a server in `auth` mode wants.

Rows `manifest/…`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from bench.field import REGISTRIES, Field, Runner
from bench.load import Job
from bench.measure import Load, Row, Run, compare, same
from bench.registry import REPOSITORY, give, give_image, look, nobodys_token, pull

CLIENTS = 16
TAGS = 16
LAYERS = 6
# zot reads it before it takes an image.
CONFIGURATION = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'


def ask(run: Run) -> Iterator[Row]:
    """Sixteen tags of images with six layers, by sixteen clients."""
    blobs = [run.corpus.blob(iter([CONFIGURATION])), *run.corpus.many(LAYERS, 4096)]
    with Field(run.folder) as field:
        ready: list[tuple[Runner, dict[str, int]]] = []
        for runner in map(field.start, run.among(*REGISTRIES)):
            for blob in blobs:
                give(runner, blob)
            tags = [f"v{number}" for number in range(TAGS)]
            ready.append((runner, {tag: give_image(runner, blobs[0], blobs[1:], tag) for tag in tags}))
        for verb in ("get", "head"):
            loads = [Load(runner, same(jobs_of(verb, sizes, run.scale.requests)), CLIENTS) for runner, sizes in ready]
            yield compare(f"manifest/{verb}", loads, run.scale.rounds, per="1,000")
        loads = [Load(runner, in_other_words(sizes, run.scale.requests), CLIENTS) for runner, sizes in ready]
        yield compare("manifest/words", loads, run.scale.rounds, per="1,000")
        ours, sizes = ready[0]
        asked = field.beside(ours, "--mode", "auth")
        loads = [Load(asked, in_other_words(sizes, run.scale.requests, nobodys_token(asked)), CLIENTS)]
        loads.append(Load(ours.called("open mode"), in_other_words(sizes, run.scale.requests), CLIENTS))
        yield compare("manifest/token", loads, run.scale.rounds, per="1,000")
    run.corpus.drop(*blobs)


def in_other_words(sizes: dict[str, int], count: int, token: str = "") -> Callable[[int], list[Job]]:
    """GET by tag, each with a header that no other request has."""
    tags = list(sizes)

    def jobs(round_: int) -> list[Job]:
        asked = (tags[number % len(tags)] for number in range(count))
        return [
            partial(pull, f"/v2/{REPOSITORY}/manifests/{tag}", sizes[tag], word=f"{round_}.{number}", token=token)
            for number, tag in enumerate(asked)
        ]

    return jobs


def jobs_of(verb: str, sizes: dict[str, int], count: int) -> list[Job]:
    targets = {tag: f"/v2/{REPOSITORY}/manifests/{tag}" for tag in sizes}
    once: list[Job] = [
        partial(pull, targets[tag], size) if verb == "get" else partial(look, targets[tag])
        for tag, size in sizes.items()
    ]
    return once * max(1, count // len(once))
