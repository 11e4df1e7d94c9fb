"""The command that takes networks out of a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimnet.cli.export import Check, Formats, Taken
from slimnet.errors import SlimnetError
from sweeps.cli import studies
from sweeps.cli.options import RUNS, ConfigArgument, DataOption, JsonOption, RunsOption
from sweeps.cli.show import print_json
from sweeps.comparison import Comparison, best_of_front
from sweeps.console import Console
from sweeps.networks import check_factories
from sweeps.records import StudyRecord, TrialRecord
from sweeps.report.summary import constraints_unmet
from sweeps.stages import Store
from sweeps.study import check_data, open_study

if TYPE_CHECKING:
    from slimnet.export.files import Exported


def export_command(
    config: ConfigArgument,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="[TRIAL] OUT",
            help="The number of a complete trial, unless --best or --front chooses; then a .onnx, .pt2, "
            ".safetensors or .pt file, or a folder for several and a model card.",
        ),
    ],
    best: Annotated[
        bool,
        typer.Option(
            "--best",
            help="The trial that the report's headline names: the smallest network within a point of the "
            "dense one, by validation accuracy, else the most accurate.",
        ),
    ] = False,
    front: Annotated[
        bool, typer.Option("--front", help="Every trial on the Pareto front, each in a folder in OUT.")
    ] = False,
    formats: Formats = None,
    taken: Taken = "float",
    check: Check = True,
    runs: RunsOption = RUNS,
    data_dir: DataOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write networks of a study for use elsewhere.

    Their normalisation is inside, and a model card beside them.
    Each file is read back and run on the whole test split, and kept if it scores what the study reports.
    """
    number, out = _targets(targets, chosen=best or front)
    if best and front:
        raise SlimnetError("--best is one trial and --front are several; choose one of them")
    record = studies.read(config, runs)
    comparison = Comparison(record)
    named = studies.Named(config, record.config, runs, data_dir)
    trials = _trials(record, comparison, number, front, named)

    from slimnet.cli.files import check_output, tidied
    from slimnet.export.files import (
        CARD,
        chosen_formats,
        export_file,
        export_folder,
        folder_names,
        refuse_existing,
        target_format,
        written_files,
    )
    from sweeps.export import card_of, folder_of, front_card, open_trial
    from sweeps.files import write_text

    kind, (chosen, note) = target_format(out), chosen_formats(formats or [])
    if kind is not None and (front or (formats and [kind] != chosen)):
        several = "--front writes several networks" if front else f"it is one file, {kind.name}"
        raise SlimnetError(f"{out}: {several}; name a folder")
    folders = {trial.number: out / folder_of(trial) if front else out for trial in trials}
    if kind is not None:
        for target in written_files(out, kind):
            check_output(target, force)
    elif not force:
        for folder in folders.values():
            refuse_existing(folder, folder_names(chosen))
        refuse_existing(out, [CARD])
    study = open_study(runs / record.name, record.config)
    if check:  # of the networks' code, the score on these data tells whether it still makes what was trained
        way_out = "put them back as they were, or leave the check out with --no-check"
        check_data(study, record.config, way_out)
    else:
        check_factories(record.config, study.facts.networks)
    console = Console()
    store = Store(runs, record.config.stages)
    found: list[tuple[int, Exported]] = []
    with tidied():
        for trial in trials:
            artifact, test = open_trial(record, trial, store, data_dir, pixels=taken, check=check)
            if kind is not None:
                written = [export_file(artifact, out, kind, test)]
            else:
                write_card, folder = card_of(record, comparison, trial), folders[trial.number]
                written = export_folder(artifact, folder, chosen, test, write_card, force=force)
            found += [(trial.number, one) for one in written]
            for one in written if not as_json else []:
                console.say(f"trial {trial.number}: {one.path} ({one.score or 'not checked'})")
    if front:
        write_text(out / CARD, front_card(record, comparison))
    if as_json:
        print_json([{"trial": number, **one.record()} for number, one in found])
    elif note and kind is None:
        console.say(f"note: {note}")


def _targets(targets: list[str], *, chosen: bool) -> tuple[int | None, Path]:
    """The number of the trial, where one is given, and the output."""
    *before, out = targets
    if chosen and not before:
        return None, Path(out)
    if not chosen and len(before) == 1 and before[0].isdecimal():
        return int(before[0]), Path(out)
    usage = "--best OUT or --front OUT, without a trial" if chosen else "TRIAL OUT, --best OUT or --front OUT"
    raise SlimnetError(f"{' '.join(targets)}: give {usage}, where TRIAL is a number, as `status` shows them")


def _trials(
    record: StudyRecord, comparison: Comparison, number: int | None, front: bool, named: studies.Named
) -> list[TrialRecord]:
    """The trials to export, all of them complete."""
    if number is None:
        best = best_of_front(record, comparison)
        if unmet := constraints_unmet(record):
            raise SlimnetError(f"{unmet}; choose one by its number, as `status` shows them")
        if best is None:
            raise SlimnetError(f"no trial of {record.name} is complete yet; {named.next_step()}")
        return [record.trials[number] for number in record.front] if front else [best]
    if number >= len(record.trials):
        has = f"trials 0 to {len(record.trials) - 1}" if record.trials else "no trial yet"
        raise SlimnetError(f"there is no trial {number}: the study {record.name} has {has}")
    trial = record.trials[number]
    if trial.state == "failed":
        again = named.command("retry")
        raise SlimnetError(f"trial {number} failed ({trial.reason}); run it again with: {again} {number}")
    if trial.state == "stopped":
        raise SlimnetError(f"trial {number} was stopped early ({trial.reason}); choose a complete one")
    if trial.state == "running":
        raise SlimnetError(f"trial {number} is not complete yet; {named.next_step()}")
    return [trial]
