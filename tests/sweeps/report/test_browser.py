"""The page in a browser: drawn without an error, legible on every screen and on paper, and working."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from browser import CHROMIUM, Browser

from sweeps.outputs import pareto_table
from sweeps.records import StudyRecord
from sweeps.report import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine to open the page in")
MakeStudy = Callable[..., StudyRecord]
Look = Literal["light", "dark", "phone", "print"]
LOOKS: dict[Look, dict[str, Any]] = {
    "light": {},
    "dark": {"scheme": "dark"},
    "phone": {"width": 390, "height": 844, "touch": True},
    "print": {"media": "print"},
}
READY = """
const plots = () => Array.from(document.querySelectorAll(".plot"));
const texts = (selector) => Array.from(document.querySelectorAll(selector), (one) => one.textContent);
const boxes = (root, selector) => Array.from(root.querySelectorAll(selector), (one) => {
  const { left, right, top, bottom } = one.getBoundingClientRect();
  return { text: one.textContent, left, right, top, bottom };
});
const settled = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
dispatchEvent(new Event("beforeprint"));  // all figures, not only those that are near the screen
settled()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def front_of_thirty(make_study: MakeStudy) -> StudyRecord:
    study = make_study(
        [{"sparse.lambda": 0.003 * 1.1 ** (i % 4), "prune.ratio": 0.1 + i / 40} for i in range(30)],
        space="{sparse.lambda: {log: [0.003, 0.04]}, prune.ratio: {range: [0.1, 0.9]}}",
    )
    return replace(study, front=sorted(range(30), key=lambda n: study.trials[n].metrics["params"]))


def opened(browser: Browser, study: StudyRecord, tmp_path: Path, look: Look = "light") -> None:
    """Open the page of a study with all of its figures drawn."""
    browser.problems.clear()
    browser.look(**(LOOKS[look] if look != "print" else {}))
    path = write_report(study, tmp_path / "runs" / study.name / "report")
    browser.open(path.as_uri())
    browser.ask(READY)
    if look == "print":  # what was drawn for the screen is shrunk
        browser.look(**LOOKS[look])
        browser.ask("settled()")


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("points", ["few", "thirty"])
def test_all_is_drawn_and_no_label_overlaps(
    browser: Browser, study: StudyRecord, make_study: MakeStudy, tmp_path: Path, look: Look, points: str
) -> None:
    opened(browser, study if points == "few" else front_of_thirty(make_study), tmp_path, look)
    assert browser.problems == [], "an error, or a request that the page's own policy refused"
    assert browser.ask("plots().filter((plot) => !plot.querySelector('.main-svg')).length") == 0
    assert not browser.ask("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    drawings = browser.ask(
        "plots().map((plot) => ({ plot: plot.dataset.plot, labels: boxes(plot, '.annotation-text'), "
        "points: boxes(plot, '.scatterlayer .point'), "
        "x: boxes(plot, '.xtick text'), y: boxes(plot, '.ytick text') }))"
    )
    for drawing in drawings:
        where = (drawing["plot"], look)
        for part in ("labels", "x", "y"):
            assert not overlapping(drawing[part], drawing[part]), (where, part)
        assert not overlapping(drawing["labels"], drawing["points"]), where
        for axis in ("x", "y"):
            ticks = [tick["text"] for tick in drawing[axis]]
            assert len(set(ticks)) == len(ticks), (where, ticks)
    labels = {drawing["plot"]: [label["text"] for label in drawing["labels"]] for drawing in drawings}
    assert "dense" in labels["pareto-0"]
    assert len(labels["pareto-0"]) > (9 if points == "few" else 20), labels["pareto-0"]


