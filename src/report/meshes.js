// The meshes of a page: each card's are decoded when it comes into view, drawn by one shared WebGL context, and copied to
// the card's own canvas with the letters of the anatomical directions and a scale. World axes: x right, y anterior, z superior; mm.
(() => {
'use strict';

const MOST_UPLOADED = 8;     // cards whose buffers stay on the GPU
const TURN = 0.35;           // radians a second while nobody has touched the mesh
const FRONT = { azimuth: 0.5, elevation: 0.18, zoom: 1 };
const still = matchMedia('(prefers-reduced-motion: reduce)').matches;

// ---- the renderer

const VERTEX = `#version 300 es
in vec3 position; in vec3 normal;
uniform vec3 right, up, towards; uniform vec2 scale; uniform float distance, depth;
out vec3 facing; out float near;
void main() {
  vec3 eye = vec3(dot(position, right), dot(position, up), dot(position, towards));
  facing = vec3(dot(normal, right), dot(normal, up), dot(normal, towards));
  near = eye.z / depth;
  float w = 1.0 - eye.z / distance;
  gl_Position = vec4(eye.xy * scale, -near * 0.45 * w, w);
}`;
const FRAGMENT = `#version 300 es
precision highp float;
in vec3 facing; in float near; uniform vec3 colour; out vec4 shown;
void main() {
  vec3 n = normalize(facing);
  if (n.z < 0.0) n = -n;
  float key = max(dot(n, normalize(vec3(-0.45, 0.65, 0.7))), 0.0);
  float fill = max(dot(n, normalize(vec3(0.8, -0.1, 0.5))), 0.0);
  float shine = pow(max(dot(n, normalize(vec3(-0.25, 0.4, 1.0))), 0.0), 42.0);
  float rim = pow(1.0 - n.z, 3.0);
  vec3 lit = colour * (0.2 + 0.82 * key + 0.24 * fill) + 0.16 * shine + 0.2 * rim * (0.4 + colour);
  lit *= 0.86 + 0.14 * clamp(near, -1.0, 1.0);
  shown = vec4(pow(lit, vec3(1.0 / 1.5)), 1.0);
}`;

function renderer() {
  const canvas = document.createElement('canvas');
  const gl = canvas.getContext('webgl2', { antialias: true, alpha: true, preserveDrawingBuffer: true });
  if (!gl) return null;
  const shader = (kind, source) => {
    const made = gl.createShader(kind);
    gl.shaderSource(made, source);
    gl.compileShader(made);
    return made;
  };
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, VERTEX));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER, FRAGMENT));
  gl.bindAttribLocation(program, 0, 'position');
  gl.bindAttribLocation(program, 1, 'normal');
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
  gl.useProgram(program);
  gl.enable(gl.DEPTH_TEST);
  const place = Object.fromEntries(['right', 'up', 'towards', 'scale', 'distance', 'depth', 'colour']
    .map(name => [name, gl.getUniformLocation(program, name)]));
  const buffer = (target, data) => {
    const made = gl.createBuffer();
    gl.bindBuffer(target, made);
    gl.bufferData(target, data, gl.STATIC_DRAW);
    return made;
  };
  return {
    canvas,
    upload(mesh) {
      const array = gl.createVertexArray();
      gl.bindVertexArray(array);
      const buffers = [mesh.positions, mesh.normals].map((values, slot) => {
        const made = buffer(gl.ARRAY_BUFFER, values);
        gl.enableVertexAttribArray(slot);
        gl.vertexAttribPointer(slot, 3, gl.FLOAT, false, 0, 0);
        return made;
      });
      buffers.push(buffer(gl.ELEMENT_ARRAY_BUFFER, mesh.indices));
      gl.bindVertexArray(null);
      const kind = mesh.indices instanceof Uint16Array ? gl.UNSIGNED_SHORT : gl.UNSIGNED_INT;
      return { array, buffers, kind, count: mesh.indices.length };
    },
    free({ array, buffers }) {
      gl.deleteVertexArray(array);
      buffers.forEach(made => gl.deleteBuffer(made));
    },
    draw(width, height, view, radius, meshes) {
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      gl.viewport(0, 0, width, height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.uniform3fv(place.right, view.right);
      gl.uniform3fv(place.up, view.up);
      gl.uniform3fv(place.towards, view.towards);
      gl.uniform2f(place.scale, 2 * view.pixels / width, 2 * view.pixels / height);
      gl.uniform1f(place.distance, 5 * radius);
      gl.uniform1f(place.depth, radius);
      for (const { uploaded, colour } of meshes) {
        gl.uniform3fv(place.colour, colour);
        gl.bindVertexArray(uploaded.array);
        gl.drawElements(gl.TRIANGLES, uploaded.count, uploaded.kind, 0);
      }
      gl.bindVertexArray(null);
    },
  };
}

// ---- decoding

