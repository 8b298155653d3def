// What a page does beyond being read: values under the pointer (or the arrow keys), charts as SVG and PNG, slices that scroll.
// Without it the page says the same. Nothing is fetched.
'use strict';

const make = (name, set, ...children) => {
  const element = Object.assign(document.createElement(name), set);
  element.append(...children);
  return element;
};

function bytes(base64) {
  return Uint8Array.from(atob(base64), character => character.charCodeAt(0));
}

// ---- charts

(() => {

// The chart of a figure that is on the screen.
const shown = figure => [...figure.querySelectorAll('svg.chart')].find(svg => svg.getClientRects().length > 0);

// Position of the number in a rising list that is nearest to `x`.
function nearest(places, x) {
  let low = 0, high = places.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (places[middle] < x) low = middle + 1; else high = middle;
  }
  return low > 0 && x - places[low - 1] <= places[low] - x ? low - 1 : low;
}

// A line that follows pointer and arrow keys, and a box with what every curve says there.
function crosshair(svg, data, box) {
  const [left, width, top, bottom, low, high, logarithmic] = svg.dataset.frame.split(' ').map(Number);
  const share = logarithmic ? v => Math.log(v / low) / Math.log(high / low) : v => (v - low) / (high - low);
  const series = data.series.map(one => ({ ...one, values: one.at ?? data.at }));
  for (const one of series) one.places = one.values.map(value => left + width * share(value));
  const stops = [...new Set(series.flatMap(one => one.places))].sort((a, b) => a - b);
  if (!stops.length) return;
  const line = document.createElementNS(svg.namespaceURI, 'line');
  line.setAttribute('class', 'cross');
  line.setAttribute('y1', top);
  line.setAttribute('y2', bottom);
  let stop = -1;
  const sample = one => {
    if (!one.class) return make('th', {});
    const mark = document.createElementNS(svg.namespaceURI, 'svg');
    mark.setAttribute('class', 'swatch');
    mark.setAttribute('viewBox', '0 0 24 12');
    const path = document.createElementNS(svg.namespaceURI, one.class.startsWith('line') ? 'path' : 'rect');
    for (const [name, value] of Object.entries({ class: one.class, d: 'M1 6H23', width: 24, height: 12 })) path.setAttribute(name, value);
    mark.append(path);
    return make('th', {}, mark);
  };
  const show = (next) => {
    stop = Math.max(0, Math.min(stops.length - 1, next));
    const x = stops[stop], rows = [];
    let heading = '', note = '';
    for (const one of series) {
      const i = nearest(one.places, x);
      // A curve that has nothing here says nothing.
      if (one.places.length === 0 || Math.abs(one.places[i] - x) > 6) continue;
      if (!heading || one.places[i] === x) heading = data.x[0] + (data.named ? data.named[i] : one.values[i]) + data.x[1];
      if (data.notes) note = data.places[data.notes[i]];
      if (one.unit && one.says[i] === 0) continue;
      rows.push(make('tr', {}, sample(one), make('td', { textContent: one.name }), make('td', { textContent: one.says[i] + (one.unit ?? '') })));
    }
    box.replaceChildren(make('b', { textContent: heading }), note, make('table', {}, ...rows));
    line.setAttribute('x1', x);
    line.setAttribute('x2', x);
    svg.append(line);
    box.hidden = false;
    const scale = svg.clientWidth / svg.viewBox.baseVal.width, right = x > left + width / 2;
    box.style.left = right ? '' : `${x * scale + 12}px`;
    box.style.right = right ? `${box.parentElement.clientWidth - x * scale + 12}px` : '';
  };
  const hide = () => {
    line.remove();
    box.hidden = true;
  };
  const follow = event => {
    const matrix = svg.getScreenCTM();
    if (matrix) show(nearest(stops, (event.clientX - matrix.e) / matrix.a));
  };
  svg.addEventListener('pointermove', follow);
  svg.addEventListener('pointerdown', follow);
  svg.addEventListener('pointerleave', hide);
  svg.addEventListener('blur', hide);
  svg.addEventListener('keydown', event => {
    const to = { ArrowLeft: stop - 1, ArrowRight: stop + 1, Home: 0, End: stops.length - 1 }[event.key];
    if (event.key === 'Escape') hide();
    if (to === undefined) return;
    show(to);
    event.preventDefault();
  });
  svg.tabIndex = 0;
}

// What a chart looks like, written into its elements: other programs know neither the page's classes nor its variables.
const LOOK = ['fill', 'fill-opacity', 'stroke', 'stroke-width', 'stroke-opacity', 'stroke-dasharray', 'stroke-linejoin',
  'stroke-linecap', 'opacity', 'font-size', 'font-weight', 'text-anchor', 'paint-order'];

function standalone(svg) {
  const copy = svg.cloneNode(true), [, , width, height] = svg.getAttribute('viewBox').split(' ');
  const originals = [...svg.querySelectorAll('*')], copies = [...copy.querySelectorAll('*')];
  originals.forEach((original, i) => {
    const look = getComputedStyle(original);
    for (const name of LOOK) copies[i].setAttribute(name, look.getPropertyValue(name));
    copies[i].removeAttribute('class');
  });
  copy.querySelectorAll('line.cross').forEach(line => line.remove());
  for (const [name, value] of Object.entries({ width, height, 'font-family': 'system-ui, sans-serif' })) copy.setAttribute(name, value);
  for (const name of ['class', 'tabindex', 'data-frame']) copy.removeAttribute(name);
  const ground = document.createElementNS(svg.namespaceURI, 'rect');
  const page = getComputedStyle(document.body).backgroundColor;
  for (const [name, value] of Object.entries({ width, height, fill: page })) ground.setAttribute(name, value);
  copy.prepend(ground);
  return { text: new XMLSerializer().serializeToString(copy), width: Number(width), height: Number(height) };
}

function save(blob, name) {
  const link = make('a', { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

const SHARPNESS = 3; // pixels of a PNG a unit of the chart

async function picture({ text, width, height }) {
  const image = new Image();
  image.src = URL.createObjectURL(new Blob([text], { type: 'image/svg+xml' }));
  await image.decode();
  const canvas = make('canvas', { width: width * SHARPNESS, height: height * SHARPNESS });
  canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(image.src);
  return new Promise(done => canvas.toBlob(done, 'image/png'));
}

for (const figure of document.querySelectorAll('figure.plot')) {
  const values = figure.querySelector('script.values'), charts = figure.querySelector('.charts');
  if (values) {
    const data = JSON.parse(values.textContent), box = make('div', { className: 'readout', hidden: true });
    box.setAttribute('role', 'status');
    charts.append(box);
    figure.querySelectorAll('svg[data-frame]').forEach(svg => crosshair(svg, data, box));
  }
  const name = shown(figure)?.getAttribute('aria-label') ?? figure.querySelector('svg').getAttribute('aria-label');
  const file = name.toLowerCase().replace(/[^a-z0-9]+/g, '-');
  const button = (kind, act) => make('button', { type: 'button', textContent: kind, title: `Save this chart as ${kind}`, onclick: act });
  charts.after(make('p', { className: 'tools' },
    button('SVG', () => save(new Blob([standalone(shown(figure)).text], { type: 'image/svg+xml' }), `${file}.svg`)),
    button('PNG', async () => save(await picture(standalone(shown(figure))), `${file}.png`))));
}

// For tests of the page.
window.ossnet = { standalone, picture };
})();

// ---- slices

(() => {

// Axes of the stack (columns to the left, rows to the back, slices downwards) along each plane's columns and rows, and across.
const PLANES = { sagittal: [1, 2, 0], coronal: [0, 2, 1], axial: [0, 1, 2] };

async function inflate(text) {
  const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Along the edges of pixels where `inside` changes: a run is one segment.
function outline(classes, width, height) {
  const at = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : classes[y * width + x]);
  let path = '';
  for (let y = 0; y <= height; y++) {
    for (let x = 0, start = -1; x <= width; x++) {
      const edge = x < width && at(x, y - 1) !== at(x, y);
      if (edge && start < 0) start = x;
      if (!edge && start >= 0) { path += `M${start} ${y}h${x - start}`; start = -1; }
    }
  }
  for (let x = 0; x <= width; x++) {
    for (let y = 0, start = -1; y <= height; y++) {
      const edge = y < height && at(x - 1, y) !== at(x, y);
      if (edge && start < 0) start = y;
      if (!edge && start >= 0) { path += `M${x} ${start}v${y - start}`; start = -1; }
    }
  }
  return path;
}

class Stack {
  constructor(element) {
    this.root = element.parentElement;
    Object.assign(this, JSON.parse(element.textContent)); // shape, start, step, own, at, image, masks
    this.place = this.at.map((at, k) => this.clamp(k, Math.floor((at - this.start[k]) / this.step[k])));
    this.sliders = { sagittal: [], coronal: [], axial: [] };
    for (const grid of this.root.querySelectorAll('.slices')) {
      for (const plane of Object.keys(PLANES)) grid.append(this.slider(plane));
    }
    for (const svg of this.root.querySelectorAll('svg.slice')) this.listen(svg);
    this.label();
  }

  clamp(k, value) { return Math.max(0, Math.min(this.shape[k] - 1, value)); }

  // The scan's own index of where an axis stands.
  index(k) {
    const [first, sign] = this.own[k];
    return first + sign * (this.start[k] + this.place[k] * this.step[k] + Math.floor(this.step[k] / 2));
  }

  // Sliders run with the scan's own indices.
  slider(plane) {
    const across = PLANES[plane][2], last = this.shape[across] - 1;
    const input = make('input', { type: 'range', min: 0, max: last, step: 1 }), text = make('span');
    input.setAttribute('aria-label', `${plane} slice`);
    input.addEventListener('input', () => this.move({ [across]: this.turned(across, Number(input.value)) }));
    this.sliders[plane].push({ input, text });
    return make('label', { className: 'slider' }, input, text);
  }

  turned(k, value) { return this.own[k][1] < 0 ? this.shape[k] - 1 - value : value; }

  label() {
    for (const [plane, [, , across]] of Object.entries(PLANES)) {
      for (const { input, text } of this.sliders[plane]) {
        input.value = this.turned(across, this.place[across]);
        text.textContent = `${plane} ${this.index(across)}`;
        input.setAttribute('aria-valuetext', text.textContent);
      }
    }
  }

  listen(svg) {
    const [columns, rows, across] = PLANES[svg.dataset.plane], group = svg.querySelector('g');
    svg.classList.add('scrolls');
    svg.addEventListener('click', event => {
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(group.getScreenCTM().inverse());
      const to = (k, value) => this.clamp(k, Math.floor((value - this.start[k]) / this.step[k]));
      this.move({ [columns]: to(columns, point.x), [rows]: to(rows, point.y) });
      const grid = svg.parentElement, planes = Object.keys(PLANES);
      grid.querySelectorAll('.slider input')[planes.indexOf(svg.dataset.plane)].focus({ preventScroll: true });
    });
    svg.addEventListener('wheel', event => {
      // The page scrolls until a slice of this scan has been chosen.
      if (!this.root.contains(document.activeElement) || document.activeElement.type !== 'range') return;
      event.preventDefault();
      this.move({ [across]: this.clamp(across, this.place[across] + Math.sign(event.deltaY)) });
    }, { passive: false });
  }

  // The voxels, unpacked when they are first asked for.
  async load() {
    this.voxels ??= (async () => {
      const image = await inflate(this.image);
      for (let i = 1; i < image.length; i++) image[i] += image[i - 1];
      return { image, masks: await Promise.all(this.masks.map(inflate)) };
    })();
    return this.voxels;
  }

  async move(places) {
    for (const [k, value] of Object.entries(places)) this.place[k] = value;
    this.label();
    const { image, masks } = await this.load();
    for (const [plane, axes] of Object.entries(PLANES)) this.draw(plane, axes, image, masks);
    this.root.dataset.moved = this.place.join(' ');
  }

  draw(plane, [columns, rows, across], image, masks) {
    const { shape, start, step } = this, [width, height] = [shape[columns], shape[rows]];
    const strides = [1, shape[0], shape[0] * shape[1]];
    const cut = voxels => {
      const out = new Uint8Array(width * height);
      for (let y = 0, i = 0; y < height; y++) {
        let place = y * strides[rows] + this.place[across] * strides[across];
        for (let x = 0; x < width; x++, i++, place += strides[columns]) out[i] = voxels[place];
      }
      return out;
    };
    const canvas = make('canvas', { width, height }), context = canvas.getContext('2d'), film = context.createImageData(width, height);
    cut(image).forEach((grey, i) => film.data.set([grey, grey, grey, 255], 4 * i));
    context.putImageData(film, 0, 0);
    const uri = canvas.toDataURL(), cuts = masks.map(cut);
    for (const element of this.root.querySelectorAll(`image[data-plane="${plane}"]`)) {
      const box = { href: uri, x: start[columns], y: start[rows], width: width * step[columns], height: height * step[rows] };
      for (const [name, value] of Object.entries(box)) element.setAttribute(name, value);
    }
    for (const element of this.root.querySelectorAll(`path[data-plane="${plane}"]`)) {
      const { mask, value } = element.dataset, classes = cuts[mask];
      element.setAttribute('d', outline(value ? classes.map(one => Number(one === Number(value))) : classes, width, height));
      element.setAttribute('transform', `translate(${start[columns]} ${start[rows]}) scale(${step[columns]} ${step[rows]})`);
    }
    for (const group of this.root.querySelectorAll(`svg.slice[data-plane="${plane}"] > g`)) {
      const middle = k => start[k] + (this.place[k] + 0.5) * step[k], reach = k => start[k] + shape[k] * step[k];
      const lines = [[middle(columns), start[rows], middle(columns), reach(rows)], [start[columns], middle(rows), reach(columns), middle(rows)]];
      group.querySelectorAll('.guide').forEach(line => line.remove());
      for (const ends of lines) {
        const line = document.createElementNS(group.namespaceURI, 'line');
        line.setAttribute('class', 'guide');
        ['x1', 'y1', 'x2', 'y2'].forEach((name, i) => line.setAttribute(name, ends[i]));
        group.append(line);
      }
    }
  }
}

if (typeof DecompressionStream !== 'undefined') document.querySelectorAll('script.stack').forEach(element => new Stack(element));
})();