def overlapping(boxes: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The texts of the boxes that overlap by more than a rounding."""
    pairs = itertools.combinations(boxes, 2) if boxes is others else itertools.product(boxes, others)
    return [
        (a["text"], b["text"])
        for a, b in pairs
        if min(a["right"], b["right"]) - max(a["left"], b["left"]) > 0.5
        and min(a["bottom"], b["bottom"]) - max(a["top"], b["top"]) > 0.5
    ]


def test_the_points_are_those_of_pareto_json(browser: Browser, study: StudyRecord, tmp_path: Path) -> None:
    opened(browser, study, tmp_path)
    drawn = browser.ask(
        "plots()[0].data.filter((one) => one.marker?.symbol === 'circle')"
        ".flatMap((one) => one.ids.map((id, i) => [id, one.x[i], one.y[i]]))"
    )
    assert sorted(drawn) == sorted(
        [f"trial-{row['trial']}", row["params"], round(100 * row["val_accuracy"], 2)]
        for row in pareto_table(study)["front"]
    )


def test_legend_choices_and_headings_do_what_they_say(
    browser: Browser, study: StudyRecord, tmp_path: Path
) -> None:
    opened(browser, study, tmp_path)
    traces = "plots()[0].querySelectorAll('.trace').length"
    before = browser.ask(traces)
    browser.ask("document.querySelector('#figure-pareto .legend input').click()")
    assert browser.ask(traces) < before
    title = "plots()[0].querySelector('.xtitle').textContent"
    assert browser.ask(title) == "parameters, log scale"
    browser.ask("document.querySelector('#figure-pareto input[value=MACs]').click()")
    assert browser.ask(title) == "MACs, log scale"
    ratios = [trial.config.prune.ratio for trial in study.trials]
    order = "texts('#trials [data-sortable] th').map((text) => parseInt(text))"
    for descending in (False, True):
        browser.ask("document.querySelectorAll('#trials thead button')[2].click()")
        assert [ratios[number] for number in browser.ask(order)] == sorted(ratios, reverse=descending)


def test_every_size_that_was_measured_is_an_axis(
    browser: Browser, study: StudyRecord, tmp_path: Path
) -> None:
    for index, network in enumerate((study.dense, *(trial.stages[-1] for trial in study.complete))):
        network.metrics.update(
            latency_ms=0.2 + index / 50, latency_ms_64=3.0 + index, file_bytes=90_000 - index
        )
    try:
        opened(browser, study, tmp_path)
    finally:
        for network in (study.dense, *(trial.stages[-1] for trial in study.complete)):
            for name in ("latency_ms", "latency_ms_64", "file_bytes"):
                del network.metrics[name]
    seen = []
    for index in range(browser.ask("document.querySelectorAll('#figure-pareto [name=pareto-0]').length")):
        browser.ask(
            f"document.querySelectorAll('#figure-pareto [name=pareto-0]')[{index}].click(); settled()"
        )
        seen.append(browser.ask("plots()[0].querySelector('.xtitle').textContent").partition(",")[0])
        ticks = browser.ask("boxes(plots()[0], '.xtick text')")
        assert len(ticks) >= 2, seen
        assert not overlapping(ticks, ticks), (seen, ticks)
        labels = browser.ask("boxes(plots()[0], '.annotation-text')")
        assert not overlapping(labels, labels), seen
        assert len(browser.ask("boxes(plots()[0], '.scatterlayer .point')")) == len(study.complete) + 1
    assert seen == ["parameters", "MACs", "latency of 1 image", "latency of 64 images", "file size"]
    assert browser.problems == []


def test_a_click_on_a_point_leads_to_its_trial(browser: Browser, study: StudyRecord, tmp_path: Path) -> None:
    opened(browser, study, tmp_path)
    browser.ask("var scrolled = new Promise((done) => addEventListener('scrollend', done, { once: true }))")
    browser.ask("plots()[0].emit('plotly_click', { points: [{ id: 'trial-5', data: {} }] })")
    browser.ask("scrolled.then(() => 0)")
    assert browser.ask("document.querySelector('#trial-5 h3').textContent").startswith("Trial 5: λ")
    top = browser.ask("document.querySelector('#trial-5').getBoundingClientRect().top")
    assert 0 <= top < 900
    assert browser.ask("texts('#trial-5 .layers li').join()") == "conv64 → 6,fc10 → 10"
    browser.ask("document.querySelector('.pick [data-step=\"1\"]').click()")
    assert browser.ask("document.querySelector('article').id") == "trial-6"


def test_tables_and_figures_can_be_saved(browser: Browser, study: StudyRecord, tmp_path: Path) -> None:
    opened(browser, study, tmp_path)
    browser.ask(
        "var saved = [], done, all = new Promise((resolve) => { done = resolve }); "
        "const start = (href) => href.split(/[:,;]/, href[0] === 'b' ? 1 : 2).join(':'); "
        "const kept = (link) => [link.download, start(link.href)]; "
        "HTMLAnchorElement.prototype.click = function () { if (saved.push(kept(this)) === 3) done() }"
    )
    text = browser.ask("csv(document.querySelector('#trials table'))")
    head, dense, first = text.splitlines()[:3]
    assert head == (
        "trial,λ,ratio,parameters,smaller,MACs,"
        '"right after pruning, validation","right after pruning, test",'
        '"after fine-tuning, validation","after fine-tuning, test"'
    )
    assert dense.startswith("dense,0,,126330,1,4812544,,,0.869,0.861")
    assert first.split(",")[3] == str(study.trials[0].metrics["params"])
    browser.ask(
        "document.querySelectorAll('#figure-pareto .save button, #trials .save button')"
        ".forEach((button) => button.click()); all"
    )
    assert sorted(browser.ask("saved")) == [
        ["fashion-mini-pareto.png", "data:image/png"],
        ["fashion-mini-pareto.svg", "data:image/svg+xml"],
        ["fashion-mini-trials.csv", "blob"],
    ]
    assert browser.problems == []


def test_paper_keeps_colours(browser: Browser, study: StudyRecord, tmp_path: Path) -> None:
    opened(browser, study, tmp_path, "print")
    for selector in (".swatch", ".legend input", "tbody .marked"):
        style = f"getComputedStyle(document.querySelector('{selector}')).printColorAdjust"
        assert browser.ask(style) == "exact", selector
    browser.ask("document.querySelector('.scroller').classList.add('wide')")
    assert browser.ask("getComputedStyle(document.querySelector('.swipe')).display") == "none"


def test_a_phone_shows_where_a_table_goes_on(browser: Browser, study: StudyRecord, tmp_path: Path) -> None:
    opened(browser, study, tmp_path, "phone")
    table = "document.querySelector('#trials .scroller')"
    assert browser.ask(f"{table}.classList.contains('more')")
    assert browser.ask(f"getComputedStyle({table}.nextSibling).display") == "block"
    browser.ask(f"{table}.scrollLeft = 10000; new Promise((done) => setTimeout(done, 50))")
    assert not browser.ask(f"{table}.classList.contains('more')")
    assert browser.ask(
        "Array.from(document.querySelectorAll('.legend'), (one) => one.scrollHeight - one.clientHeight)"
    ) == [0] * browser.ask("document.querySelectorAll('.legend').length")