// Positions are 16-bit steps from a corner of the bounding box; normals follow from the triangles.
function decode(stored, centre) {
  const steps = new Uint16Array(bytes(stored.positions).buffer), buffer = bytes(stored.indices).buffer;
  const indices = stored.vertices > 65535 ? new Uint32Array(buffer) : new Uint16Array(buffer);
  const positions = new Float32Array(steps.length), normals = new Float32Array(steps.length);
  for (let i = 0; i < steps.length; i++) {
    positions[i] = stored.origin[i % 3] - centre[i % 3] + stored.step[i % 3] * steps[i];
  }
  for (let t = 0; t < indices.length; t += 3) {
    const [a, b, c] = [3 * indices[t], 3 * indices[t + 1], 3 * indices[t + 2]];
    const u = [0, 1, 2].map(i => positions[b + i] - positions[a + i]);
    const v = [0, 1, 2].map(i => positions[c + i] - positions[a + i]);
    for (let i = 0; i < 3; i++) {
      const n = u[(i + 1) % 3] * v[(i + 2) % 3] - u[(i + 2) % 3] * v[(i + 1) % 3];
      normals[a + i] += n; normals[b + i] += n; normals[c + i] += n;
    }
  }
  return { positions, normals, indices };
}

const rgb = text => [1, 3, 5].map(i => parseInt(text.slice(i, i + 2), 16) / 255);

// ---- cards

class Card {
  constructor(element) {
    this.element = element;
    this.canvas = element.querySelector('canvas');
    this.context = this.canvas.getContext('2d');
    this.meshes = null;
    this.visible = false;
    this.touched = still;
    this.used = 0;
    Object.assign(this, FRONT);
    this.listen();
  }

  listen() {
    const { canvas } = this, pointers = new Map();
    let pinch = 0;
    const spread = () => {
      const [a, b] = [...pointers.values()];
      return Math.hypot(a.x - b.x, a.y - b.y);
    };
    canvas.addEventListener('pointerdown', event => {
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      if (pointers.size === 2) pinch = spread();
      try { canvas.setPointerCapture(event.pointerId); } catch { /* the pointer is gone already */ }
      this.touched = true;
      canvas.classList.add('grabbed');
    });
    canvas.addEventListener('pointermove', event => {
      const last = pointers.get(event.pointerId);
      if (!last) return;
      const now = { x: event.clientX, y: event.clientY };
      pointers.set(event.pointerId, now);
      if (pointers.size === 1) {
        this.turn((now.x - last.x) * 0.009, (now.y - last.y) * 0.009);
      } else if (pointers.size === 2 && pinch > 0) {
        this.scale(spread() / pinch);
        pinch = spread();
      }
    });
    for (const end of ['pointerup', 'pointercancel']) {
      canvas.addEventListener(end, event => {
        pointers.delete(event.pointerId);
        if (pointers.size === 0) canvas.classList.remove('grabbed');
      });
    }
    canvas.addEventListener('wheel', event => {
      event.preventDefault();
      this.scale(Math.exp(-event.deltaY * (event.deltaMode === 1 ? 0.05 : 0.0015)));
    }, { passive: false });
    canvas.addEventListener('dblclick', () => {
      Object.assign(this, FRONT, { touched: still });
      ask();
    });
    const keys = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
    canvas.addEventListener('keydown', event => {
      if (keys[event.key]) this.turn(...keys[event.key]);
      else if (event.key === '+' || event.key === '=') this.scale(1.15);
      else if (event.key === '-') this.scale(1 / 1.15);
      else return;
      event.preventDefault();
    });
    this.element.querySelectorAll('input[data-mesh]').forEach(box => box.addEventListener('change', ask));
  }

  turn(across, down) {
    this.touched = true;
    this.azimuth += across;
    this.elevation = Math.min(1.55, Math.max(-1.55, this.elevation + down));
    ask();
  }

  scale(factor) {
    this.touched = true;
    this.zoom = Math.min(12, Math.max(0.4, this.zoom * factor));
    ask();
  }

  load() {
    if (this.meshes) return;
    const stored = JSON.parse(this.element.querySelector('script.meshes').textContent);
    const low = [0, 1, 2].map(i => Math.min(...stored.map(mesh => mesh.origin[i])));
    const high = [0, 1, 2].map(i => Math.max(...stored.map(mesh => mesh.origin[i] + 65535 * mesh.step[i])));
    const centre = low.map((value, i) => (value + high[i]) / 2);
    this.meshes = stored.map(mesh => ({ ...decode(mesh, centre), colour: rgb(mesh.colour), uploaded: null }));
    this.radius = 1e-3;
    for (const { positions: p } of this.meshes) {
      for (let i = 0; i < p.length; i += 3) this.radius = Math.max(this.radius, Math.hypot(p[i], p[i + 1], p[i + 2]));
    }
    this.element.dataset.decoded = String(stored.reduce((sum, mesh) => sum + mesh.triangles, 0));
  }

  free() {
    for (const mesh of this.meshes ?? []) {
      if (mesh.uploaded) gpu.free(mesh.uploaded);
      mesh.uploaded = null;
    }
  }

