"""Which kind of file system a folder is on, as far as the system says."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")  # of Linux; where there is none, nothing is known
NETWORK = (
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs"),
    *("orangefs", "panfs", "wekafs", "fuse.ceph", "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs"),
    *("fuse.gcsfuse", "fuse.juicefs"),
)
LOCAL = (
    "apfs",
    "bcachefs",
    "btrfs",
    "exfat",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "jfs",
    "overlay",
    "tmpfs",
    "xfs",
    "zfs",
)


def network_file_system(folder: Path) -> str | None:
    """The type of the file system that a folder is on, or would be, if several machines may share it.

    SQLite needs file locks that every machine sees, which these have not always.
    """
    kind = _kind(folder)
    return kind if kind in NETWORK else None


def is_local(folder: Path) -> bool:
    """Whether a folder is on a file system that is known to be this machine's alone."""
    return _kind(folder) in LOCAL


def _kind(folder: Path) -> str:
    """The type of the file system that a folder is on; empty where the system does not say."""
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    resolved, kind, length = folder.resolve(), "", -1
    for line in lines:
        _, place, found, *_ = line.split(" ")
        mounted = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), place))
        if resolved.is_relative_to(mounted) and len(mounted.parts) >= length:  # the last one hides others
            kind, length = found, len(mounted.parts)
    return kind
