#!/usr/bin/env python3
"""Opens pages of segmented scans in headless Chromium and checks that their meshes are drawn, turn and zoom.

    scripts/check_pages.py [--pictures DIR] PAGE.html ...

Each page is used as a person would: its first mesh is waited for, dragged, zoomed by the wheel and turned by keys, reset by a
double click, its classes switched off and on, and the last scan scrolled to. Pages must report no error, ask for nothing
over the network, and decode only what has been looked at. Exits with 0 if all do, with 77 if there is no Chromium.

`cargo test --test engine pages` leaves pages in target/tmp/pages. Chromium is spoken to through pipes (--remote-debugging-pipe), so
that Python's own library is all that is needed.
"""

import argparse
import base64
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--remote-debugging-pipe", "--hide-scrollbars", "about:blank",
]
WINDOW = {"width": 1400, "height": 1050, "deviceScaleFactor": 1, "mobile": False}

# Seconds that one answer, and one mesh, may take.
PATIENCE = 60

# Helpers in the page: the scans with meshes; of a canvas, the share of the middle that is painted and a number that changes
# with any pixel there.
HELPERS = """
window.scans = [...document.querySelectorAll('.scan')].filter(scan => scan.querySelector('canvas'));
window.look = scan => {
  const canvas = scan.querySelector('canvas'), { width: w, height: h } = canvas;
  const data = canvas.getContext('2d').getImageData(w / 4, h / 4, w / 2, h / 2).data;
  let painted = 0, sum = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] > 0) painted++;
    sum = (sum * 31 + data[i] + 7 * data[i + 1] + 49 * data[i + 2]) % 1000003;
  }
  return { painted: painted / (data.length / 4), sum };
};
// Two frames in a row have drawn what was asked for before.
window.drawn = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
scans.length
"""


class Browser:
    """Chromium and one page in it."""

    def __init__(self, program, profile):
        ours, theirs = os.pipe(), os.pipe()
        # Out of the way of 3 and 4, on which Chromium reads and writes.
        far = [fcntl.fcntl(fd, fcntl.F_DUPFD, 50) for fd in (*ours, *theirs)]
        for fd in (*ours, *theirs):
            os.close(fd)

        def place():
            os.dup2(far[0], 3)
            os.dup2(far[3], 4)

        command = [program, f"--user-data-dir={profile}", *FLAGS]
        silent = subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdout=silent, stderr=silent, pass_fds=(3, 4), preexec_fn=place)
        os.close(far[0])
        os.close(far[3])
        self.write, self.read = far[1], far[2]
        self.buffer, self.number, self.session = b"", 0, None
        self.errors, self.requests = [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Network", "Log"]:
            self.call(domain + ".enable")
        self.call("Emulation.setDeviceMetricsOverride", **WINDOW)
        self.still(True)

    def still(self, reduced):
        """Whether the user asks for less motion."""
        value = "reduce" if reduced else "no-preference"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": value}])

    def message(self, deadline):
        """The next message."""
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read], [], [], max(0, deadline - time.monotonic()))
            part = os.read(self.read, 1 << 20) if ready else b""
            if not part:
                raise TimeoutError("Chromium does not answer")
            self.buffer += part
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **parameters):
        """The answer to one command; what the page reports meanwhile is noted."""
        self.number += 1
        request = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            request["sessionId"] = self.session
        os.write(self.write, json.dumps(request).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            message = self.message(deadline)
            self.note(message)
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]

    def note(self, message):
        """Remembers errors and requests."""
        kind, parameters = message.get("method"), message.get("params", {})
        if kind == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif kind == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"]["text"])
        elif kind == "Network.requestWillBeSent" and parameters["request"]["url"].startswith(("http", "ws")):
            self.requests.append(parameters["request"]["url"])

    def run(self, script):
        """The value of JavaScript in the page."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", "script failed"))
        return answer["result"].get("value")

    def open(self, page):
        """Opens a page and waits until it is read."""
        self.errors, self.requests = [], []
        self.call("Page.navigate", url=page.as_uri())
        self.until("document.readyState === 'complete'", "the page")
        return self.run(HELPERS)

    def until(self, script, what):
        """Waits until JavaScript is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.run(script):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited in vain for {what}")
            time.sleep(0.05)

    def mouse(self, kind, x, y, **more):
        """One event of the mouse."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def key(self, name):
        """A key that is pressed and released."""
        for kind in ["keyDown", "keyUp"]:
            self.call("Input.dispatchKeyEvent", type=kind, key=name)

    def picture(self, path):
        """Leaves a screenshot."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self):
        """Ends the browser."""
        try:
            self.call("Browser.close")
        except (OSError, RuntimeError, TimeoutError):
            self.process.kill()
        self.process.wait(timeout=PATIENCE)