  view(height) {
    const { azimuth: a, elevation: e } = this;
    return {
      right: [-Math.cos(a), Math.sin(a), 0],
      up: [-Math.sin(a) * Math.sin(e), -Math.cos(a) * Math.sin(e), Math.cos(e)],
      towards: [Math.sin(a) * Math.cos(e), Math.cos(a) * Math.cos(e), Math.sin(e)],
      pixels: 0.39 * height / this.radius * this.zoom,
    };
  }

  draw(time) {
    const ratio = Math.min(2, devicePixelRatio || 1);
    const width = Math.round(this.canvas.clientWidth * ratio), height = Math.round(this.canvas.clientHeight * ratio);
    if (!width || !height) return;
    this.load();
    this.used = time;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    const boxes = [...this.element.querySelectorAll('input[data-mesh]')];
    const shown = this.meshes.filter((_, i) => boxes[i]?.checked ?? true);
    for (const mesh of shown) mesh.uploaded ??= gpu.upload(mesh);
    const view = this.view(Math.min(width, height));
    gpu.draw(width, height, view, this.radius, shown);
    this.context.clearRect(0, 0, width, height);
    this.context.drawImage(gpu.canvas, 0, 0);
    this.letters(width, height, ratio, view);
    this.ruler(width, height, ratio, view);
  }

  // The six directions around the mesh; those that point away from the viewer are pale.
  letters(width, height, ratio, view) {
    const { context } = this, reach = Math.min(width, height) / 2 - 14 * ratio;
    context.font = `600 ${13 * ratio}px system-ui, sans-serif`;
    context.textAlign = 'center';
    context.textBaseline = 'middle';
    const names = [['R', 1, 0, 0], ['L', -1, 0, 0], ['A', 0, 1, 0], ['P', 0, -1, 0], ['S', 0, 0, 1], ['I', 0, 0, -1]];
    for (const [name, ...axis] of names) {
      const along = direction => axis.reduce((sum, value, i) => sum + value * direction[i], 0);
      const [x, y, z] = [along(view.right), along(view.up), along(view.towards)];
      const flat = Math.hypot(x, y);
      if (flat < 0.35) continue;
      context.fillStyle = `rgba(207, 214, 220, ${(z < -0.2 ? 0.4 : 0.95) * Math.min(1, (flat - 0.35) / 0.25)})`;
      context.fillText(name, width / 2 + x / flat * reach, height / 2 - y / flat * reach);
    }
  }

  ruler(width, height, ratio, view) {
    const wanted = 0.22 * width / view.pixels, power = 10 ** Math.floor(Math.log10(wanted));
    const length = [5, 2, 1].find(step => step * power <= wanted) * power;
    const { context } = this, margin = 12 * ratio, y = height - margin;
    context.strokeStyle = context.fillStyle = 'rgba(207, 214, 220, 0.9)';
    context.lineWidth = 1.5 * ratio;
    context.beginPath();
    context.moveTo(margin, y - 4 * ratio);
    context.lineTo(margin, y);
    context.lineTo(margin + length * view.pixels, y);
    context.lineTo(margin + length * view.pixels, y - 4 * ratio);
    context.stroke();
    context.font = `${11.5 * ratio}px system-ui, sans-serif`;
    context.textAlign = 'left';
    context.textBaseline = 'alphabetic';
    context.fillText(length >= 10 ? `${length / 10} cm` : `${length} mm`, margin, y - 8 * ratio);
  }
}

// ---- the page

let gpu = renderer();
const cards = [...document.querySelectorAll('.scan')].filter(element => element.querySelector('canvas'));
if (!gpu) {
  for (const element of cards) {
    const note = document.createElement('p');
    note.className = 'note onmesh';
    note.textContent = 'This browser shows no WebGL 2; the mesh files beside this page open in any mesh viewer.';
    element.querySelector('canvas').replaceWith(note);
  }
  return;
}

let asked = false, last = 0;
const all = cards.map(element => new Card(element));
function ask() {
  if (!asked) requestAnimationFrame(frame);
  asked = true;
}
function frame(time) {
  asked = false;
  const passed = Math.min(0.1, (time - last) / 1000);
  last = time;
  for (const card of all) {
    if (!card.visible) continue;
    if (!card.touched) card.azimuth += TURN * passed;
    card.draw(time);
  }
  const held = all.filter(card => !card.visible && card.meshes?.some(mesh => mesh.uploaded));
  held.sort((a, b) => b.used - a.used).slice(MOST_UPLOADED).forEach(card => card.free());
  if (all.some(card => card.visible && !card.touched)) ask();
}
gpu.canvas.addEventListener('webglcontextlost', event => event.preventDefault());
gpu.canvas.addEventListener('webglcontextrestored', () => {
  for (const mesh of all.flatMap(card => card.meshes ?? [])) mesh.uploaded = null;
  gpu = renderer() ?? gpu;
  ask();
});
const watch = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) {
    all.find(card => card.element === target).visible = isIntersecting;
  }
  ask();
}, { rootMargin: '80px' });
all.forEach(card => watch.observe(card.element));
addEventListener('resize', ask);
})();
