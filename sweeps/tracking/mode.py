"""Whether a sweep uses W&B, decided before the first run so that wandb never prompts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from slimnet.errors import SlimnetError
from slimnet.invocation import program
from slimnet.wording import one_line
from sweeps.tracking import sdk

ModeName = Literal["online", "offline", "disabled"]

# The values that wandb accepts for WANDB_MODE, except "shared" (several writers to one run).
_WANDB_MODES: dict[str, ModeName] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}

ANSWER_SECONDS = 15  # to wait for a server that must be used


@dataclass(frozen=True)
class Mode:
    """How W&B is used, and a line that tells the user why."""

    value: ModeName
    why: str


def decide_mode(setting: str, config: str = "CONFIG") -> Mode:
    """Decide how W&B is used. Never prompts; only where "online" is asked for is the server asked too.

    Args:
        setting: "online", "offline", "disabled" or "auto", from the config or the command line. With "auto",
            WANDB_MODE decides, then wandb's settings file, then whether there is an API key for the server;
            without any of them W&B is used offline.
        config: the user's name for the config, for the line that says how to upload later.

    Returns:
        The mode and why.

    Raises:
        SlimnetError: WANDB_MODE is none of wandb's modes; or "online" is asked for, and there is no usable
            key or the server does not answer.
    """
    wish, source = _explicit(setting)
    if wish == "disabled":
        return Mode("disabled", f"W&B: off ({source})")
    later = f"Upload later with: {program('sweeps')} sync {config}"
    if wish == "offline" and find_spec("wandb") is not None:
        return Mode("offline", f"W&B: offline ({source}). {later}")
    if wish == "online":
        return Mode("online", f"W&B: online, {_online_host(source)} ({source})")
    if find_spec("wandb") is None:
        return Mode("disabled", "W&B: off (wandb is not installed; get it with: pip install wandb)")
    try:
        account = sdk.find_account()
    except Exception as error:
        return Mode("offline", f"W&B: offline ({sentence(error)}). {later}")
    if account.configured_mode in ("offline", "disabled"):
        configured = _WANDB_MODES[account.configured_mode]
        return Mode(configured, f"W&B: {configured} (set in wandb's settings file). {later}")
    if account.has_key:
        return Mode("online", f"W&B: online, {account.host}")
    return Mode("offline", f"W&B: offline (no API key found; {login()}). {later}")


def require_key(why: str, instead: str = "") -> sdk.Account:
    """The account on the server, for what cannot do without it. The server is not asked.

    Args:
        why: it is needed, as the beginning of the message: "sync needs W&B".
        instead: what the user can do else, as its end.

    Raises:
        SlimnetError: wandb is not installed, or there is no usable key; and what to do.
    """
    otherwise = f", or {instead}" if instead else ""
    if find_spec("wandb") is None:
        raise SlimnetError(f"{why}, and wandb is not installed: pip install wandb{otherwise}")
    try:
        account = sdk.find_account()
    except Exception as error:
        raise SlimnetError(
            f"{why}, and W&B cannot be used: {sentence(error)}; {login()}{otherwise}"
        ) from None
    if not account.has_key:
        raise SlimnetError(f"{why}, and there is no API key for {account.host}: {login()}{otherwise}")
    return account


def _online_host(source: str) -> str:
    """The server that is to be used, which is asked whether it takes the key.

    Raises:
        SlimnetError: it cannot be used, and what to do.
    """
    otherwise = "use --wandb offline and upload later, or --wandb auto to do so only if it must"
    account = require_key(source, otherwise)
    try:
        sdk.connect(ANSWER_SECONDS)
    except Exception as error:
        raise SlimnetError(
            f"{source}, and W&B cannot be used: {sentence(error)}. Mend that, or {otherwise}."
        ) from None
    return account.host


def login() -> str:
    """How to give wandb a key."""
    return f"set one with: {program('wandb')} login, or in WANDB_API_KEY"


def _explicit(setting: str) -> tuple[ModeName | None, str]:
    """The mode that is set explicitly and what sets it; None if nothing does."""
    if setting != "auto":
        return _named(setting, "wandb.mode"), f"wandb.mode is {setting}"
    if value := os.environ.get("WANDB_MODE"):
        return _named(value, "WANDB_MODE"), f"WANDB_MODE is {value}"
    return None, ""


def _named(value: str, source: str) -> ModeName:
    if value not in _WANDB_MODES:
        raise SlimnetError(f"{source} is {value!r}; use online, offline or disabled.")
    return _WANDB_MODES[value]


def sentence(error: Exception) -> str:
    """An exception's message on one line, without a full stop at its end."""
    return one_line(error).rstrip(".") or type(error).__name__
