"""The documentation's picture of the explorer, from a real browser: ``python docs/explore.py``."""

import pathlib
import shutil
import socket
import time

from playwright.sync_api import sync_playwright

import skajax as ska

IMAGE = pathlib.Path(__file__).parent / "images" / "explore.png"


def main():
    """Serve the page, wait for its run and what is foreseen of it, and take the picture."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = ska.explore.serve(port=port, show=False, wait=False)
    time.sleep(2)
    with sync_playwright() as driver:
        chromium = shutil.which("chromium")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"http://localhost:{port}/")
        row = page.locator("table.landmarks tr:last-child")
        until = time.monotonic() + 300
        while time.monotonic() < until:
            time.sleep(2)
            done = page.locator("p.status").inner_text().startswith("done")
            if done and "–" not in row.locator("td").nth(2).inner_text():
                break
        time.sleep(4)  # the last figure
        page.screenshot(path=IMAGE)
        browser.close()
    server.stop()


if __name__ == "__main__":
    main()
