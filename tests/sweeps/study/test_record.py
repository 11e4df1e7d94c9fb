"""The record of a study: what was fixed when it began, its points, and what of it can be opened again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from slimnet.errors import SlimnetError
from sweeps.config import Config, load_config
from sweeps.study import Point, make_study, open_study

POINTS = [
    Point({"sparse.lambda": 0.005, "prune.ratio": 0.3}),
    Point({"sparse.lambda": 0.02, "prune.ratio": 0.7}, {"generation": 1, "parents": [0, 1]}),
]


def config(**changes: Any) -> Config:
    return load_config("smoke").model_copy(update=changes)


def test_a_study_goes_on_with_its_points(tmp_path: Path) -> None:
    study = make_study(tmp_path, config(), "bfloat16")
    assert [study.add(point) for point in POINTS] == [0, 1]

    for again in (open_study(tmp_path, config()), make_study(tmp_path, config(), "float32")):
        assert again.points == POINTS
        assert again.facts == study.facts
        assert again.facts.precision == "bfloat16"
    (tmp_path / "other").mkdir()
    assert make_study(tmp_path / "other", config(), "float32").facts.uid != study.facts.uid


def test_values_come_back_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    space = "search.space={model.blocks: [[1], [1, 1]], prune.ratio: {range: [0.1, 0.7], step: 0.2}}"
    settings = load_config("smoke", [space])
    point = Point({"model.blocks": [1, 1], "prune.ratio": 0.3})
    make_study(tmp_path / "lists", settings, "float32").add(point)
    assert open_study(tmp_path / "lists", settings).points == [point]


def test_a_point_that_was_broken_off_is_not_there(tmp_path: Path) -> None:
    study = make_study(tmp_path, config(), "float32")
    for point in POINTS:
        study.add(point)
    path = tmp_path / "trials.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert open_study(tmp_path, config()).points == POINTS[:1]

    again = make_study(tmp_path, config(), "float32")  # which mends the file, so that more can be added
    again.add(POINTS[1])
    assert open_study(tmp_path, config()).points == POINTS


def test_opening_a_study_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(SlimnetError, match=r"study\.json is missing"):
        open_study(tmp_path, config())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    ['{"uid": "1", "precision": "float99", "data": "2"}', "{", "{}", "[]", '{"uid": 1, "other": 2}', ""],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    make_study(tmp_path, config(), "float32")
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(SlimnetError, match=r"study\.json is damaged .* move it away"):
        make_study(tmp_path, config(), "float32")
    assert (tmp_path / "study.json").read_text() == content


@pytest.mark.parametrize(
    "line",
    [
        '{"params": 5}\n',
        '{"params": {"sparse.lambda": 0.005, "prune.ratio": 0.3}, "attributes": 5}\n',
        "{\n",
        "5\n",
        '{"params": {}}\n',
        json.dumps({"params": {"sparse.lr": 0.1}}) + "\n",
        json.dumps({"params": {"sparse.lambda": 0.005, "prune.ratio": 0.1 + 0.2}}) + "\n",
    ],
)
def test_a_damaged_point_is_named(tmp_path: Path, line: str) -> None:
    make_study(tmp_path, config(), "float32")
    (tmp_path / "trials.jsonl").write_text(line)
    with pytest.raises(SlimnetError, match=r"trials\.jsonl is damaged .* move it away"):
        open_study(tmp_path, config())


def test_another_precision_or_other_data_are_refused(tmp_path: Path) -> None:
    make_study(tmp_path, config(), "float32")
    make_study(tmp_path, config(precision="float32"), "bfloat16")
    with pytest.raises(SlimnetError, match="precision is bfloat16, but the study smoke began in float32"):
        make_study(tmp_path, config(precision="bfloat16"), "bfloat16")
    other = config(data=config().data.model_copy(update={"name": "fashion-mnist"}))
    with pytest.raises(SlimnetError, match="data of fashion-mnist have changed"):
        make_study(tmp_path, other, "float32")


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_trial_that_cannot_be_written_is_not_there(tmp_path: Path) -> None:
    study = make_study(tmp_path, config(), "float32")
    (tmp_path / "trials.jsonl").unlink()
    (tmp_path / "trials.jsonl").symlink_to("/dev/full")
    with pytest.raises(SlimnetError, match=r"cannot write .*trials\.jsonl: No space left"):
        study.add(POINTS[0])
    assert study.points == []
