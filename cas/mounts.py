"""What kind of filesystem a folder lies on, which kinds lie on other machines, and whether it takes any writes.

Layer: L2.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

NETWORK_FILESYSTEMS = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb",
        "smb2",
        "smb3",
        "smbfs",
        "9p",
        "ceph",
        "fuse.ceph",
        "fuse.ceph-fuse",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.blobfuse2",
        "fuse.curlftpfs",
        "fuse.gcsfuse",
        "fuse.goofys",
        "fuse.gvfsd-fuse",
        "fuse.juicefs",
        "fuse.mfs",
        "fuse.seaweedfs",
        "fuse.smbnetfs",
        "afs",
        "ncpfs",
        "lustre",
        "gpfs",
        "beegfs",
        "ocfs2",
        "gfs2",
        "coda",
        "davfs",
        "fuse.davfs2",
    ]
)


def filesystem_type(path: Path, mounts: str | None = None) -> str:
    """Return the type of the filesystem that holds `path`, or `"unknown"`.

    Args:
        path: an existing path.
        mounts: text in the form of `/proc/self/mountinfo`; read from there if None.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return "unknown"
    best, kind = -1, "unknown"
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        mount_point = fields.split(" ")[4].replace("\\040", " ")
        if path.resolve().is_relative_to(mount_point) and len(mount_point) >= best:
            best, (kind, source) = len(mount_point), rest.split(" ")[:2]
            if kind == "fuse" and "://" in source:
                kind = "fuse.davfs2"  # which does not say so itself
    return kind


def is_read_only(folder: Path) -> bool:
    """Tell whether nobody can write to a folder, whatever its modes: its mount is read-only, or it is in a snapshot."""
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return True
    if os.access(folder, os.W_OK):
        return False
    try:  # of a snapshot of btrfs neither mount nor modes say so
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        return error.errno == errno.EROFS
    return False
