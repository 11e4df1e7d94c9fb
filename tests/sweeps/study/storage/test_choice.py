"""Which storage has a study whose folder has lost its record."""

from __future__ import annotations

from pathlib import Path

import pytest
from entries import ENTRIES, FACTS, config
from postgres_server import PASSWORD, Server

from sweeps.study import keep_config, open_study
from sweeps.study.database import Database
from sweeps.study.storage import chosen_storage


@pytest.mark.parametrize("now", ["sqlite", "journal", "postgresql"])
def test_the_configs_own_storage_counts_before_one_of_an_earlier_run(
    now: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"sqlite": config(storage="sqlite"), "journal": config(storage="journal")}
    if now == "postgresql":
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        server: Server = request.getfixturevalue("postgres")
        settings[now] = config(storage=server.database("choice"))
    for kind, its in settings.items():
        entries = ENTRIES if kind == now else ENTRIES[:1]
        Database.open(chosen_storage(its, tmp_path), its, FACTS, entries).close()
    keep_config(tmp_path, settings[now])
    assert open_study(tmp_path, settings[now]).points == [entry.point for entry in ENTRIES]
