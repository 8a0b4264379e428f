"""The page in a browser: headless Chromium, without a network."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"),
    *("--virtual-time-budget=4000", "--enable-logging=stderr"),
]
_PROBE = """
const root = document.documentElement;
const paper = getComputedStyle(document.body).backgroundColor;
if (name) parent.document.documentElement.dataset[name] = `${root.scrollWidth} of ${innerWidth}, paper ${paper}`;
const matrix = document.querySelector(".matrix");
if (matrix) {
  matrix.focus();
  matrix.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
}
root.dataset.lost = [...document.querySelectorAll("a[href], button, summary, [tabindex]")]
  .filter((one) => one.tabIndex < 0).length;
root.dataset.empty = [...document.querySelectorAll("section")].filter((one) => one.innerText.length < 80).length;
"""

pytestmark = pytest.mark.skipif(_BROWSER is None, reason="needs chromium, chromium-browser or google-chrome")


def _open(text: str, folder: Path, *flags: str) -> tuple[str, str]:
    """Load a page from a file; return what the browser wrote, and what its console said."""
    assert _BROWSER is not None
    page = folder / "page.html"
    page.write_text(text)
    command = [_BROWSER, *_FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def _probed(text: str) -> str:
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    return bare.replace("</body>", f"<script>{_PROBE}</script></body>")


def _told(dom: str, name: str) -> str:
    found = re.search(rf'<html[^>]* data-{name}="([^"]*)"', dom)
    assert found is not None, dom[:300]
    return html.unescape(found[1])


def _framed(pages: dict[str, tuple[str, int]], folder: Path, *flags: str) -> dict[str, str]:
    """Load pages in frames so many pixels wide, which may be narrower than any window; return what each told."""
    frames = "".join(
        f'<iframe name="{name}" style="width: {width}px" srcdoc="{html.escape(_probed(text))}"></iframe>'
        for name, (text, width) in pages.items()
    )
    head = '<meta name="color-scheme" content="light dark"><style>iframe { border: 0; height: 3000px; }</style>'
    dom, said = _open(f"<!doctype html><html>{head}<body>{frames}</body></html>", folder, "--dump-dom", *flags)
    assert said == ""
    return {name: _told(dom, name) for name in pages}


def test_wide_page_shows_its_verdicts_and_figures(full_page: str, tmp_path: Path) -> None:
    dom, said = _open(_probed(full_page), tmp_path, "--window-size=1400,3000", "--dump-dom")
    assert said == ""
    words = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", dom)))
    assert "Closer to simulated observers? Yes +2.9 points of agreement [2.1, 3.7]" in words
    words = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", dom)))
    assert "Closer to simulated observers than the base model: yes, +2.9 points of agreement [2.1, 3.7]" in words
    assert "no difference seen, +0.4 points of accuracy" in words
    sections = re.findall(r'<section id="(\w+)"', dom)
    assert sections == [
        *("verdicts", "numbers", "levels", "retention", "calibration", "doubt", "maps", "disagreements"),
        *("neighbours", "clusters", "run"),
    ]
    assert dom.count('class="plot"') == 2 * 4 + 1 + 8 + 8
    assert dom.count('class="map"') == 2
    assert _told(dom, "lost") == "0"
    assert _told(dom, "empty") == "0"


def test_no_page_is_wider_than_its_window(people_page: str, full_page: str, tmp_path: Path) -> None:
    widths = (1400, 760, 400)
    spoilt = people_page.replace("<main>", '<main><div style="width: 900px">wide</div>')
    pages = {f"people{width}": (people_page, width) for width in widths}
    pages |= {f"full{width}": (full_page, width) for width in widths} | {"spoilt": (spoilt, 400)}
    told = _framed(pages, tmp_path)
    assert not told.pop("spoilt").startswith("400 of 400")
    assert told == {
        name: f"{width} of {width}, paper rgb(251, 250, 247)" for name, (_, width) in pages.items() if name in told
    }


def test_matrices_can_be_read_by_keyboard(people_page: str, tmp_path: Path) -> None:
    dom, said = _open(_probed(people_page), tmp_path, "--window-size=1400,3000", "--dump-dom")
    assert said == ""
    readout = re.search(r'<p class="readout"[^>]*>([^<]*)</p>', dom)
    assert readout is not None
    assert re.fullmatch(
        r".+ – .+: People (–|\d+), base · backbone (–|\d+), aligned · shipped (–|\d+) \(0 the most alike pair, .*\)",
        html.unescape(readout[1]),
    )
    assert dom.count('class="at on"') == 3


def test_dark_page_is_dark(full_page: str, tmp_path: Path) -> None:
    dark = "--blink-settings=preferredColorScheme=0"
    assert _framed({"full": (full_page, 400)}, tmp_path, dark) == {"full": "400 of 400, paper rgb(20, 20, 19)"}


def test_policy_admits_the_pages_own_script_alone(people_page: str, tmp_path: Path) -> None:
    dom, said = _open(
        people_page.replace("</body>", "<script>document.title = 1</script></body>"), tmp_path, "--dump-dom"
    )
    assert said.count("CONSOLE") == 1
    assert "Content Security Policy" in said
    assert "<title>1</title>" not in dom


def test_print_has_all_sections_on_few_pages(people_page: str, tmp_path: Path) -> None:
    pdf = tmp_path / "page.pdf"
    _open(people_page, tmp_path, f"--print-to-pdf={pdf}")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())) <= 14
