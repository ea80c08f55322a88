"""The explorer in a real browser, headless: a slider moved, a run cancelled, code and file kept."""

import dataclasses
import os
import re
import shutil
import socket
import time

import matplotlib.pyplot as plt
import numpy as np
import pytest

import skajax as ska
from skajax.explore import Settings

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SETTINGS = Settings(
    data="iris", samples=10, widths=(4, 3), scale=0.1, method="euler", dt=0.01, t1=2.0
)


@pytest.fixture
def chromium():
    """The browser's program: none is an error where one is asked for, by SKAJAX_BROWSER=required."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        must = os.environ.get("SKAJAX_BROWSER") == "required"
        say = pytest.fail if must else pytest.skip
        say(f"no browser: none of {', '.join(NAMES)} is installed (apt-get install chromium)")
    return found


@pytest.fixture
def page(chromium):
    """The explorer's page, open."""
    playwright = pytest.importorskip("playwright.sync_api")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = ska.explore.serve(SETTINGS, port=port, show=False, wait=False)
    try:
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            _open(page, f"http://localhost:{port}/")
            yield page
            browser.close()
    finally:
        server.stop()
        server.join()


def _open(page, url, seconds=20):
    """Once the server listens."""
    until = time.monotonic() + seconds
    while True:
        try:
            return page.goto(url)
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def wait_for(what, seconds=40):
    """What a function gives, when it is something."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.05)
    return found


def kept(page, name, folder):
    """A file that a button downloads."""
    with page.expect_download() as download:
        page.locator(f".{name} a, .{name} button").first.click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_in_a_browser(page, tmp_path, monkeypatch):
    outside = []
    page.on("request", lambda r: outside.append(r.url) if "//localhost" not in r.url else None)
    shown = lambda selector: page.locator(selector).first.inner_text()
    image = lambda: page.locator(".figure img").first.get_attribute("src")
    ended = lambda word: lambda: shown("p.status").startswith(word)
    cells = lambda: page.locator("table.landmarks tr:last-child td").all_inner_texts()

    wait_for(ended("done"))
    wait_for(lambda: cells()[2] != "–")  # predicted, in a thread of its own
    first = wait_for(image)
    row = cells()
    assert row[0] == "2" and float(row[3]) > 0 and row[6].endswith("%")

    # All on one screen.
    for part in (".figure img", "table.landmarks", ".run button", ".file", ".fourth"):
        box = page.locator(part).first.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 1440, part
        assert box["y"] >= 0 and box["y"] + box["height"] <= 900, part

    # A slider moved: another run, another figure.
    seed = page.locator(".seed .noUi-handle")
    seed.focus()
    seed.press("ArrowRight")
    wait_for(lambda: "Seed: 1" in shown(".seed .bk-slider-title"))
    second = wait_for(lambda: ended("done")() and image() != first and image())

    # Another observable in the fourth panel: another figure of the same run.
    page.locator(".fourth select").select_option("alignment")
    wait_for(lambda: image() != second)

    # A run of 100,000 steps, cancelled.
    for name, key in (("dt", "Home"), ("t1", "End")):
        page.locator(f".{name} .noUi-handle").focus()
        page.locator(f".{name} .noUi-handle").press(key)
    wait_for(lambda: re.search(r"running.*t = .* of 100$", shown("p.status")))
    page.locator(".run button").click()
    wait_for(ended("cancelled"))
    end = float(re.search(r"at t = (\S+) of 100", shown("p.status"))[1])
    assert 0 < end < 100 and shown(".run button") == "Run"

    # What is seen is kept: the script has the file's numbers, and draws the same panels.
    script, file = kept(page, "script", tmp_path), kept(page, "file", tmp_path)
    seen = ska.load(file.rename(tmp_path / "seen.nc"))
    page.locator(".bk-tab").nth(1).click()
    assert shown("pre.code").strip() == script.read_text().strip()
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(script.read_text(), script, "exec"), names)
    again = names["run"]
    assert float(again.t[-1]) == pytest.approx(end, rel=1e-3) and len(again.t) == len(seen.t)
    for name in seen.records:
        np.testing.assert_array_equal(again[name], seen[name], name)
    np.testing.assert_array_equal(again.final.weights[1].W, seen.final.weights[1].W)
    assert names["axes"][3].get_ylabel().startswith("alignment")
    page.locator(".bk-tab").nth(0).click()
    assert cells()[2] == f"{float(names['foreseen'].peak[-1]):.4g}"
    plt.close("all")
    assert outside == []


def test_the_table_says_what_a_run_has_and_what_is_foreseen():
    page = pytest.importorskip("skajax.explore._page")
    seen = ska.explore.Runner(SETTINGS).start().wait()
    rows = page.rows(seen)
    peaks = ska.landmarks.peaks(seen.run)
    assert [row[0] for row in rows] == ["1", "2"]
    for row, peak, left in zip(
        rows, peaks, seen.run.entropy[-1] / seen.run.entropy[0], strict=True
    ):
        assert row[1] == (f"{peak.t:.4g}" if peak.interior else f"after {peak.t:.4g}")
        assert row[6] == f"{float(left):.1%}"
    assert page.picture(seen, "alignment")[:4] == b"\x89PNG"
    decaying = ska.explore.Theory(np.array([np.nan, 1.5]), np.array([-0.25, np.nan]))
    rows = page.rows(dataclasses.replace(seen, theory=decaying))
    assert [row[2:4] for row in rows] == [["–", "0.25, decaying"], ["1.5", "–"]]


def test_a_notebook_has_the_same_object():
    pytest.importorskip("panel")
    shown = ska.explore.widget(SETTINGS)
    assert shown.chosen() == SETTINGS
    shown.controls["data"].value = "digits"
    shown.controls["layer"].value = "recurrent"
    assert shown.chosen().layer == "recurrent" and shown.runner.wait().state == "done"
    shown.controls["data"].value = "iris"  # whose samples no recurrent layer reads
    assert shown.chosen() == SETTINGS and shown.controls["layer"].options == ["dense"]
    shown.controls["energy"].value = "cross-entropy"
    shown.controls["width2"].value = 2
    shown.run()
    assert "widths must end with 3 neurons or more" in shown.status.object


def test_without_panel_it_says_how_to_have_it(monkeypatch, capsys):
    from skajax.__main__ import main

    monkeypatch.setitem(__import__("sys").modules, "panel", None)
    assert main(["explore"]) == 2
    assert "needs panel (" in (said := capsys.readouterr().err) and "skajax[explore]" in said
    with pytest.raises(ImportError, match="needs panel"):
        ska.explore.widget()
