"""The doctor's report in a real browser: it needs no network, no script complains, and nothing runs out of the page."""

import shutil
import subprocess
from pathlib import Path

import pytest

from zstore import Store
from zstore.look.report import to_html
from zstore.upkeep.doctor import examine

PROBE = """
<script>
window.addEventListener("load", () => {
  const inner = document.documentElement.clientWidth;
  const beyond = [...document.querySelectorAll("h1, h2, p, table, svg, figure")].filter((part) => {
    for (let box = part.parentElement; box; box = box.parentElement)
      if (["auto", "scroll", "hidden"].includes(getComputedStyle(box).overflowX) && box !== document.body) return false;
    return part.getBoundingClientRect().right > inner + 1;
  });
  const fetched = performance.getEntriesByType("resource").map((entry) => entry.name);
  const empty = [...document.querySelectorAll("svg")].filter((svg) => svg.getBoundingClientRect().width === 0);
  document.title = JSON.stringify({
    svgs: document.querySelectorAll("svg").length,
    beyond: beyond.map((part) => part.tagName),
    fetched,
    empty: empty.length,
    wide: document.documentElement.scrollWidth > inner + 1,
  });
});
</script>
"""


def browser() -> str:
    """Chromium, or Chrome."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    pytest.fail("no browser: this test needs chromium (apt-get install chromium)")


@pytest.mark.long
@pytest.mark.parametrize("width", [480, 1200])
def test_the_report_reads_well_in_a_browser_at_any_width(width: int, catchments: Store, tmp_path: Path) -> None:
    html = to_html(examine(catchments))
    assert "<script" not in html
    page = tmp_path / "report.html"
    page.write_text(html.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},2000"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = dom.split("<title>", 1)[1].split("</title>", 1)[0]
    n_svgs = html.count("<svg")
    assert n_svgs > 4
    assert found == f'{{"svgs":{n_svgs},"beyond":[],"fetched":[],"empty":0,"wide":false}}'


@pytest.mark.long
def test_the_report_prints_on_paper(catchments: Store, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(to_html(examine(catchments)), encoding="utf-8")
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--print-to-pdf={tmp_path / 'report.pdf'}", (tmp_path / "report.html").as_uri()]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") >= 1
