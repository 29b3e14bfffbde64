// Time on the screen: what is in view, how time is written, where ticks stand.

const GUTTER = 74; // width of the lanes' names, in pixels

class View {
  constructor(end) {
    this.end = Math.max(end, 1000);
    this.width = 800;
    this.height = 400;
    this.scroll = 0;
    this.fit();
  }

  get span() { return this.width - GUTTER - 12; }
  get last() { return this.first + this.span * this.scale; } // right edge, in microseconds
  x(us) { return GUTTER + (us - this.first) / this.scale; }
  us(x) { return this.first + (x - GUTTER) * this.scale; }

  fit() { this.show(-this.end * 0.012, this.end * 1.024); }

  /** Show `width` microseconds from `first`. */
  show(first, width) {
    this.scale = Math.min(Math.max(width / this.span, 0.02), (this.end * 1.6) / this.span);
    this.first = first;
    this.clamp();
  }

  zoom(factor, at = GUTTER + this.span / 2) {
    const held = this.us(at);
    this.scale = Math.min(Math.max(this.scale * factor, 0.02), (this.end * 1.6) / this.span);
    this.first = held - (at - GUTTER) * this.scale;
    this.clamp();
  }

  pan(pixels) {
    this.first += pixels * this.scale;
    this.clamp();
  }

  centre(us) {
    this.first = us - (this.span * this.scale) / 2;
    this.clamp();
  }

  /** Keep something of the run in sight. */
  clamp() {
    const width = this.span * this.scale;
    this.first = Math.min(Math.max(this.first, -width * 0.6), this.end - width * 0.4);
  }

  resize(width, height) {
    const shown = this.span * this.scale;
    this.width = width;
    this.height = height;
    this.scale = shown / this.span;
  }
}

const STEPS = [1, 2, 5].flatMap((n) => [0, 1, 2, 3, 4, 5].map((e) => n * 10 ** e)).sort((a, b) => a - b)
  .concat([1e6, 2e6, 5e6, 10e6, 15e6, 30e6, 60e6, 120e6, 300e6, 600e6, 1800e6, 3600e6, 14400e6, 86400e6]);

/** Ticks at round times, at least `gap` pixels apart. */
function ticks(first, last, scale, gap) {
  let step = STEPS.find((each) => each / scale >= gap);
  if (!step) step = 86400e6 * Math.ceil((gap * scale) / 86400e6);
  const found = [];
  for (let us = Math.ceil(Math.max(first, 0) / step) * step; us <= last && found.length < 400; us += step) found.push(us);
  return { step, at: found };
}

/** A time of the run, as exact as `step` needs. */
function clock(us, step = 1000) {
  const digits = step >= 1e6 ? 0 : step >= 1e5 ? 1 : step >= 1e4 ? 2 : step >= 1e3 ? 3 : step >= 100 ? 4 : step >= 10 ? 5 : 6;
  if (us < 120e6 || digits > 0) return `${(us / 1e6).toFixed(digits)} s`;
  const s = Math.round(us / 1e6);
  const hours = Math.floor(s / 3600);
  const minutes = `${Math.floor((s % 3600) / 60)}:${String(s % 60).padStart(2, '0')}`;
  return hours ? `${hours}:${minutes.padStart(5, '0')}` : `${minutes} min`;
}

function duration(us) {
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 1e6) return `${(us / 1000).toFixed(us < 1e4 ? 2 : us < 1e5 ? 1 : 0)} ms`;
  return `${(us / 1e6).toFixed(us < 1e7 ? 2 : 1)} s`;
}

function counted(number, word) { return `${number.toLocaleString('en')} ${word}${number === 1 ? '' : 's'}`; }
