// Colours, text and the frame: grounds, faults, axis.  Colours come from palettes that people with any
// colour vision can tell apart, and every meaning has a shape or a word besides its colour.

const INK = '#1c2733';
const SOFT = '#5a6876';
const LINE = '#d7dee5';
const BAD = '#b3123a';
const PAST = '#0b63a5';
const FUTURE = '#b85c00';
const FONT = 'system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif';
const TERMS = ['#0067a3', '#b56a00', '#007a5a', '#a84f84', '#2b7fae', '#bd4a00', '#6656a6', '#6f6f00'];
const CLASS_COLOURS = { election: '#7b3fa0', replication: '#51677b', call: '#0b8686', session: '#8a6116', snapshot: '#b0307f', membership: '#2f62c9', other: '#6b6b6b' };
const CLASS_WORDS = { election: 'votes', replication: 'appends', call: 'calls', session: 'agent sessions', snapshot: 'snapshots', membership: 'membership', other: 'other messages' };
const SIDES = ['#fbe8c8', '#dcebf8', '#e4f1dc', '#f1e3f3'];
const RUN_COLOURS = { running: '#2f78b7', ok: '#5e9c7c', stopped: '#6f9fc8', failed: BAD, oom: BAD, lost: '#c9822b', fenced: '#6a3d9a', lease: '#6a3d9a' };
const OP_COLOURS = { acked: '#3c8f6d', refused: '#c9822b', unknown: '#6a3d9a' };

const termColour = (term) => (term > 0 ? TERMS[(term - 1) % TERMS.length] : '#9aa6b2');

class Painter {
  constructor(canvas, run, view, layout, state) {
    Object.assign(this, { canvas, run, view, layout, state });
    this.g = canvas.getContext('2d', { alpha: false });
    this.figures = { frames: 0, longest: 0, last: 0, arrows: 0, mode: '' };
  }

