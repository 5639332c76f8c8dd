"""What kind of filesystem a folder lies on, and which kinds lie on other machines.

Layer: L2.
"""

from __future__ import annotations

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
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.ceph-fuse",
        "fuse.rclone",
        "fuse.s3fs",
        "afs",
        "ncpfs",
        "fuse.blobfuse2",
        "fuse.curlftpfs",
        "fuse.gcsfuse",
        "fuse.goofys",
        "fuse.gvfsd-fuse",
        "fuse.juicefs",
        "fuse.mfs",
        "fuse.seaweedfs",
        "fuse.smbnetfs",
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
