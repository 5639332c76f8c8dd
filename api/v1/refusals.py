"""What Registry v1 says no with: status and exact words. Clients compare some of these texts; do not reword.

Used as `raise ApiError(*IMAGE_NOT_FOUND)`.
"""

from __future__ import annotations

INVALID_ID = (404, "Invalid image ID")
IMAGE_NOT_FOUND = (404, "Image not found")
IMAGE_UPLOADING = (400, "Image is being uploaded, retry later")
IMAGE_LOST = (404, "Image was lost by damage to what this server stores, push it again")
IMAGE_EXISTS = (409, "Image already exists")

INVALID_JSON = (400, "Invalid JSON")
JSON_WITHOUT_ID = (400, "Missing key `id' in JSON")
JSON_OTHER_ID = (400, "JSON data contains invalid id")
NO_SUCH_PARENT = (400, "Image depends on a non existing parent")
OWN_ANCESTOR = (400, "Image depends on itself: its parent is one of its own descendants")
CHAIN_TOO_LONG = (400, "Image has too many ancestors")

IMAGE_REPLACED = (409, "Image was replaced while its layer was uploaded, push the image again")
LAYER_MISMATCH = (400, "Checksum mismatch, ignoring the layer")

CHECKSUM_MISMATCH = (400, "Checksum mismatch")
CHECKSUM_EMPTY = (400, "Missing Image's checksum")
CHECKSUM_FINAL = (409, "Cannot set this image checksum")
PAYLOAD_NOT_SET = (
    412,
    (
        "X-Docker-Checksum-Payload not set.  If you are using the Docker daemon, "
        "you should upgrade to version 0.10 or later"
    ),
)

LAYER_UNREADABLE = (400, "Layer format not supported")
LAYER_TOO_MUCH = (400, "Layer unpacks to more than this server reads")
NO_DIFFS = (400, "Diff queue is disabled")

INVALID_TAG = (400, "Invalid tag name (must match ^[\\w][\\w.-]{0,127}$)")
INVALID_REPOSITORY = (
    400,
    (
        "Invalid repository name (must be lower-case letters and digits in parts joined by . _ - or /, "
        "at most 255 characters, and not end in tags, images, json, properties or auth)"
    ),
)
INVALID_DATA = (400, "Invalid data")
ACCOUNT_TOO_LARGE = (400, "A username, a password and an address are shorter than that")
NO_NAME_OR_PASSWORD = (400, "An account needs a username and a password")
NOT_JSON = (400, "Error Decoding JSON")
TAG_NOT_FOUND = (404, "Tag not found")
REPOSITORY_NOT_FOUND = (404, "Repository not found")
IMAGES_NOT_FOUND = (404, "images not found")

NEEDS_TOKEN = (401, "Requires authorization")
TOKEN_CHALLENGE = {"WWW-Authenticate": "Token"}
NEEDS_LOGIN = (401, "Requires authorization: log in first")
LOGIN_CHALLENGE = {"WWW-Authenticate": 'Basic realm="auth required",Token'}
NO_RIGHT = (403, "Access denied: ask the repository's owner or an administrator for the right to do this")
OTHER_USER = (403, "Access denied: only its owner and administrators change an account")
NO_SIGN_UP = (401, "Sign-up is switched off: ask an administrator for an account")

NOT_LISTED = (400, "This image does not belong to the repository")
FORBIDDEN_PARENT = (400, "Image depends on an unauthorized parent")
INDEX_GONE = (503, "The index that vouches for tokens does not answer, try again later")

NO_SUCH_ROUTE = (404, "Not found")
NO_SUCH_METHOD = (405, "Method not allowed")


def no_tag(tag: str) -> tuple[int, str]:
    """Name the tag that was to be deleted."""
    return TAG_NOT_FOUND[0], f"{TAG_NOT_FOUND[1]}: {tag}"