  /** The canvas takes the size its style gives it; false if that is nothing. */
  measure() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return false;
    const ratio = Math.min(window.devicePixelRatio || 1, 3);
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.ratio = ratio;
    this.view.resize(width, height);
    this.layout.fit(height);
    return true;
  }

  draw() {
    const began = performance.now();
    const { g, view, layout } = this;
    view.scroll = Math.max(0, Math.min(view.scroll, layout.total - view.height + 6));
    g.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    g.fillStyle = '#fff';
    g.fillRect(0, 0, view.width, view.height);
    g.save();
    g.beginPath();
    g.rect(0, HEAD, view.width, view.height - HEAD);
    g.clip();
    g.translate(0, -view.scroll);
    this.grounds();
    g.save();
    g.beginPath();
    g.rect(GUTTER, 0, view.width - GUTTER, layout.total + view.height);
    g.clip();
    this.sides();
    this.gridlines();
    this.cones();
    paintLanes(this);
    this.figures.arrows = paintMessages(this);
    paintMarks(this);
    paintRoleNames(this);
    this.cursor();
    g.restore();
    this.names();
    g.restore();
    this.head();
    if (!this.run.count) this.words('The trace holds no events.', view.width / 2, view.height / 2, { align: 'center', colour: SOFT, size: 14 });
    this.edges();
    const took = performance.now() - began;
    Object.assign(this.figures, { frames: this.figures.frames + 1, last: took, longest: Math.max(this.figures.longest, took) });
  }

  words(text, x, y, { colour = INK, size = 11, weight = 400, align = 'left', halo = '' } = {}) {
    const { g } = this;
    g.font = `${weight} ${size}px ${FONT}`;
    g.textAlign = align;
    g.textBaseline = 'middle';
    if (halo) {
      g.strokeStyle = halo;
      g.lineWidth = 3;
      g.lineJoin = 'round';
      g.strokeText(text, x, y);
    }
    g.fillStyle = colour;
    g.fillText(text, x, y);
  }

  wide(text, size = 11, weight = 400) {
    this.g.font = `${weight} ${size}px ${FONT}`;
    return this.g.measureText(text).width;
  }

  /** `text`, or as much of it as fits into `room` pixels; "" if hardly any does. */
  fitted(text, room, size = 11, weight = 400) {
    if (room < 14) return '';
    if (this.wide(text, size, weight) <= room) return text;
    let low = 0;
    let high = text.length;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.wide(`${text.slice(0, middle)}…`, size, weight) <= room) low = middle;
      else high = middle - 1;
    }
    return low < 2 ? '' : `${text.slice(0, low)}…`;
  }

  /** [left, right] of a span on the screen, cut to the canvas; null outside. */
  extent(start, end, least = 0) {
    const { view } = this;
    const left = view.x(start);
    const right = Math.max(view.x(end), left + least);
    if (right < GUTTER || left > view.width) return null;
    return [Math.max(left, GUTTER - 4), Math.min(right, view.width + 4)];
  }

  grounds() {
    const { g, run, layout, view } = this;
    run.lanes.forEach((lane, l) => {
      const box = layout.lanes[l];
      g.fillStyle = l % 2 ? '#fbfcfd' : '#ffffff';
      g.fillRect(0, box.top, view.width, box.height);
      const border = l > 0 && run.lanes[l - 1].kind !== lane.kind;
      g.fillStyle = border ? '#b9c4ce' : '#edf0f3';
      g.fillRect(0, box.top, view.width, 1);
    });
  }

  sides() {
    const { g, layout, run } = this;
    for (const band of run.bands) {
      const found = this.extent(band.start, band.end, 2);
      if (!found) continue;
      const [left, right] = found;
      band.sides.forEach((side, number) => {
        g.fillStyle = SIDES[number % SIDES.length];
        for (const l of side) g.fillRect(left, layout.lanes[l].top, right - left, layout.lanes[l].height);
      });
      if (!band.sides.length) this.links(band, left, right);
    }
    const { absences } = run;
    absences.within(this.view.first, this.view.last, (b) => {
      const found = this.extent(absences.start[b], absences.end[b], 2);
      if (!found) return;
      const box = layout.lanes[absences.lane[b]];
      g.fillStyle = absences.what(b) === 'pause' ? '#5a687626' : '#5a687640';
      g.fillRect(found[0], box.top, found[1] - found[0], box.height);
      this.hatch(found[0], box.top, found[1] - found[0], box.height, absences.what(b) === 'pause' ? 14 : 8);
    });
  }

  /** Links cut or disturbed one by one: a tie between the two lanes at both ends of the fault. */
  links(band, left, right) {
    const { g, layout } = this;
    const shown = band.links.slice(0, 24);
    shown.forEach(([from, to], number) => {
      const [a, b] = [layout.lanes[from].line, layout.lanes[to].line];
      g.fillStyle = band.cut ? '#b3123a0c' : '#8a61160f';
      g.fillRect(left, Math.min(a, b), right - left, Math.abs(a - b));
      g.strokeStyle = band.cut ? BAD : '#8a6116';
      g.lineWidth = 1;
      g.setLineDash(band.cut ? [4, 3] : [1, 3]);
      const x = left + 4 + number * 9;
      if (x > right) return;
      g.beginPath();
      g.moveTo(x, a);
      g.lineTo(x, b);
      g.stroke();
      g.setLineDash([]);
      const sign = Math.sign(b - a);
      g.beginPath();
      g.moveTo(x - 3.5, b - sign * 8);
      g.lineTo(x, b - sign * 2);
      g.lineTo(x + 3.5, b - sign * 8);
      g.stroke();
      if (band.cut) this.cross(x, (a + b) / 2, 4);
    });
  }

  hatch(x, y, width, height, gap) {
    const { g } = this;
    g.save();
    g.beginPath();
    g.rect(x, y, width, height);
    g.clip();
    g.strokeStyle = '#1c273330';
    g.lineWidth = 1;
    g.beginPath();
    const from = Math.floor((x - height) / gap) * gap;
    for (let at = from; at < x + width; at += gap) {
      g.moveTo(at, y + height);
      g.lineTo(at + height, y);
    }
    g.stroke();
    g.restore();
  }

  cross(x, y, size) {
    const { g } = this;
    g.strokeStyle = BAD;
    g.lineWidth = 1.6;
    g.beginPath();
    g.moveTo(x - size, y - size);
    g.lineTo(x + size, y + size);
    g.moveTo(x - size, y + size);
    g.lineTo(x + size, y - size);
    g.stroke();
  }

  gridlines() {
    const { g, view, layout } = this;
    g.fillStyle = '#1c273310';
    for (const us of ticks(view.first, view.last, view.scale, 90).at) g.fillRect(Math.round(view.x(us)), HEAD, 1, layout.total - HEAD);
  }

  /** How far past and future reach on every lane. */
  cones() {
    const { g, view, layout, state } = this;
    if (!state.cone) return;
    this.run.lanes.forEach((_, l) => {
      const box = layout.lanes[l];
      const past = state.cone.past.edge[l];
      const future = state.cone.future.edge[l];
      g.globalAlpha = 0.22;
      if (past !== null && view.x(past) > GUTTER) {
        g.fillStyle = PAST;
        g.fillRect(GUTTER, box.line - 11, Math.min(view.x(past), view.width) - GUTTER, 22);
      }
      if (future !== null && view.x(future) < view.width) {
        g.fillStyle = FUTURE;
        const left = Math.max(view.x(future), GUTTER);
        g.fillRect(left, box.line - 11, Math.min(view.x(this.run.end), view.width) - left, 22);
      }
      g.globalAlpha = 1;
    });
  }

  cursor() {
    const { g, view, layout, state } = this;
    for (const e of state.hits ? state.hits.slice(0, 2000) : []) {
      const x = view.x(this.run.x[e]);
      if (x < GUTTER || x > view.width) continue;
      g.fillStyle = '#f2b600';
      g.fillRect(x - 1, layout.lanes[this.run.lane[e]].top + 2, 2, 7);
    }
    if (state.picked < 0) return;
    const x = view.x(this.run.x[state.picked]);
    const y = layout.lanes[this.run.lane[state.picked]].line;
    g.strokeStyle = '#1c273366';
    g.lineWidth = 1;
    g.setLineDash([2, 3]);
    g.beginPath();
    g.moveTo(x, HEAD + view.scroll);
    g.lineTo(x, layout.total);
    g.stroke();
    g.setLineDash([]);
    g.lineWidth = 4;
    g.strokeStyle = '#fff';
    g.beginPath();
    g.arc(x, y, 7.5, 0, 7);
    g.stroke();
    g.lineWidth = 2;
    g.strokeStyle = INK;
    g.stroke();
  }

  names() {
    const { g, run, layout } = this;
    run.lanes.forEach((lane, l) => {
      const box = layout.lanes[l];
      g.fillStyle = l % 2 ? '#fbfcfd' : '#ffffff';
      g.fillRect(0, box.top + 1, GUTTER, box.height - 1);
      g.fillStyle = LINE;
      g.fillRect(GUTTER - 1, box.top, 1, box.height);
      this.words(this.fitted(lane.name, GUTTER - 16, 13, 650), 10, box.name, { size: 13, weight: 650 });
      if (lane.name !== lane.kind && box.height > 40 && lane.kind !== 'other') this.words(lane.kind, 10, box.name + 14, { colour: SOFT, size: 10 });
    });
  }

  head() {
    const { g, view, run } = this;
    g.fillStyle = '#fff';
    g.fillRect(0, 0, view.width, HEAD);
    const { step, at } = ticks(view.first, view.last, view.scale, 90);
    for (const us of at) {
      const x = Math.round(view.x(us));
      if (x < GUTTER) continue;
      g.fillStyle = '#9aa6b2';
      g.fillRect(x, HEAD - 5, 1, 5);
      const half = this.wide(clock(us, step)) / 2 + 3;
      if (x < GUTTER + half || x > view.width - half) continue;
      this.words(clock(us, step), x, HEAD - 13, { colour: SOFT, align: 'center' });
    }
    g.fillStyle = '#b9c4ce';
    g.fillRect(0, HEAD - 1, view.width, 1);
    const faults = run.bands.map((band) => ({ start: band.start, end: band.end, text: band.label, colour: band.cut ? BAD : '#8a6116' }));
    for (let b = 0; b < run.absences.count; b++) {
      const what = run.absences.what(b);
      if (what !== 'away') faults.push({ start: run.absences.start[b], end: run.absences.end[b], text: `${what} ${run.lanes[run.absences.lane[b]].name}`, colour: '#46525e' });
    }
    faults.sort((a, b) => a.start - b.start);
    faults.forEach((fault, number) => this.fault(fault, faults, number));
  }

  /** One bar of the fault strip; its words may run on to the next fault. */
  fault(fault, all, number) {
    const { g, view } = this;
    const found = this.extent(fault.start, fault.end, 2);
    if (!found) return;
    const overlaps = all.slice(0, number).filter((other) => other.end > fault.start).length;
    const y = 3 + (overlaps % 3) * 5;
    g.fillStyle = fault.colour;
    g.fillRect(found[0], y, found[1] - found[0], 4);
    if (overlaps) return;
    const next = all.find((other) => other.start > fault.start);
    const left = Math.max(found[0], GUTTER + 2);
    const room = Math.min(next ? view.x(next.start) - 8 : view.width, view.width - 6) - left;
    this.words(this.fitted(fault.text, room, 11, 600), left, 17, { colour: fault.colour, weight: 600 });
  }

  /** Fades where lanes go on beyond the edge. */
  edges() {
    const { g, view, layout } = this;
    const below = layout.total - view.scroll - view.height;
    const more = layout.lanes.filter((box) => box.top + box.height / 2 - view.scroll > view.height).length;
    if (below > 8 && more) this.words(`↓ ${counted(more, 'more lane')}`, view.width - 10, view.height - 10, { align: 'right', colour: SOFT, halo: '#fff' });
    g.fillStyle = '#fff';
    g.fillRect(0, 0, GUTTER - 1, HEAD - 1);
    this.words('time', 10, HEAD - 13, { colour: SOFT, size: 11 });
    this.words('faults', 10, 10, { colour: SOFT, size: 11 });
  }
}
