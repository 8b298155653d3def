#!/usr/bin/env python3
"""Opens pages in headless Chromium and checks that they fit the screen and do what they promise.

    scripts/check_pages.py [--pictures DIR] PAGE.html ...

On a desktop's screen and on a phone's nothing is wider than the screen, no table is cut off without a sign, and no label of a
chart is cut or lies on another. Each page is used as a person would: every chart says values by its keys and gives itself away as
SVG and PNG, switches change what is shown, slices scroll and come back to exactly what the page held. Of meshes the first is waited for,
dragged, zoomed by the wheel and turned by keys, reset by a double click, its classes switched off and on, and the last scan
scrolled to. Pages must report no error, ask for nothing over the network, decode only what has been looked at, and show the same charts
without scripts. Exits with 0 if all do, with 77 if there is no Chromium.

The tests leave pages in target/tmp/pages. Chromium is spoken to through pipes (--remote-debugging-pipe), so
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


# Widths that a page must fit, in CSS pixels.
SCREENS = [1400, 390]

# What does not fit.
LAYOUT = """
(() => {
  const faults = [], room = document.documentElement.clientWidth;
  const over = document.documentElement.scrollWidth - room;
  if (over > 0) faults.push(`the page is ${over} px wider than the screen`);
  for (const box of document.querySelectorAll('.scroll')) {
    const name = box.innerText.slice(0, 30).replaceAll('\\n', ' ');
    if (room > 1000 && box.scrollWidth > box.clientWidth + 1) faults.push(`a table is cut off (${name})`);
    if (getComputedStyle(box).backgroundImage === 'none') faults.push(`nothing says that a table goes on (${name})`);
  }
  for (const svg of document.querySelectorAll('svg.chart')) {
    if (!svg.getClientRects().length) continue;
    const view = svg.viewBox.baseVal, ticks = [];
    for (const text of svg.querySelectorAll('text')) {
      const box = text.getBBox();
      if (box.x < -1 || box.y < -1 || box.x + box.width > view.width + 1 || box.y + box.height > view.height + 1) {
        faults.push(`a label is cut: ${text.textContent}`);
      }
      if (text.classList.contains('tick')) ticks.push([box, text.textContent]);
    }
    for (const [i, [a, name]] of ticks.entries()) {
      for (const [b, other] of ticks.slice(i + 1)) {
        const apart = a.x + a.width < b.x || b.x + b.width < a.x || a.y + a.height - 4 < b.y || b.y + b.height - 4 < a.y;
        if (!apart) faults.push(`labels lie on each other: ${name}, ${other}`);
      }
    }
  }
  return faults;
})()
"""

# What charts and switches do not do.
CHARTS = """
(async () => {
  const faults = [], visible = element => element.getClientRects().length > 0;
  const key = (svg, key) => svg.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
  for (const svg of [...document.querySelectorAll('svg.chart')].filter(visible)) {
    const name = svg.getAttribute('aria-label'), box = svg.parentElement.querySelector('.readout');
    if (svg.dataset.frame) {
      key(svg, 'End');
      const last = box.innerText;
      key(svg, 'Home');
      if (box.hidden || !last.trim() || box.innerText === last) faults.push(`no values are read: ${name}`);
      key(svg, 'Escape');
      if (!box.hidden) faults.push(`values stay: ${name}`);
    }
    const alone = ossnet.standalone(svg), parsed = new DOMParser().parseFromString(alone.text, 'image/svg+xml');
    if (parsed.querySelector('parsererror') || /var\\(|class=/.test(alone.text)) faults.push(`the SVG does not stand alone: ${name}`);
    const image = await ossnet.picture(alone);
    if (!image || image.size < 1000) faults.push(`no PNG: ${name}`);
  }
  const panes = () => [...document.querySelectorAll('.pane')].filter(visible).map(pane => pane.className);
  for (const radio of document.querySelectorAll('.switch input')) {
    radio.click();
    if (panes().length !== 1 || !panes()[0].split(' ').includes(radio.className)) faults.push(`the switch shows ${panes()}`);
  }
  for (const tools of document.querySelectorAll('figure.plot')) {
    if (tools.querySelectorAll('.tools button').length !== 2) faults.push('a chart cannot be taken away');
  }
  return faults;
})()
"""

# Slices that do not scroll, or do not come back to what the page held.
SLICES = """
(async () => {
  const faults = [];
  const pixels = async href => {
    const image = new Image();
    image.src = href;
    await image.decode();
    const canvas = document.createElement('canvas');
    Object.assign(canvas, { width: image.width, height: image.height });
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, image.width, image.height).data.filter((_, i) => i % 4 === 0).join();
  };
  for (const script of [...document.querySelectorAll('script.stack')].slice(0, 3)) {
    const root = script.parentElement, whole = JSON.parse(script.textContent);
    const sliders = [...root.querySelectorAll('.slices')[0].querySelectorAll('input[type=range]')];
    if (sliders.length !== 3) { faults.push('slices have no sliders'); continue; }
    const state = async () => ({
      paths: [...root.querySelectorAll('path[data-plane]')].map(path => path.getAttribute('d')),
      films: await Promise.all([...root.querySelectorAll('image[data-plane]')].map(image => pixels(image.getAttribute('href')))),
    });
    const set = async (slider, value) => {
      delete root.dataset.moved;
      slider.value = value;
      slider.dispatchEvent(new Event('input', { bubbles: true }));
      while (!root.dataset.moved) await new Promise(done => setTimeout(done, 10));
    };
    const film = root.querySelector('svg.slice'), box = film.getBoundingClientRect();
    const before = await state(), places = sliders.map(slider => slider.value);
    for (const slider of sliders) await set(slider, Number(slider.value) > 0 ? Number(slider.value) - 1 : 1);
    const away = await state();
    if (away.films.join() === before.films.join()) faults.push('slices do not scroll');
    delete root.dataset.moved;
    film.dispatchEvent(new MouseEvent('click', { clientX: box.x + 0.6 * box.width, clientY: box.y + 0.6 * box.height, bubbles: true }));
    const deadline = Date.now() + 5000;
    while (!root.dataset.moved && Date.now() < deadline) await new Promise(done => setTimeout(done, 10));
    if (!root.dataset.moved || document.activeElement !== sliders[0]) faults.push('a click chooses no slice');
    const chosen = sliders[0].value;
    film.dispatchEvent(new WheelEvent('wheel', { deltaY: sliders[0].value === '0' ? -100 : 100, bubbles: true, cancelable: true }));
    if (sliders[0].value === chosen) faults.push('the wheel does not scroll the chosen slice');
    for (const [i, slider] of sliders.entries()) await set(slider, places[i]);
    const back = await state();
    if (whole.step.every(one => one === 1) && whole.start.every(one => one === 0)) {
      if (back.paths.join() !== before.paths.join()) faults.push('scrolled outlines are not those of the page');
      if (back.films.join() !== before.films.join()) faults.push('scrolled slices are not those of the page');
    }
  }
  return faults;
})()
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
        self.screen(WINDOW["width"])
        self.still(True)

    def screen(self, width):
        """A screen of another width."""
        self.call("Emulation.setDeviceMetricsOverride", **{**WINDOW, "width": width, "mobile": width < 600})

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
        """Leaves a screenshot of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        whole = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 12000), "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=whole)["data"]
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


def plain(browser, page):
    """Faults of a page without its scripts."""
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(page)
    left = browser.run("[document.querySelectorAll('svg.chart').length, document.querySelectorAll('.charts').length, document.querySelectorAll('.tools').length]")
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    return [] if left[0] >= left[1] and not left[2] else ["without scripts the page is another one"]


def fits(browser, page):
    """What does not fit the screens, or does not do what it promises there."""
    faults = []
    for width in SCREENS:
        browser.screen(width)
        browser.open(page)
        found = browser.run(LAYOUT) + browser.run(CHARTS)
        # Every pane of a switch must fit.
        for number in range(browser.run("document.querySelectorAll('.switch input').length")):
            browser.run(f"document.querySelectorAll('.switch input')[{number}].click()")
            found += browser.run(LAYOUT)
        faults += [f"{width} px: {fault}" for fault in dict.fromkeys(found)]
    browser.screen(WINDOW["width"])
    browser.open(page)
    return faults + browser.run(SLICES)


def check(browser, page, pictures):
    """The number of meshes and the faults of a page."""
    faults = plain(browser, page) + fits(browser, page)
    meshes = browser.open(page)
    if meshes:
        faults += use(browser)
        faults += turns(browser, page)
    faults += [f"error: {error}" for error in browser.errors] + [f"asks for {url}" for url in browser.requests]
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
        for width in SCREENS:
            browser.screen(width)
            browser.open(page)
            if meshes:
                browser.until("look(scans[0]).painted > 0.02 || scrollY === 0", "the picture")
            time.sleep(1)
            browser.picture(pictures / f"{page.stem}-{width}.png")
        browser.screen(WINDOW["width"])
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