def use(browser):
    """Uses the page's meshes; the faults found."""
    faults = []

    def expect(good, fault):
        if not good:
            faults.append(fault)

    def look():
        return browser.run("drawn().then(() => look(scans[0]))")

    def shown(scan, what):
        browser.run(f"{scan}.scrollIntoView({{ block: 'center' }})")
        browser.until(f"{scan}.dataset.decoded && look({scan}).painted > 0.02", what)

    shown("scans[0]", "the first mesh")
    first = look()
    expect(first["painted"] > 0.1, "the mesh is hardly to be seen")
    expect(look() == first, "the mesh moves although less motion is asked for")
    box = browser.run("(({ x, y, width, height }) => [x, y, width, height])(scans[0].querySelector('canvas').getBoundingClientRect())")
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2

    def double_click():
        for count in [1, 2]:
            browser.mouse("mousePressed", x, y, button="left", clickCount=count)
            browser.mouse("mouseReleased", x, y, button="left", clickCount=count)
        expect(look() == first, "a double click does not reset the view")

    browser.mouse("mousePressed", x, y, button="left", clickCount=1)
    browser.mouse("mouseMoved", x + 80, y + 25, button="left", buttons=1)
    browser.mouse("mouseReleased", x + 80, y + 25, button="left", clickCount=1)
    expect(look()["sum"] != first["sum"], "dragging does not turn the mesh")
    double_click()
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=400)
    expect(look()["painted"] < first["painted"], "the wheel does not zoom")
    double_click()
    browser.run("scans[0].querySelector('canvas').focus()")
    browser.key("ArrowRight")
    expect(look()["sum"] != first["sum"], "keys do not turn the mesh")
    double_click()
    switch = "scans[0].querySelectorAll('input').forEach(box => box.click())"
    browser.run(switch)
    expect(look()["painted"] == 0, "classes cannot be switched off")
    browser.run(switch)
    expect(look() == first, "classes do not come back")
    decoded = "scans.filter(scan => scan.dataset.decoded).length"
    # A window shows two or three scans, and the viewer looks a little ahead.
    expect(browser.run(decoded) <= 5, f"{browser.run(decoded)} scans were decoded for the first")
    shown("scans.at(-1)", "the last mesh")
    expect(browser.run(decoded) <= 10, f"{browser.run(decoded)} scans were decoded for the first and the last")
    return faults


def turns(browser, page):
    """Faults of a page whose meshes may move by themselves."""
    browser.still(False)
    browser.open(page)
    browser.until("scans[0].dataset.decoded && look(scans[0]).painted > 0.02", "the first mesh in motion")
    sums = {browser.run("drawn().then(() => look(scans[0]).sum)") for _ in range(3)}
    browser.still(True)
    return [] if len(sums) > 1 else ["the mesh does not turn by itself"]


def check(browser, page, pictures):
    """The number of meshes and the faults of a page."""
    meshes, faults = browser.open(page), []
    if meshes:
        faults += use(browser)
        faults += turns(browser, page)
    faults += [f"error: {error}" for error in browser.errors] + [f"asks for {url}" for url in browser.requests]
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
        browser.open(page)
        if meshes:
            browser.until("look(scans[0]).painted > 0.02 || scrollY === 0", "the picture")
        time.sleep(1)
        browser.picture(pictures / f"{page.stem}.png")
    return meshes, faults


def main():
    """Checks the pages named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="+", type=pathlib.Path, metavar="PAGE.html")
    parser.add_argument("--pictures", type=pathlib.Path, metavar="DIR", help="leave a screenshot of each page here")
    arguments = parser.parse_args()
    for page in arguments.pages:
        if not page.is_file():
            parser.error(f"{page} is no file")
    names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    program = next((path for path in map(shutil.which, names) if path), None)
    if not program:
        print("check_pages: no Chromium on this machine; nothing was checked")
        return 77
    failed = False
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        for page in arguments.pages:
            try:
                meshes, faults = check(browser, page.resolve(), arguments.pictures)
            except (RuntimeError, TimeoutError) as error:
                meshes, faults = "?", [str(error)]
            print(f"{page}: {'; '.join(faults) or 'good'} ({meshes} meshes)", flush=True)
            failed |= bool(faults)
        browser.close()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
