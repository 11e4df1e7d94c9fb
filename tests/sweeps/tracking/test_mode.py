"""How the mode is decided, with wandb's own look-up of credentials."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fake_wandb import API_KEY, FakeWandb
from projected import Wait

from slimnet.errors import SlimnetError
from sweeps.tracking import decide_mode


def give_netrc(path: Path, host: str) -> None:
    path.write_text(f"machine {host}\n  login user\n  password {API_KEY}\n")
    path.chmod(0o600)


def test_without_a_key_it_is_offline_and_says_how_to_upload() -> None:
    mode = decide_mode("auto", config="fashion-mini")

    assert mode.value == "offline"
    assert "no API key" in mode.why
    assert mode.why.endswith(f"Upload later with: {sys.orig_argv[0]} -m sweeps sync fashion-mini")


def test_a_key_in_the_environment_makes_it_online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.example")

    mode = decide_mode("auto")

    assert mode.value == "online"
    assert "http://wandb.example" in mode.why


@pytest.mark.parametrize("host", ["api.wandb.ai", "api.forge.coreweave.com"])
def test_a_key_from_wandb_login_makes_it_online(host: str) -> None:
    give_netrc(Path.home() / ".netrc", host)

    assert decide_mode("auto").value == "online"


def test_a_key_for_another_server_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    give_netrc(tmp_path / "netrc", "elsewhere.example")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    assert decide_mode("auto").value == "offline"


def test_the_setting_comes_before_the_environment_before_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    monkeypatch.setenv("WANDB_MODE", "dryrun")

    assert decide_mode("auto").value == "offline"
    assert "WANDB_MODE is dryrun" in decide_mode("auto").why
    assert decide_mode("disabled").value == "disabled"


def test_online_by_name_asks_the_server(server: FakeWandb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")

    mode = decide_mode("online")

    assert mode.value == "online"
    assert server.url in mode.why
    assert "wandb.mode is online" in mode.why


def test_online_by_name_without_a_key_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(
        SlimnetError, match=r"wandb.mode is online, and there is no API key for .*wandb login"
    ):
        decide_mode("online")
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(SlimnetError, match=r"WANDB_MODE is online, .* or use --wandb offline"):
        decide_mode("auto")


def test_online_by_name_with_a_malformed_key_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(SlimnetError, match=r"W&B cannot be used: .*WANDB_API_KEY invalid"):
        decide_mode("online")


@pytest.mark.parametrize("trouble", ["the key is refused", "it does not answer"])
def test_online_by_name_is_an_error_where_the_server_does_not_take_the_key(
    server: FakeWandb, wait: Wait, trouble: str
) -> None:
    wait(2)
    if trouble == "the key is refused":
        server.refuse_key = True
    else:
        server.stop()
    with pytest.raises(SlimnetError, match=r"W&B cannot be used: .*--wandb auto"):
        decide_mode("online")


def test_online_by_name_without_wandb_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SlimnetError, match="wandb is not installed"):
        decide_mode("online")


def test_a_key_that_cannot_be_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")

    mode = decide_mode("auto")

    assert mode.value == "offline"
    assert "WANDB_API_KEY invalid" in mode.why


def test_the_settings_file_of_wandb_counts() -> None:
    settings = Path.home() / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text("[default]\nmode = offline\n")
    give_netrc(Path.home() / ".netrc", "api.wandb.ai")

    mode = decide_mode("auto")

    assert mode.value == "offline"
    assert "settings file" in mode.why


def test_an_unknown_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "of")

    with pytest.raises(SlimnetError, match="WANDB_MODE is 'of'; use online, offline or disabled"):
        decide_mode("auto")


def test_without_wandb_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)

    mode = decide_mode("auto")

    assert mode.value == "disabled"
    assert "pip install wandb" in mode.why
