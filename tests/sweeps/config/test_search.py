"""The search section: samplers, lists of points, and what does not go together."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.config import Config, ConfigError, dump_config, load_config
from sweeps.config.space import branch_of, branches, contains, count_points
from sweeps.study.config_file import check_config, keep_config

POINTS = "[{sparse.lambda: 0.01, prune.ratio: 0.5}, {sparse.lambda: 0.002, prune.ratio: 0.9}]"
CONFIG = """\
data: {name: fashion-mini, image_size: 14}
model: {name: resnet, blocks: [1]}
search:
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a config with lines of its search section, and returns the file."""

    def write(*lines: str) -> Path:
        file = tmp_path / "searched.yaml"
        file.write_text(CONFIG + "".join(f"  {line}\n" for line in lines))
        return file

    return write


def refused(file: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    return str(caught.value).replace(f"{file.parent}/", "").splitlines()


def again(config: Config, folder: Path) -> Config:
    """The config after it has been written and read."""
    (folder / "again.yaml").write_text(dump_config(config))
    return load_config(folder / "again.yaml")


def test_a_list_of_points_needs_neither_space_nor_trials(write: Write, tmp_path: Path) -> None:
    config = load_config(write(f"points: {POINTS}"))
    assert config.search.trials == 2
    values = {path: entry.values() for path, entry in config.search.space.items()}
    assert values == {"sparse.lambda": [0.01, 0.002], "prune.ratio": [0.5, 0.9]}
    assert again(config, tmp_path) == config


def test_a_list_of_points_may_be_the_beginning(write: Write) -> None:
    space = "space: {sparse.lambda: {log: [0.001, 0.1]}, prune.ratio: [0.5, 0.7, 0.9]}"
    assert load_config(write(f"points: {POINTS}", space, "trials: 9")).search.trials == 9
    grid = "space: {sparse.lambda: [0.01, 0.002], prune.ratio: [0.5, 0.7, 0.9]}"
    assert load_config(write("sampler: grid", f"points: {POINTS}", grid)).search.trials == 6


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["points: []"], "search.space is missing; it takes at least one field, or give points."),
        (["points: [{prune.ratio: 0.5}, {prune.ratio: 0.5}]"], "points.1 is the same point as 0; keep one."),
        (["points: [{prune.ratio: 1.5}]"], "points.0.prune.ratio is 1.5; prune.ratio takes a number"),
        (["points: [{prune.rato: 0.5}]"], "prune.rato cannot be searched; did you mean prune.ratio?"),
        (["points: [{sparse.penalty: L1}]"], 'or polarization, not "L1" (did you mean l1?).'),
        (
            ["points: [{prune.ratio: 0.5}, {sparse.lambda: 0.1}]"],
            "points.0 has no sparse.lambda; a point has",
        ),
        (
            ["points: [{prune.ratio: 0.95}]", "space: {prune.ratio: {range: [0.5, 0.9]}}"],
            "points.0.prune.ratio is 0.95, which search.space.prune.ratio does not have; widen it.",
        ),
        (
            ["points: [{prune.ratio: 0.5, sparse.lambda: 0.1}]", "space: {prune.ratio: [0.5]}"],
            "points.0.sparse.lambda is not in search.space; add it there, or remove it here.",
        ),
        (["points: 5"], "search.points is 5; it takes a list"),
        (
            ["points: [{prune.params: 50%}, {prune.params: 50.0%}]"],
            'points.1.prune.params is "50.0%", which is "50%" elsewhere; spell it alike.',
        ),
        (
            ["points: [{prune.ratio: 0.5}]", "space: {prune.ratio: {range: [0.5, 0.9]}}"],
            "search.trials is missing; sampler tpe needs a number of points to try.",
        ),
    ],
)
def test_points_are_of_the_space(write: Write, lines: list[str], message: str) -> None:
    (line,) = refused(write(*lines))
    assert message in line


SPACE = "space: {prune.ratio: [0.5, 0.9]}"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["sampler: tep", "trials: 2"],
            'search.sampler is "tep"; did you mean tpe? It takes tpe, nsga2, nsga3, gp, random or',
        ),
        (
            ["objectives: {val_accuracy: maximise, params: minimize}", "trials: 2"],
            '"params": "minimize"}; did you mean maximize? It takes one or more of the keys val_accuracy,',
        ),
        (["sampler: grid", "args: {a: 1}"], 'search.args is {"a": 1}, but a grid takes none; remove it.'),
        (["args: {seed: 1}", "trials: 2"], "search.args.seed is not needed: all draws depend on the seed"),
        (["path: .", "trials: 2"], "but only a sampler of yours is looked for; remove it."),
        (["sampler: gp"], "search.trials is missing; sampler gp needs a number of points to try."),
        (["sampler: grid", "trials: 3"], "search.trials is 3, more than the grid's points; use at most 2."),
    ],
)
def test_what_does_not_go_with_a_sampler_is_refused(write: Write, lines: list[str], message: str) -> None:
    (line,) = refused(write(SPACE, *lines))
    assert message in line


def test_a_sampler_of_the_users_own_is_beside_the_config(write: Write, tmp_path: Path) -> None:
    config = load_config(write(SPACE, "trials: 2", "sampler: mine:quick", "args: {depth: [1, 2]}"))
    assert config.search.path == tmp_path
    assert again(config, tmp_path).search == config.search


SEARCH = (SPACE, "trials: 2")


def test_constraints_are_bounds_of_metrics(write: Write, tmp_path: Path) -> None:
    config = load_config(write(*SEARCH, "constraints: {val_accuracy: '>= 0.8', params: <=1e5}"))
    search = config.search
    assert search.violations({"val_accuracy": 0.6, "params": 150_000}) == pytest.approx(
        {"val_accuracy": 0.25, "params": 0.5}
    )
    assert search.allows({"val_accuracy": 0.8, "params": 100_000})
    assert not search.allows({"val_accuracy": 0.8, "params": 100_001})
    assert not search.allows({"val_accuracy": 0.7999, "params": 1})
    assert again(config, tmp_path).search == search


def test_limits_of_earlier_configs_are_constraints(write: Write) -> None:
    limits = load_config(write(*SEARCH, "limits: {params: 100000, val_accuracy: 0.8, latency_ms: 2.5}"))
    bounds = "{params: <= 100000, val_accuracy: '>= 0.8', latency_ms: <= 2.5}"
    assert limits == load_config(write(*SEARCH, f"constraints: {bounds}"))
    assert limits.judges_latency
    assert "limits" not in dump_config(limits)


def test_a_path_that_is_no_text_is_refused(write: Write) -> None:
    (line,) = refused(write(*SEARCH, "sampler: mine:quick", "path: 5"))
    assert "search.path is 5; it takes" in line


@pytest.mark.filterwarnings("error")
def test_listed_points_may_hold_lists(write: Write, tmp_path: Path) -> None:
    config = load_config(write("points: [{model.blocks: [1, 1]}, {model.blocks: [1, 2]}]"))
    assert again(config, tmp_path) == config


def test_a_bound_is_the_same_however_it_is_spelled(write: Write) -> None:
    one, other = (
        load_config(write(*SEARCH, f"constraints: {{params: {most}, val_accuracy: '{least}'}}")).search
        for most, least in (("<=1e6", ">=0.20"), ("<= 1000000.0", ">= .2"))
    )
    assert one.constraints == other.constraints == {"params": "<= 1000000", "val_accuracy": ">= 0.2"}


def test_a_study_with_limits_in_its_kept_config_goes_on(write: Write, tmp_path: Path) -> None:
    config = load_config(write(*SEARCH, "limits: {params: 1000000, val_accuracy: 0.2}"))
    keep_config(tmp_path, config)
    kept = tmp_path / "config.yaml"
    text, count = re.subn(
        r"constraints: .*", "limits: {params: 1000000.0, val_accuracy: 0.2}", kept.read_text()
    )
    assert count == 1
    kept.write_text(text)
    assert check_config(tmp_path, config) == config


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "constraints: {val_accuracy: 0.8}",
            '"val_accuracy": 0.8}; it takes one or more of the keys val_acc',
        ),
        ("constraints: {params: < 5}", 'each with a bound above 0 such as ">= 0.85" or "<= 1e6"'),
        ("constraints: {params: <= 0}", "each with a bound above 0"),
        ("constraints: {params: <= 1e999}", "each with a bound above 0"),
        (
            "constraints: {speed: <= 5}",
            "it takes one or more of the keys val_accuracy, params, macs, latency",
        ),
        ("constraints: {test_accuracy: '>= 0.8'}", "constraints.test_accuracy is refused: the test split is"),
        (
            "limits: {speed: 2}",
            'search.limits is {"speed": 2}; it takes one or more of the keys val_accuracy',
        ),
        ("limits: {params: -1}", 'search.limits is {"params": -1}; it takes one or more of the keys'),
    ],
)
def test_what_is_no_constraint_is_refused(write: Write, line: str, message: str) -> None:
    (found,) = refused(write(*SEARCH, line))
    assert message in found


def test_a_bound_that_yaml_cannot_read_is_told_to_be_quoted(write: Write) -> None:
    (found,) = refused(write(*SEARCH, "constraints:", "  val_accuracy: >= 0.8"))
    assert 'put a text that begins with > in quotes, such as ">= 0.85"' in found


def test_so_is_one_among_braces(write: Write) -> None:
    (found,) = refused(write(*SEARCH, "constraints: {val_accuracy: >= 0.8}"))
    assert 'put a text that begins with > in quotes, such as ">= 0.85"' in found


def test_a_limit_and_a_constraint_of_one_metric_are_refused(write: Write) -> None:
    (line,) = refused(write(*SEARCH, "limits: {params: 5}", "constraints: {params: <= 6}"))
    assert "search.limits.params is given in constraints too; keep that one." in line


# Fields that go by others

BY = "sparse.lambda: {by: sparse.penalty, l1: {log: [0.001, 0.1], steps: 3}, polarization: [0.0001, 0.0002]}"
PENALTIES = "sparse.penalty: [l1, proximal, polarization]"


def by(*entries: str) -> tuple[str, ...]:
    return ("space:", *(f"  {entry}" for entry in entries), "trials: 3")


def test_values_may_go_by_another_field(write: Write, tmp_path: Path) -> None:
    config = load_config(write(*by(BY, PENALTIES)))
    spaces = [
        {path: entry.values() for path, entry in branch.items()} for branch in branches(config.search.space)
    ]
    assert spaces == [
        {"sparse.lambda": [0.001, 0.01, 0.1], "sparse.penalty": ["l1"]},
        {"sparse.penalty": ["proximal"]},
        {"sparse.lambda": [0.0001, 0.0002], "sparse.penalty": ["polarization"]},
    ]
    assert count_points(config.search.space) == 6
    assert again(config, tmp_path) == config
    numbers = by("passes: [1, 2]", "finetune.epochs: {by: passes, 1: [4], 2: {range: [1, 2]}}")
    numbered = load_config(write(*numbers))
    assert count_points(numbered.search.space) == 3
    assert again(numbered, tmp_path) == numbered


@pytest.mark.parametrize(
    ("parent", "cases"),
    [
        ("prune.cost_aware: [null, params]", "{by: prune.cost_aware, null: [0.3], params: [0.5]}"),
        ("model.blocks: [[1], [1, 1]]", '{by: model.blocks, "[1]": [0.3], "[1, 1]": [0.5]}'),
        ("prune.absorb: [true, false]", "{by: prune.absorb, true: [0.3], false: [0.5]}"),
        ("sparse.lr: [0.1, 0.00002]", "{by: sparse.lr, 0.1: [0.3], 2e-5: [0.5]}"),
        ("prune.keep: [[a], []]", '{by: prune.keep, "[a]": [0.3], "[]": [0.5]}'),
        ("prune.layer_ratios: [{a: 0.5}, {}]", '{by: prune.layer_ratios, "{a: 0.5}": [0.3], "{}": [0.5]}'),
    ],
)
def test_fields_may_go_by_values_of_any_kind(write: Write, tmp_path: Path, parent: str, cases: str) -> None:
    config = load_config(write(*by(parent, f"prune.ratio: {cases}")))
    assert again(config, tmp_path) == config
    found = []
    for branch in branches(config.search.space):
        point = {path: (entry.values() or [])[0] for path, entry in branch.items()}
        recorded = json.loads(json.dumps(point))
        assert branch_of(config.search.space, recorded) == branch
        assert all(contains(branch[path], value) for path, value in recorded.items())
        found.append(point["prune.ratio"])
    assert found == [0.3, 0.5]


def test_values_are_checked_with_those_that_they_go_by(write: Write) -> None:
    rewound = "finetune.rewind_to: {by: finetune.weights, early: {range: [1, 2]}}"
    assert load_config(write(*by("finetune.weights: [pruned, early]", rewound), "")).rewinds
    schedules = "sparse.lambda_schedule: [constant, warmup-tail]"
    target = "sparse.target: {by: sparse.lambda_schedule, %s: [0.5]}"
    load_config(write(*by(schedules, target % "constant")))
    (line,) = refused(write(*by(schedules, target % "warmup-tail")))
    assert "contains 0.5, with which sparse.lambda_schedule is warmup-tail, but a target adjusts" in line


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ((BY,), "sparse.lambda goes by sparse.penalty, which is not searched; add it to search.space."),
        ((BY.replace("l1", "l2"), PENALTIES), 'is {"by": "sparse.penalty", "l2": '),
        (
            (BY, "sparse.penalty: [l1, proximal]"),
            'sparse.lambda has values for sparse.penalty "polarization", which search.space.sparse.penalty',
        ),
        ((BY.replace("penalty", "penalt"), PENALTIES), "did you mean sparse.penalty."),
        (
            (BY.replace("0.0001", "-1"), PENALTIES),
            "at polarization, sparse.lambda takes a number, at least 0",
        ),
        (
            ("sparse.lambda: {by: sparse.penalty}", PENALTIES),
            "it needs the values of sparse.penalty for which",
        ),
        (
            ("sparse.lambda: {by: sparse.lr, 0.1: [0.5]}", "sparse.lr: {log: [0.1, 0.5]}"),
            "sparse.lambda goes by sparse.lr, which is continuous; list its values.",
        ),
        (
            ("prune.ratio: {by: [sparse.penalty], l1: [0.5]}", PENALTIES),
            '["sparse.penalty"] cannot be searched',
        ),
        (("prune.ratio: {by: {}, l1: [0.5]}", PENALTIES), "{} cannot be searched"),
        (
            ("prune.ratio: {by: sparse.penalty, l1: [0.5], '\"l1\"': [0.6]}", PENALTIES),
            'the value "l1" of sparse.penalty is given twice; keep one',
        ),
        (("prune.ratio: {by: sparse.penalty, '{': [0.5]}", PENALTIES), 'not "{"'),
        (
            (BY, PENALTIES, "sparse.lr: {by: sparse.lambda, 0.001: [0.5]}"),
            "sparse.lr goes by sparse.lambda, which goes by another field itself; only one step is possible.",
        ),
    ],
)
def test_what_cannot_go_by_another_field_is_refused(
    write: Write, entries: tuple[str, ...], message: str
) -> None:
    (line,) = refused(write(*by(*entries)))
    assert message in line


def test_listed_points_have_the_fields_of_their_part(write: Write) -> None:
    first = "points: [{sparse.penalty: proximal}, {sparse.penalty: l1, sparse.lambda: 0.01}]"
    assert len(load_config(write(*by(BY, PENALTIES), first)).search.points) == 2
    for point, message in (
        ("{sparse.penalty: l1}", "points.0 has no sparse.lambda; a point has a value of each field"),
        (
            "{sparse.penalty: proximal, sparse.lambda: 0.01}",
            "points.0.sparse.lambda is not in search.space at its sparse.penalty; add it there, or remove it",
        ),
        (
            "{sparse.penalty: l1, sparse.lambda: 0.02}",
            "is 0.02, which search.space.sparse.lambda does not have",
        ),
    ):
        (line,) = refused(write(*by(BY, PENALTIES), f"points: [{point}]"))
        assert message in line
    (line,) = refused(
        write(*by("prune.ratio: {by: sparse.penalty, l1: [0.5]}", "sparse.penalty: [l1]"),
              "points: [{sparse.penalty: proximal}]")
    )  # fmt: skip
    assert 'points.0.sparse.penalty is "proximal", which search.space.sparse.penalty does not have' in line


RECIPES = "finetune.weights: [pruned, early]"


@pytest.mark.parametrize(
    "entries",
    [
        ("passes: [1, 2]", "prune.params: {by: passes, 1: [50%, 25%]}"),
        ("prune.absorb: [true, false]", *(
            f"prune.{field}: {{by: prune.absorb, {case}}}"
            for field, case in (("ratio", "true: [0.3, 0.5]"), ("macs", "false: [50%, 25%]"))
        )),
        ("prune.absorb: [true, false]", *(
            f"sparse.{field}: {{by: prune.absorb, {case}}}"
            for field, case in (("lambda", "true: [0.01]"), ("target", "false: [0.5]"))
        )),
        (RECIPES, "finetune.rewind_to: {by: finetune.weights, early: [1, 2]}",
         "sparse.epochs: {by: finetune.weights, early: [4], pruned: [1]}"),
    ],
)  # fmt: skip
def test_rules_between_fields_hold_in_each_part(write: Write, entries: tuple[str, ...]) -> None:
    """What is never together in a trial is not refused."""
    config = load_config(write(*by(*entries)))
    assert list(config.search.space) == [entry.partition(":")[0] for entry in entries]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (("passes: [1, 2]", "prune.params: {by: passes, 2: [50%]}"), "search.space.passes is above 1, but"),
        (
            (RECIPES, "sparse.epochs: {by: finetune.weights, early: [2]}", "finetune.rewind_to: [1, 2]"),
            "search.space.finetune.rewind_to is 2, but sparse training has 2 epochs; choose an earlier one.",
        ),
        (
            ("prune.absorb: [true, false]", "sparse.epochs: {by: prune.absorb, true: [0]}"),
            "search.space.sparse.epochs is 0, which needs a network that was trained before",
        ),
    ],
)
def test_what_is_together_in_a_part_is_refused(write: Write, entries: tuple[str, ...], message: str) -> None:
    (line,) = refused(write(*by(*entries)))
    assert message in line
