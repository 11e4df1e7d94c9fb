"""Commands that delete: rm, gc. They show what would go, with its size, and ask first."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from slimnet.command_line import EXIT_USAGE
from slimnet.errors import SlimnetError
from slimnet.wording import file_size, plural
from sweeps.cli import studies
from sweeps.cli.options import RUNS, JsonOption, RunsOption
from sweeps.cli.show import print_json
from sweeps.config import Config, load_config, shipped_configs
from sweeps.config.storage import SCHEME, deletion, public
from sweeps.console import Console

EXIT_REFUSED = 1
EXIT_HELD = 3

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")]


def rm_command(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="The name of a study in the runs folder, or its config.")
    ],
    runs: RunsOption = RUNS,
    yes: YesOption = False,
) -> None:
    """Delete a study and the stages that only it has.

    It goes from its database too. Shows what would go, with its size, and asks. Single trials cannot be
    deleted, as the points of later trials follow from them.

    Exit status: 0 it is deleted; 1 you said no; 2 there is none, or no terminal to ask on; 3 it is being run.
    """
    from sweeps import removal
    from sweeps.study import check_free
    from sweeps.tracking.ledger import count_unsent

    folder = _find(study, runs)
    check_free(folder)
    console = Console()
    stages, why_not = _stages_to_delete(folder)
    console.say(f"{folder}: {file_size(removal.size_of(folder))}")
    if stages or not why_not:
        console.say(f"{plural(len(stages), 'stage')} that no other study refers to: {_size(stages)}")
    if why_not:
        console.say(why_not)
    if (database := _database_of(folder)) is not None:
        console.say(f"the study in {public(database.storage)}")
    if unsent := count_unsent(folder / "wandb"):
        sync = studies.command("sync", str(folder / "config.yaml"), "--runs", str(runs))
        console.say(f"{plural(unsent, 'W&B run')} in it, not on the server yet; to upload first: {sync}")
    _ask(f"Delete the study {folder.name}?", yes)
    with removal.removing(runs, [folder]):
        still, why_not_now = _stages_to_delete(folder)  # others may have begun to use some
        if database is not None:  # before the folder, from which it can be made again
            _delete_from_database(folder, database, console)
        removal.delete_study(folder)
        gone = list(removal.delete_stages(stage for stage in stages if stage in still))
    if why_not_now and not why_not:
        console.say(why_not_now)
    console.say(f"deleted: {folder} and {plural(len(gone), 'stage')}")


def gc_command(
    runs: RunsOption = RUNS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete what no study needs.

    That is: stages that none refers to, damaged files and databases that were set aside, and remains of
    deletions that were killed. Shows what would go, with its size, and asks.

    A study refers to the stages of its trials, and of the controls and repeats that its config asks for now.
    Where studies of another runs folder keep their stages too (`stages` in a config), all stages stay.

    Exit status: 0 nothing is left of it; 1 you said no; 2 no such folder, no terminal to ask on, or a study
    that cannot be read, which may need any stage: they stay; 3 a study is being run, or a process still holds
    a stage.
    """
    from sweeps import removal

    if as_json and not (dry_run or yes):
        raise SlimnetError("--json asks nothing, so it needs --dry-run or --yes")
    if not runs.is_dir():
        raise SlimnetError(f"there is no folder {runs}; name one with --runs")
    console = Console()
    items, unclear, shared = _unneeded(runs)
    for study, reason in unclear.items():
        rm = studies.command("rm", study.name, "--runs", str(runs))
        console.error(f"{reason}; until then no stage is deleted. Or delete the study: {rm}")
    if shared:
        console.error(shared)
    if as_json:
        print_json(
            [{"what": what, "path": str(path), "bytes": removal.size_of(path)} for what, path in items]
        )
    elif items:
        console.table(_by_kind(items))
        console.say(f"in all: {_size([path for _, path in items])}")
    elif not (unclear or shared):
        console.say(f"nothing to delete in {runs}: every stage belongs to a study")
    if dry_run or not items:
        raise typer.Exit(EXIT_USAGE if unclear else 0)
    _ask("Delete all of it?", yes)
    with removal.removing(runs, removal.studies_in(runs)):
        still = {path for _, path in _unneeded(runs)[0]}
        chosen = [path for _, path in items if path in still]
        stages = set(removal.stages_in(runs))
        gone = list(removal.delete_stages(path for path in chosen if path in stages))
        removal.delete_rest(path for path in chosen if path not in stages)
    left = len(stages.intersection(chosen)) - len(gone)
    if not as_json:
        console.say(
            "deleted" + (f", but for {plural(left, 'stage')} that a process still holds" if left else "")
        )
    if left:
        raise typer.Exit(EXIT_HELD)
    if unclear:
        raise typer.Exit(EXIT_USAGE)


