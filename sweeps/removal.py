"""What of a runs folder can be deleted, and its deletion.

    studies         runs/<study>/
    stages          runs/stages/<kind>/<key>/, if no study in the folder refers to them
    copies          the same of stages at a URL, also in the folder that SLIMNET_SCRATCH names; what is at the
                    URL, and in folders elsewhere that `stages` names, stays, as other runs folders may
                    refer to it
    set aside       files that were damaged (*.damaged), and databases that were made anew (study.db.old)

A folder that is deleted gets another name first, which no command reads. So there is never half a study or
half a stage, and `leftovers` finds what a deletion that was killed has left.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from slimnet.errors import SlimnetError
from sweeps.stages import StageFolder, Store
from sweeps.stages.store import COPIES, SCRATCH, USED_BY
from sweeps.state import State
from sweeps.study import DATABASE, JOURNAL, check_free, kept_config, open_study, removal_lock

RECORD = ("config.yaml", "study.json", DATABASE)  # at least one of which every study has
GONE = ".removed-"  # before the name of a folder that is being deleted


def studies_in(runs: Path) -> list[Path]:
    """The folders of the studies in a runs folder, by name."""
    return [folder for folder in _folders(runs) if is_study(folder)]


def is_study(folder: Path) -> bool:
    """Whether a folder is that of a study."""
    return any((folder / name).exists() for name in RECORD)


def stages_in(runs: Path) -> list[Path]:
    """The folders of all stages in a runs folder, and of the copies of stages at URLs."""
    return [stage for kind in _kinds_in(runs) for stage in _folders(kind)]


def stages_of(study: Path) -> set[Path]:
    """The resolved paths of what a study refers to: stages, which may not exist, and the folder of weights.

    Args:
        study: its folder.

    Raises:
        SlimnetError: the study cannot be read, so that this is not known.
    """
    runs = study.parent
    try:
        config = kept_config(study)
        state = State(config, open_study(study, config), Store(runs, config.stages))
        if again := state.to_be_computed_again():
            raise SlimnetError(f"{again}; `run` it first")
    except SlimnetError as error:
        raise SlimnetError(f"it is not known which stages are those of {study.name}: {error}") from error
    weights = [Path(config.model.init).parent] if config.model.init else []
    return {folder.resolve() for folder in (*state.folders(), *weights)}


def used_by(studies: Iterable[Path]) -> tuple[set[Path], dict[Path, str]]:
    """What some studies refer to, as `stages_of` has it; and those of which it is not known, with the reason.

    List the stages before this is called: then one that a running study has just begun is known as its own.
    """
    used: set[Path] = set()
    unclear: dict[Path, str] = {}
    for study in studies:
        try:
            used |= stages_of(study)
        except SlimnetError as error:
            unclear[study] = str(error)
    return used, unclear


def unused(stages: Iterable[Path], used: Collection[Path]) -> list[Path]:
    """Those stages that are not among what studies refer to."""
    return [stage for stage in stages if stage.resolve() not in used]


def without_shared(stages: Iterable[Path], runs: Path) -> tuple[list[Path], str]:
    """Those stages in whose folder no other runs folder keeps stages too; and why the others stay, if any."""
    found, why = list[Path](), ""
    markers = {root: [known for known in _users(root) if known[1] != runs.resolve()] for root in _roots(runs)}
    for stage in stages:
        if others := markers.get(stage.parent.parent):
            file, user = others[0]
            why = (
                f"stages in {stage.parent.parent} stay, as {user} keeps stages there too; "
                f"if it needs them no more, delete {file}"
            )
        else:
            found.append(stage)
    return found, why


def set_aside(runs: Path) -> list[Path]:
    """The files that were damaged, and the databases that were made anew."""
    damaged = (path for stage in stages_in(runs) for path in sorted(stage.glob("*.damaged*")))
    names = [f"{name}.old*" for name in (DATABASE, JOURNAL)]
    databases = (path for study in studies_in(runs) for name in names for path in sorted(study.glob(name)))
    return [*damaged, *databases]


def leftovers(runs: Path) -> list[Path]:
    """What a deletion that was killed has left."""
    return [path for folder in (runs, *_kinds_in(runs)) for path in sorted(folder.glob(f"{GONE}*"))]


def size_of(path: Path) -> int:
    """The bytes in a file or a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_symlink() or file.is_file())


@contextmanager
def removing(runs: Path, studies: Iterable[Path]) -> Iterator[None]:
    """Keep every study of a runs folder from being begun or continued while something is deleted.

    Raises:
        StudyBusyError: one of `studies` is being run.
    """
    with removal_lock(runs):
        for study in studies:
            check_free(study)
        yield


def delete_study(study: Path) -> None:
    """Delete the folder of a study, but not its stages; while `removing`."""
    _delete(_renamed(study))


def delete_stages(stages: Iterable[Path]) -> Iterator[Path]:
    """Delete stages, while `removing`; yields each that is gone. One that is still being computed stays."""
    for stage in stages:
        with StageFolder(stage).hold(lambda: False, wait=False) as alone:
            if not alone:
                continue
            moved = _renamed(stage)
        _delete(moved)
        yield stage


def delete_rest(paths: Iterable[Path]) -> None:
    """Delete files that were set aside, and what a deletion that was killed has left."""
    for path in paths:
        _delete(path)


def _delete(path: Path) -> None:
    """Delete a folder or a file; of a link, what it leads to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _renamed(folder: Path) -> Path:
    return folder.rename(folder.with_name(f"{GONE}{folder.name}-{secrets.token_hex(4)}"))


def _kinds_in(runs: Path) -> list[Path]:
    """The folders of all kinds of stages in a runs folder."""
    return [kind for root in _roots(runs) for kind in _folders(root)]


def _roots(runs: Path) -> list[Path]:
    """The folders in which a runs folder has stages, or copies of stages at URLs."""
    root, scratch = Store(runs).root, os.environ.get(SCRATCH)
    elsewhere = sorted(Path(scratch).absolute().glob(f"{COPIES}*")) if scratch else []
    own = [copies for copies in elsewhere if runs.resolve() in (user for _, user in _users(copies))]
    return list(dict.fromkeys([root, *sorted(root.glob(f"{COPIES}*")), *own]))


def _users(root: Path) -> list[tuple[Path, Path]]:
    """The files that name the runs folders which keep stages in a folder outside of them, and these."""
    return [(file, Path(file.read_text().strip())) for file in sorted(root.glob(f"{USED_BY}*"))]


def _folders(parent: Path) -> list[Path]:
    """The folders in a folder that are not being deleted, by name; none where it does not exist."""
    found = sorted(parent.iterdir()) if parent.is_dir() else []
    return [folder for folder in found if folder.is_dir() and not folder.name.startswith(".")]
