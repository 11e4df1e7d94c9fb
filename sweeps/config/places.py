"""Places of stages, which are folders or URLs."""

from __future__ import annotations

import re
from urllib.parse import urlsplit


def is_url(place: str) -> bool:
    """Whether a place is a URL, such as s3://bucket/prefix, rather than a folder."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", place) is not None


def place_problem(place: str) -> str | None:
    """The clause that refuses a place; None if it can be one."""
    if not is_url(place):
        return None
    try:
        parts = urlsplit(place)
    except ValueError as error:
        return f"is no URL ({error}); write s3://bucket/prefix, or a folder."
    if parts.password is not None:
        return "holds a password; leave it out, and give it in the environment instead."
    if not (parts.netloc or parts.path.strip("/")):
        return "names no bucket; write s3://bucket/prefix, or a folder."
    return None
