"""Addresses of databases: which hold a password, and how messages show them."""

from __future__ import annotations

import pytest

from sweeps.config.storage import storage_problem, without_passwords, without_values


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:hunter2@host:5432/db",
        "postgresql://me:hun:t/er2 @hunter2@host/db",
        "postgresql://me@corp:hunter2@host/db",
        "postgresql://me@corp:hunter2@[::1]:5432/db",
        "postgresql://me:hunter2",
        "postgresql://me:hunter2 hunter2/db",
        "postgresql://me:5432hunter2/db",
        "postgresql://me@host/db?sslmode=require&password=hunter2&sslpassword=hunter2",
        "--set storage=host=x user=me password=hunter2 dbname=db",
        "host=x password = 'hunter2 \\'hunter2'",
        "PGPASSWORD=hunter2",
        '{"host": "x", "password": "hunter2"}',
    ],
)
def test_a_text_is_shown_without_passwords(text: str) -> None:
    assert "***" in without_passwords(text)
    assert "hunter2" not in without_passwords(text)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me@host:5432/db",
        "postgresql://host:5432",
        '"postgresql://host:5432"',
        "postgresql://me@[::1]:5432/db?sslmode=require",
        "s3://bucket/a:b",
    ],
)
def test_a_text_without_a_password_is_shown_as_it_is(text: str) -> None:
    assert without_passwords(text) == text


def test_of_an_address_the_rest_is_shown() -> None:
    assert without_passwords("--set storage=postgresql://me:a@b@host:1/db?password=x&a=b") == (
        "--set storage=postgresql://me:***@host:1/db?password=***&a=b"
    )


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("password=hunter2", True),
        ("password=hunter2&password=${X}", True),
        ("password=${X}&pass%77ord=hunter2", True),
        ("password=${X}&sslpassword=${Y}&sslmode=require", False),
    ],
)
def test_each_password_of_a_query_is_looked_at(query: str, problem: bool) -> None:
    found = storage_problem(f"postgresql://me@host/db?{query}")
    assert (found is not None) == problem
    assert "hunter2" not in (found or "")


def test_values_of_variables_are_shown_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGIN", "me:hunter2")
    monkeypatch.setenv("HOST", "db")
    monkeypatch.setenv("EMPTY", "")
    address = "postgresql://${LOGIN}@${HOST}/${EMPTY}${UNSET}"
    said = 'db: no dbs for "me:hunter2" (me%3Ahunter2)'
    assert without_values(said, address) == 'db: no dbs for "${LOGIN}" (${LOGIN})'
