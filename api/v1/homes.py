"""Homes: from where an image can be seen, and where it is being uploaded.

    v1.member    ns/repo:id    {"checksum": text, "began": Unix s, "at": Unix s, "from": ns/repo, "made": true}
                               each where known, and `made` where it is so
    v1.in        id:ns/repo    {"made": true}    the same turned round, for images that can be seen from there

A home is a repository by its full name, `~USER~STAMP` for what an account pushed by password and no repository was
named, or `EVERYWHERE`, from which every image can be seen. From a repository an image is seen if its very bytes were
proven there, or if somebody tagged or pushed it there who saw it already; it has `at` then. What an account only named
as a parent is in its own home with the repository it was seen `from`, and counts while that may be pulled from.
Listing an id opens nothing: ids are no secrets. What was made of a tag on a manifest is seen from the tag's repository,
which has all its bytes, for as long as a tag or an image there needs it. Blocking; no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from api.access import policy
from api.access.principal import NOBODY, Action, Caller, Principal
from api.access.settings import AccessSettings
from api.content import marks, repositories
from api.content.repository import Repository
from api.content.values import content, record
from api.errors import ApiError
from api.v1 import refusals
from api.v1.image import Image, find_complete, find_upload
from cas import Digest, Name, Names, Reads, Store

MEMBER: Final = "v1.member"
IN: Final = "v1.in"
MADE: Final = "made"  # in what is known of an image that nobody pushed here
EVERYWHERE: Final = ""
LATE_S: Final = 3600  # how long after an image was completed its tag may still come with a token that expired meanwhile
MOST_HOMES: Final = 10_000  # looked at for who named none; past it the image is not there, except for a token
_STEP: Final = 1000  # homes looked at in one go
_FEW: Final = 16


def of_account(who: Principal) -> str:
    """Return the home of what an account pushes without naming a repository.

    The stamp is in it so that a later account of the same name does not inherit anything.
    """
    return f"~{who.name}~{who.stamp}"


Sight = Callable[[Reads, Repository], bool]  # whether somebody may pull from a repository


def _all(_reads: Reads, _repository: Repository) -> bool:
    return True


def _none(_reads: Reads, _repository: Repository) -> bool:
    return False


def sight_of(settings: AccessSettings, caller: Caller) -> Sight:
    """Return from which repositories somebody may pull, as it is when it is asked."""
    return lambda reads, repository: Action.PULL in policy.rights(reads, settings, caller, repository)


# --- seeing -----------------------------------------------------------------------------------------------


def find(reads: Reads, home: str, image_id: str, sees: Sight = _all) -> Image | None:
    """Look an image up as it is seen from a home: complete, or being uploaded there; None for everything else.

    Only within one read: an image that is completed between two looks is in neither place.
    """
    if home == EVERYWHERE or _is_proven(reads, home, image_id, sees):
        image = find_complete(reads, image_id)
        if image is not None:
            return image
    return find_upload(reads, home, image_id)


def known(reads: Reads, home: str, image_id: str, sees: Sight = _all) -> Image:
    """Look up an image that must at least be uploading.

    Raises:
        ApiError: 404.
    """
    image = find(reads, home, image_id, sees)
    if image is None:
        raise ApiError(*refusals.IMAGE_NOT_FOUND)
    return image


def pushed(reads: Reads, home: str, image_id: str, sees: Sight = _all) -> Image:
    """Look up an image as whoever pushes it goes on with it: begun anew, where it was lost when its json came.

    It may be whole by now, by another push or by this one, whose next step is good all the same.

    Raises:
        ApiError: 404 if it is unknown, or lost and not begun anew.
    """
    image = known(reads, home, image_id, sees)
    if not image.complete:
        return image
    anew = find_upload(reads, home, image_id)
    if anew is not None and anew.json == image.json:
        return anew
    if image.is_lost(reads):
        raise ApiError(*refusals.IMAGE_LOST)
    return image


def complete(reads: Reads, home: str, image_id: str) -> Image:
    """Look up an image that may be served.

    Raises:
        ApiError: 404 if it is unknown, 400 if it is still being uploaded.
    """
    image = known(reads, home, image_id)
    if not image.complete:
        raise ApiError(*refusals.IMAGE_UPLOADING)
    return image


def seen_by(reads: Reads, settings: AccessSettings, caller: Caller, image_id: str) -> str | None:
    """Return a home from which somebody may look at an image, who named none; None if there is none."""
    who = caller.principal
    if who.admin:
        return EVERYWHERE
    own = None if who.name is None else find(reads, of_account(who), image_id, _none)
    if own is not None and own.complete:
        return of_account(who)
    for prefix in policy.sight(reads, settings, caller).prefixes:
        home = _first(reads, settings, caller, image_id, prefix)
        if home is not None:
            return home
    public = _first(reads, settings, NOBODY, image_id, "")  # what is left is what everybody may pull
    return of_account(who) if public is None and own is not None else public


def _first(reads: Reads, settings: AccessSettings, caller: Caller, image_id: str, prefix: str) -> str | None:
    may_pull = sight_of(settings, caller)
    for name in islice(_homes(reads, image_id, prefix), MOST_HOMES):
        if may_pull(reads, Repository.of(name)) and _is_proven(reads, name, image_id):
            return name
    return None


def _homes(reads: Reads, image_id: str, prefix: str) -> Iterator[str]:
    start = f"{image_id}:"
    low = ""
    while found := reads.paths(IN, start + prefix, after=low, limit=_STEP):
        for path in found:
            yield path.removeprefix(start)
        low = found[-1]


def in_time(reads: Reads, home: str, image_id: str, expired: int, now: float) -> bool:
    """Tell whether an image was begun before a token expired, and is still being uploaded or was until just now."""
    image = find_upload(reads, home, image_id)
    if image is not None:
        return image.began <= expired
    member = _member(reads, home, image_id) or {}
    return "at" in member and member["began"] <= expired and now - member["at"] <= LATE_S


def whole_line(
    reads: Reads, home: str, image: Image, most: int, lacking: tuple[int, str], sees: Sight = _all
) -> list[Image]:
    """Return an image and all its ancestors, itself first, as they are seen from a home.

    An ancestor that is not: its id may be one that the pusher only pretends to have, and another one's image.

    Raises:
        ApiError: `lacking` unless each of them is complete and seen from there; 400 if they are more than so many.
    """
    found = list(_line(reads, home, image, most + 1, sees))
    if len(found) > most:
        raise ApiError(*refusals.CHAIN_TOO_LONG)
    if not found or found[-1].parent is not None:
        raise ApiError(*lacking)
    return found


def _line(reads: Reads, home: str, image: Image, most: int, sees: Sight) -> Iterator[Image]:
    """Yield an image and then its ancestors, at most so many, as far as they are complete and seen from a home."""
    above: Image | None = image
    for _ in range(most):
        if above is None or not above.complete:
            return
        yield above
        above = None if above.parent is None else find(reads, home, above.parent, sees)


# --- becoming seen ----------------------------------------------------------------------------------------


def prove(names: Names, home: str, image: Image, now: float, *, seen_from: str | None = None) -> None:
    """Make an image seen from a home in which its bytes were proven; or, in an account's, seen from a repository.

    Raises:
        ApiError: 404 if that is a repository which is there no more.
    """
    if home == EVERYWHERE:
        return
    if not home.startswith("~"):
        check(names, home)
        names.put(Name(IN, f"{image.id}:{home}"), record({}))
    else:
        need(names, home, image.id)
    row = {**_pushed(_member(names, home, image.id)), "began": image.began, "at": now, "from": seen_from}
    names.put(_name(home, image.id), record({key: value for key, value in row.items() if value is not None}))


def show(names: Names, repository: Repository, image: Image, now: float) -> None:
    """Make an image seen from a repository whose manifests have all its bytes; see `garbage` for how long."""
    need(names, str(repository), image.id)
    member = _member(names, str(repository), image.id)
    if member is None or "at" not in member:
        made = {MADE: True} if member is None else {}
        names.put(Name(IN, f"{image.id}:{repository}"), record(made))
        row = {"began": image.began, "at": now, **made, **(member or {})}
        names.put(_name(str(repository), image.id), record(row))


def is_seen(reads: Reads, repository: Repository, image_id: str) -> bool:
    """Tell whether an image is seen from a repository."""
    return _is_proven(reads, str(repository), image_id)


def is_damaged(reads: Reads, repository: Repository, image_id: str) -> bool:
    """Tell whether damage took something of an image, or of those that it stands on."""
    image = find(reads, str(repository), image_id) if reads.has_lost else None
    line = () if image is None else _line(reads, str(repository), image, image.chain, _all)
    return any(each.is_lost(reads) for each in line)


def _pushed(member: dict[str, Any] | None) -> dict[str, Any]:
    """Return what is known of an image once somebody has pushed it, or named it in a push."""
    return {key: value for key, value in (member or {}).items() if key != MADE}


def need(names: Names, home: str, image_id: str) -> None:
    """Say that an image is needed again, which may stand in no repository, or was only made here: see `garbage`."""
    if not _keep(names, home, image_id):
        seen = names.scan(IN, f"{image_id}:", limit=_FEW)
        if all(MADE in content(row) for _, row in seen):
            marks.disturb(names, marks.V1)


def _keep(names: Names, home: str, image_id: str) -> bool:
    """If an image was only made here, see to it that it stays; tell whether."""
    if MADE not in (_member(names, home, image_id) or ()):
        return False
    turned = Name(IN, f"{image_id}:{home}")
    if names.get(turned) is None:  # a collection has begun to take it away
        names.put(turned, record({MADE: True}))
    marks.disturb(names, marks.V1)
    return True


def check(reads: Reads, home: str) -> None:
    """Raise unless a home that is a repository is there.

    Raises:
        ApiError: 404.
    """
    is_repository = home != EVERYWHERE and not home.startswith("~")
    if is_repository and repositories.find(reads, Repository.of(home)) is None:
        raise ApiError(*refusals.REPOSITORY_NOT_FOUND)


def adopt(names: Names, into: Repository, images: Iterable[Image], now: float) -> None:
    """Make images seen from a repository as well, which whoever says so has seen; see `whole_line`."""
    for above in images:
        if not _is_proven(names, str(into), above.id):
            prove(names, str(into), above, now)
        else:
            _keep(names, str(into), above.id)


def borrow(store: Store, settings: AccessSettings, caller: Caller, image_id: str, now: float) -> None:
    """Make what an account sees from some repository a parent for what it pushes without naming one."""
    own = of_account(caller.principal)

    def edit(names: Names) -> None:
        home = seen_by(names, settings, caller, image_id)
        image = None if home in {None, EVERYWHERE, own} else find(names, str(home), image_id)
        if image is not None:
            for above in _line(names, str(home), image, image.chain, _all):
                if not _is_proven(names, own, above.id, _none):
                    prove(names, own, above, now, seen_from=str(home))

    if store.read(lambda reads: seen_by(reads, settings, caller, image_id)) not in {None, EVERYWHERE, own}:
        store.change(edit)


def lend(
    store: Store, settings: AccessSettings, who: Principal, into: Repository, image_id: str, json: Digest, now: float
) -> None:
    """Make what an account sees from some repository seen from the one it pushes to, if it shows the image's json.

    Engines keep files and no archives. What they push of an image that they pulled is packed anew, and would be another
    image under an id that is taken.
    """

    def found(reads: Reads) -> Image | None:
        home = None if find(reads, str(into), image_id) else seen_by(reads, settings, Caller(who), image_id)
        image = None if home is None else find(reads, home, image_id)
        whole = image is not None and image.complete and image.json == json and not image.is_lost(reads)
        return image if whole else None

    def edit(names: Names) -> None:
        image = found(names)
        if image is not None:
            need(names, str(into), image_id)
            prove(names, str(into), image, now)

    if store.read(found) is not None:
        store.change(edit)


# --- lists ------------------------------------------------------------------------------------------------


def add(names: Names, repository: Repository, image_id: str, checksum: str | None) -> None:
    """List an id; nobody sees more for it."""
    if adds(names, repository, image_id, checksum):
        before = _member(names, str(repository), image_id) or {}
        if MADE in before:
            names.put(Name(IN, f"{image_id}:{repository}"), record({}))
        names.put(_name(str(repository), image_id), record({**_given(checksum), **_pushed(before)}))


def adds(reads: Reads, repository: Repository, image_id: str, checksum: str | None) -> bool:
    """Tell whether listing an id would tell anything new."""
    before = _member(reads, str(repository), image_id)
    return before is None or MADE in before or (checksum is not None and "checksum" not in before)


def is_listed(reads: Reads, repository: Repository, image_id: str) -> bool:
    """Tell whether an id is in a repository's list."""
    return _member(reads, str(repository), image_id) is not None


def listed(reads: Reads, repository: Repository) -> list[dict[str, str]]:
    """List a repository's images with the checksums that were given for them."""
    prefix = f"{repository}:"
    rows = ((name.path.removeprefix(prefix), content(found)) for name, found in reads.scan(MEMBER, prefix))
    return [{"id": image_id, **_given(value.get("checksum"))} for image_id, value in rows]


def _given(checksum: str | None) -> dict[str, str]:
    return {"checksum": checksum} if checksum else {}


def _is_proven(reads: Reads, home: str, image_id: str, sees: Sight = _all) -> bool:
    member = _member(reads, home, image_id)
    if member is None or "at" not in member:
        return False
    return "from" not in member or sees(reads, Repository.of(member["from"]))


def _member(reads: Reads, home: str, image_id: str) -> dict[str, Any] | None:
    found = reads.get(_name(home, image_id))
    return None if found is None else content(found)


def _name(home: str, image_id: str) -> Name:
    return Name(MEMBER, f"{home}:{image_id}")
