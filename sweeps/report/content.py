"""The content of the report, from a study's records, independent of how it is shown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath
from types import MappingProxyType

from slimnet.wording import plural
from sweeps.comparison import Comparison
from sweeps.records import StudyRecord
from sweeps.report.beside import simpler_ways
from sweeps.report.blocks import Block, Code, Paragraph, Report, Section
from sweeps.report.cards import trial_cards
from sweeps.report.figures.finetuning import fine_tuning
from sweeps.report.figures.front import pareto
from sweeps.report.figures.gamma import scaling_factors
from sweeps.report.figures.hypervolume import hypervolume_grows
from sweeps.report.figures.importance import importance
from sweeps.report.figures.marks import trial_text
from sweeps.report.figures.pairs import before_and_after
from sweeps.report.figures.parallel import parallel_coordinates
from sweeps.report.figures.ratios import over_the_ratio, ratio_curves
from sweeps.report.figures.sparse import SparsePass, changing, read_pass, sparse_training, steering
from sweeps.report.noise import how_sure
from sweeps.report.provenance import how_it_was_run
from sweeps.report.runs import a_few_lambdas
from sweeps.report.shading import Shading
from sweeps.report.summary import epochs_saved, headline, how_far, none_complete, subject
from sweeps.report.trials import all_trials, networks
from sweeps.report.view import StudyView
from sweeps.report.wording import METRICS
from sweeps.stages import KINDS

MOST_DETAILS = 20  # failures shown in detail; of a thousand with one cause, a few are enough


def report(
    study: StudyRecord,
    offered: Mapping[int, str],
    folder: PurePath,
    comparison: Comparison | None = None,
    runs: Mapping[int, str] = MappingProxyType({}),
) -> Report:
    """The whole content.

    Args:
        study: what is reported.
        offered: the address of the networks that lie beside the report, by trial.
        folder: the report's, as a program that loads a network would name it.
        comparison: the study's comparison; made if not given.
        runs: the address of the runs on W&B, by trial.
    """
    view = StudyView(study, comparison)
    shading = Shading.of(view)
    passes = [read_pass(view, shading, number) for number in range(1, view.passes + 1)]
    sections = (
        _front(view, shading),
        simpler_ways(view),
        how_sure(view),
        _search(view, shading),
        _sparse_training(passes, shading),
        _scaling_factors(view, passes[0]),
        _where_lambda_matters(view, shading),
        _before_and_after(view, shading),
        _fine_tuning(view, shading),
        all_trials(view, shading, runs),
        trial_cards(view, shading, offered, runs),
        networks(view, shading, offered, folder),
        how_it_was_run(study),
        _stopped(view),
        _failures(view),
    )
    return Report(
        study.name,
        subject(study),
        headline(study, view.comparison),
        how_far(study),
        tuple(part for part in sections if part.blocks),
        {trial.number: trial_text(view, trial) for trial in study.trials},
    )


def _front(view: StudyView, shading: Shading) -> Section:
    objectives = " and ".join(
        f"{direction} {METRICS.get(name, name)}"
        for name, direction in view.study.config.search.objectives.items()
    )
    choice = Paragraph(
        f"The sweep was asked to {objectives}. Selection uses the validation split alone; accuracy on the "
        "test split is measured and reported, but not used for any choice."
    )
    shown = pareto(view, shading) if view.complete else Paragraph(f"{none_complete(view.study)}.")
    return Section("front", "Pareto front", (choice, shown))


def _search(view: StudyView, shading: Shading) -> Section:
    figures = (parallel_coordinates(view, shading), importance(view), hypervolume_grows(view))
    return Section("search", "What the search found", tuple(figure for figure in figures if figure))


def _sparse_training(passes: list[SparsePass], shading: Shading) -> Section:
    blocks: list[Block] = []
    for sparse in passes:
        blocks += [sparse_training(sparse, shading)] if sparse.courses else []
        blocks += [steering(sparse, shading)] if changing(sparse) else []
    return Section("sparse", "Accuracy over sparse training", tuple(blocks))


def _scaling_factors(view: StudyView, first: SparsePass) -> Section:
    chosen = a_few_lambdas(first.courses, view.best.first("sparse").key if view.best else None)
    blocks = (scaling_factors(view, first, chosen),) if chosen else ()
    return Section("gamma", "Scaling factors", blocks)


def _where_lambda_matters(view: StudyView, shading: Shading) -> Section:
    curves = ratio_curves(view, shading)
    blocks: list[Block] = [over_the_ratio(view, shading, curves)] if curves else []
    reasons = Counter(stage.failure["reason"] for stage in view.study.curves.values() if stage.failure)
    for reason, number in reasons.items():
        blocks.append(Paragraph(f"{plural(number, 'line')} could not be computed: {reason}"))
    return Section("ratios", "Where λ matters", tuple(blocks))


def _before_and_after(view: StudyView, shading: Shading) -> Section:
    pruned = any(trial.last("prune").metrics for trial in view.study.trials)
    blocks = (before_and_after(view, shading),) if pruned else ()
    return Section("pruned", "Right after pruning, and after fine-tuning", blocks)


def _fine_tuning(view: StudyView, shading: Shading) -> Section:
    begun = any(trial.last("finetune").epochs_done for trial in view.study.trials)
    return Section("finetune", "Fine-tuning", (fine_tuning(view, shading),) if begun else ())


def _stopped(view: StudyView) -> Section:
    """What stopping trials early has saved, and why each of them was stopped."""
    trials = view.study.stopped
    saved = [Paragraph(f"{epochs_saved(view.study)}.")] if trials else []
    why = (f"Trial {trial.number} ({view.trial_label(trial)}): {trial.reason}." for trial in trials)
    return Section("stopped", "Trials stopped early", (*saved, *map(Paragraph, why)))


def _failures(view: StudyView) -> Section:
    """Every failed trial with its reason, and the details of the first few failed stages, each once."""
    blocks: list[Block] = []
    detailed: set[str] = set()
    for trial in view.study.trials:
        if trial.state != "failed":
            continue
        broken = next((stage for stage in trial.stages if stage.failure), None)
        of_pass = f" of pass {broken.pass_number}" if broken and view.passes > 1 else ""
        where = f" in {KINDS[broken.kind].title}{of_pass}" if broken else ""
        reason = trial.reason or "no reason was kept"
        blocks.append(Paragraph(f"Trial {trial.number} ({view.trial_label(trial)}) failed{where}: {reason}"))
        detail = broken.failure.get("detail") if broken and broken.failure else None
        if broken and detail and broken.key not in detailed and len(detailed) < MOST_DETAILS:
            detailed.add(broken.key)
            text = detail if isinstance(detail, str) else json.dumps(detail, indent=2, default=str)
            blocks.append(Code(text, summary=f"Details of trial {trial.number}"))
    return Section("failures", "Failed trials", tuple(blocks))