def _find(study: str, runs: Path) -> Path:
    """The folder of a study, by its name or the config that it is of."""
    from sweeps import removal

    found = {folder.name: folder for folder in removal.studies_in(runs)}
    name = study
    if study not in found and (Path(study).is_file() or study in shipped_configs()):
        name = load_config(study).study
    if name not in found:
        raise SlimnetError(f"{runs} has no study {name}; it has: {', '.join(found) or 'none'}")
    return found[name]


def _stages_to_delete(study: Path) -> tuple[list[Path], str]:
    """The stages that only this study refers to; and why some or all of them have to stay, if so."""
    from sweeps import removal
    from sweeps.study import is_held

    runs = study.parent
    others = [other for other in removal.studies_in(runs) if other != study]
    stay, later = f"the stages of {study.name} stay", "; `gc` can delete them later"
    if running := [other.name for other in others if is_held(other)]:
        return [], f"{stay}, as {running[0]} is being run and may come to share them{later}"
    try:
        own = removal.stages_of(study)
    except SlimnetError as error:
        return [], f"{stay}, as {error}{later}"
    listed = [stage for stage in removal.stages_in(runs) if stage.resolve() in own]
    used, unclear = removal.used_by(others)
    if unclear:
        return [], f"{stay}, as {next(iter(unclear.values()))}{later}"
    return removal.without_shared(removal.unused(listed, used), runs)


def _database_of(study: Path) -> Config | None:
    """The config of a study that is in a database too, as far as is known."""
    from sweeps.study import kept_config

    try:
        config = kept_config(study)
    except SlimnetError:
        return None
    return config if config.storage.startswith(SCHEME) else None


def _delete_from_database(study: Path, config: Config, console: Console) -> None:
    """Delete a study from its database, or tell how."""
    from sweeps.study import open_study
    from sweeps.study.storage import delete_from_database

    try:
        delete_from_database(config, open_study(study, config).facts.uid)
    except SlimnetError as error:
        console.error(
            f"{study.name} stays in {public(config.storage)}: {error}. To delete it there: "
            f"{deletion(config.storage, config.study)}"
        )


def _unneeded(runs: Path) -> tuple[list[tuple[str, Path]], dict[Path, str], str]:
    """What no study needs, each with what it is; and what keeps others.

    That is: the studies that may need any stage, with the reason; and why stages stay that other runs folders
    may need, if there are any.
    """
    from sweeps import removal

    listed, found = removal.stages_in(runs), removal.studies_in(runs)
    used, unclear = removal.used_by(found)
    stages, shared = removal.without_shared([] if unclear else removal.unused(listed, used), runs)
    aside = [path for path in removal.set_aside(runs) if path.parent not in {*stages, *unclear}]
    items = [
        *((f"{path.parent.name} stages of no study", path) for path in stages),
        *(("damaged files and databases set aside", path) for path in aside),
        *(("remains of earlier deletions", path) for path in removal.leftovers(runs)),
    ]
    return items, unclear, shared


def _by_kind(items: Sequence[tuple[str, Path]]) -> list[dict[str, str | int]]:
    kinds = dict.fromkeys(what for what, _ in items)
    groups = {kind: [path for what, path in items if what == kind] for kind in kinds}
    return [{"what": kind, "count": len(paths), "size": _size(paths)} for kind, paths in groups.items()]


def _size(paths: Sequence[Path]) -> str:
    from sweeps import removal

    return file_size(sum(map(removal.size_of, paths)))


def _ask(question: str, yes: bool) -> None:
    """Ask whether to go on, unless the user has said so.

    Raises:
        SlimnetError: there is no terminal to ask on.
        typer.Exit: the answer is no.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise SlimnetError("nothing was deleted, as there is no terminal to ask on; say yes with --yes")
    if not typer.confirm(question):
        Console().say("nothing was deleted")
        raise typer.Exit(EXIT_REFUSED)
