"""JSON that strangers sent, taken apart and checked. Pure: bytes in, values out.

Knows which members matter; everything else in an image's json is its owner's and is kept byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from api.errors import ApiError
from api.strict import load
from api.v1 import names, refusals

_MAX_CHECKSUM: Final = 256  # characters; a sha512 tarsum has 149


def _load(body: bytes, refusal: tuple[int, str]) -> Any:
    try:
        return load(body)
    except ValueError:
        raise ApiError(*refusal) from None


def image_json(body: bytes, image_id: str) -> str | None:
    """Check an image's json against the id it was sent for and return its parent, if it has one.

    Raises:
        ApiError: 400.
    """
    content = _load(body, refusals.INVALID_JSON)
    if not isinstance(content, dict) or not content:
        raise ApiError(*refusals.INVALID_JSON)
    if "id" not in content:
        raise ApiError(*refusals.JSON_WITHOUT_ID)
    if content["id"] != image_id:
        raise ApiError(*refusals.JSON_OTHER_ID)
    parent = content.get("parent")
    if parent is None or parent == "":
        return None
    if not isinstance(parent, str) or not names.is_image_id(parent):
        raise ApiError(*refusals.NO_SUCH_PARENT)
    return parent


def image_list(body: bytes) -> dict[str, str | None]:
    """Read the image list of an index route into id -> checksum, or None where none was given.

    An id may occur several times, once for every tag; the tags themselves come later, on their own routes.

    Raises:
        ApiError: 400.
    """
    content = _load(body, refusals.NOT_JSON)
    if not isinstance(content, list):
        raise ApiError(*refusals.INVALID_DATA)
    images: dict[str, str | None] = {}
    for item in content:
        image_id, checksum = _listed(item)
        images[image_id] = checksum or images.get(image_id)
    return images


def _listed(item: object) -> tuple[str, str | None]:
    if not isinstance(item, Mapping):
        raise ApiError(*refusals.INVALID_DATA)
    image_id, checksum = item.get("id"), item.get("checksum")
    if not isinstance(image_id, str) or not names.is_image_id(image_id):
        raise ApiError(*refusals.INVALID_DATA)
    if checksum is not None and not (isinstance(checksum, str) and len(checksum) <= _MAX_CHECKSUM):
        raise ApiError(*refusals.INVALID_DATA)
    return image_id, checksum


def tag_target(body: bytes) -> str:
    """Read the image id that a tag is to point to.

    Raises:
        ApiError: 400 if it is no string; 404 if no image can have such an id.
    """
    target = _load(body, refusals.INVALID_DATA)
    if not isinstance(target, str) or not target:
        raise ApiError(*refusals.INVALID_DATA)
    if not names.is_image_id(target):
        raise ApiError(*refusals.IMAGE_NOT_FOUND)
    return target


def access(body: bytes) -> str:
    """Read the `access` property.

    Raises:
        ApiError: 400.
    """
    content = _load(body, refusals.INVALID_DATA)
    if not isinstance(content, dict) or not isinstance(content.get("access"), str):
        raise ApiError(*refusals.INVALID_DATA)
    value: str = content["access"]
    return value


def new_account(body: bytes) -> tuple[str, str, str | None]:
    """Read a sign-up: name, password, and an address if one was given. Other members are of no interest.

    Raises:
        ApiError: 400.
    """
    content = _object(body)
    name, password, email = (_text(content, key) for key in ("username", "password", "email"))
    if not name or not password:
        raise ApiError(*refusals.NO_NAME_OR_PASSWORD)
    return name, password, email or None


def account_change(body: bytes) -> tuple[str | None, str | None]:
    """Read what is to become of an account: a password, an address, either or none.

    Raises:
        ApiError: 400.
    """
    content = _object(body)
    return _text(content, "password"), _text(content, "email") or None


def _object(body: bytes) -> dict[str, Any]:
    content = _load(body, refusals.NOT_JSON)
    if not isinstance(content, dict):
        raise ApiError(*refusals.INVALID_DATA)
    return content


def _text(content: Mapping[str, Any], key: str) -> str | None:
    """Return a member that is text; one with half a character in it could not be hashed."""
    value = content.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or any("\ud800" <= char <= "\udfff" for char in value):
        raise ApiError(*refusals.INVALID_DATA)
    return value
