"""The storage of a study's trials for Optuna, as a config names it."""

from __future__ import annotations

import os
import re
import shlex
from urllib.parse import parse_qsl, quote, urlsplit

from slimnet.errors import SlimnetError

NAMES = ("auto", "sqlite", "journal")
SCHEME = "postgresql://"
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SECRETS = {"password", "sslpassword"}  # in the query of an address
_PORT = r"""\d*(?![^/?#\s"'])"""
_LOGIN = re.compile(  # a password may hold any characters, and an address be cut off before its host
    rf"(\w[\w+.-]*://[^\s:/]*:)(?:.*(?=@)|(?<!\[:)(?!{_PORT}).*)", re.DOTALL
)
_FIELD = re.compile(
    r"""(password["']?\s*[=:]\s*)('(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?|[^\s&]*)""", re.IGNORECASE
)


def storage_problem(storage: str) -> str | None:
    """The clause that refuses a storage, without repeating any of it; None if there is nothing to refuse."""
    if storage in NAMES:
        return None
    if not storage.startswith(SCHEME):
        kind = "write postgresql://" if storage.startswith("postgres") else f"it takes {', '.join(NAMES)}"
        return f"is not known; {kind} or an address such as {SCHEME}me@host/database."
    parts, is_address = urlsplit(SCHEME), True
    try:
        parts = urlsplit(storage)
        _ = parts.port
    except ValueError:
        is_address = False
    if not is_address or parts.fragment or "@" in parts.path + parts.query:
        return (
            f"is no address such as {SCHEME}me@host:5432/database; leave the password to PGPASSWORD, to "
            "~/.pgpass, or to a variable that it names: ${VARIABLE}."
        )
    given = [parts.password, *(value for name, value in parse_qsl(parts.query) if name in _SECRETS)]
    if any(secret and not _VARIABLE.fullmatch(secret) for secret in given):
        return (
            "holds a password, which would be kept with the study; leave it to PGPASSWORD, to ~/.pgpass, or "
            "to a variable: ${VARIABLE} in its place."
        )
    return None


def expanded(address: str) -> str:
    """The address of a database with the values of the variables that it names: a secret.

    Raises:
        SlimnetError: a variable is not set.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise SlimnetError(f"storage names ${{{found[1]}}}, which is not set; export {found[1]}")
        return quote(os.environ[found[1]], safe="")

    return _VARIABLE.sub(value, address)


def public(address: str) -> str:
    """The address of a database as messages show it: without who logs in, and how."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def deletion(address: str, study: str) -> str:
    """The command that deletes a study from a database; the shell fills in the variables of the address."""
    parts = re.split(r"(\$\{\w+\})", address.replace(SCHEME, "postgresql+psycopg://", 1))
    url = "".join(f'"{part}"' if _VARIABLE.fullmatch(part) else shlex.quote(part) for part in parts if part)
    return f"optuna delete-study --study-name {shlex.quote(study)} --storage {url}"


def without_passwords(text: str) -> str:
    """A text in which neither an address nor a field holds a password."""
    return _FIELD.sub(r"\1***", _LOGIN.sub(r"\1***", text))


def without_values(text: str, address: str) -> str:
    """A text in which the variables that an address names stand for their values, which may be secret."""
    for name in _VARIABLE.findall(address):
        value = os.environ.get(name, "")
        if len(value) > 3:  # else it is no secret, and may be part of any word
            for spelling in (value, quote(value, safe="")):
                text = text.replace(spelling, f"${{{name}}}")
    return text
