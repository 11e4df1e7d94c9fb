"""Makes docs/front.png, the figure of the Pareto front in the README, from the folder of a study.

It takes a browser: Chromium or Chrome (scripts/test-extras.sh installs one).

    make sweep
    python scripts/front_picture.py runs/fashion-mini [--out FILE]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from slimnet.errors import SlimnetError
from sweeps.records import StudyRecord
from sweeps.report.html import build, render
from sweeps.state import read_study
from sweeps.study import kept_config

OUT = Path(__file__).resolve().parent.parent / "docs" / "front.png"
WIDTH, HEIGHT = 1080, 550
_STYLE = """<style>
header, h2, p, figcaption, .choice { display: none !important; }
body { max-width: none; padding: 1rem; }
section, figure { margin: 0; }
</style></head>"""


def picture_page(study: StudyRecord, folder: Path) -> str:
    """A page that shows nothing but the figure of the front and its legend."""
    report = build(study, folder)
    fronts = tuple(section for section in report.sections if section.anchor == "front")
    return render(replace(report, sections=fronts)).replace("</head>", _STYLE, 1)


def photograph(page: str, out: Path) -> None:
    """Save a page as a browser shows it.

    Raises:
        SlimnetError: there is no browser, or it fails.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        raise SlimnetError("there is no Chromium or Chrome; sh scripts/test-extras.sh installs one")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "front.html")
        path.write_text(page, encoding="utf-8")
        flags = "--headless --no-sandbox --disable-gpu --hide-scrollbars --virtual-time-budget=5000"
        place = [f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}"]
        done = subprocess.run(
            [browser, *flags.split(), *place, f"--screenshot={out.resolve()}", path.as_uri()],
            capture_output=True,
            text=True,
        )
    if done.returncode or not out.exists():
        raise SlimnetError(f"{browser} made no picture:\n{done.stderr[-2000:]}")


def main() -> None:
    """Make the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", type=Path, help="the folder of a study, RUNS/STUDY")
    parser.add_argument("--out", type=Path, default=OUT, help="the file to write")
    arguments = parser.parse_args()
    try:
        study = read_study(arguments.study.parent, kept_config(arguments.study))
        if not study.front:
            raise SlimnetError(f"{arguments.study} has no finished trial yet")
        photograph(picture_page(study, arguments.study / "report"), arguments.out)
    except SlimnetError as error:
        sys.exit(str(error))
    print(arguments.out)


if __name__ == "__main__":
    main()
