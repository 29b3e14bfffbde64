// The run, unpacked: events, messages and bars as typed arrays, and the questions asked of them.
// Knows the layout that chaos/view/model.py writes (version 1); must not know how anything looks.

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Response(stream).json();
}

/** Running sums: the inverse of differences(). */
function sums(list) {
  const found = new Float64Array(list.length);
  let total = 0;
  for (let i = 0; i < list.length; i++) found[i] = total += list[i];
  return found;
}

/** First place in sorted `list` whose value is not below `value`. */
function firstNotBelow(list, value, low = 0, high = list.length) {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Spans sorted by start, asked for those that touch an interval. */
class Spans {
  constructor(start, end) {
    this.start = start;
    this.end = end;
    this.reach = new Float64Array(Math.ceil(start.length / Spans.BLOCK));
    for (let i = 0; i < start.length; i++) {
      const block = (i / Spans.BLOCK) | 0;
      if (i % Spans.BLOCK === 0 || end[i] > this.reach[block]) this.reach[block] = end[i];
    }
  }

  /** Calls `visit(i)` for every span that touches [from, to]; returns how many. */
  within(from, to, visit) {
    const last = firstNotBelow(this.start, to + 1e-9);
    let count = 0;
    for (let i = 0; i < last; i++) {
      if (i % Spans.BLOCK === 0 && this.reach[i / Spans.BLOCK] < from) { i += Spans.BLOCK - 1; continue; }
      if (this.end[i] < from) continue;
      count++;
      visit(i);
    }
    return count;
  }
}
Spans.BLOCK = 64;

function barsOf(raw) {
  const start = sums(raw.start);
  const end = start.map((each, i) => each + raw.length[i]);
  const rows = [];
  raw.lane.forEach((lane, i) => { rows[lane] = Math.max(rows[lane] || 0, raw.row[i] + 1); });
  const spans = new Spans(start, end);
  return {
    count: start.length, lane: raw.lane, start, end, row: raw.row, number: raw.number, first: raw.first, last: raw.last, rows,
    what: (i) => raw.words[raw.what[i]], label: (i) => raw.words[raw.label[i]], within: (a, b, visit) => spans.within(a, b, visit),
  };
}

class Run {
  constructor(raw) {
    const events = raw.events;
    this.summary = raw.summary;
    this.end = raw.end;
    this.lanes = raw.lanes.map(([name, kind]) => ({ name, kind }));
    this.count = events.count;
    this.start = events.start;
    this.kinds = events.kinds;
    this.lives = events.lives;
    this.kind = Uint16Array.from(events.kind);
    this.life = Uint16Array.from(events.life);
    this.lane = this.life.map((life) => events.lives[life][0]);
    this.x = sums(events.x);
    this.ms = sums(events.ms);
    this.counter = events.counter;
    this.past = events.t;
    this.shape = Uint16Array.from(events.shape);
    this.shapes = events.shapes;
    this.columns = events.columns.map((each) => each.map(readColumn));
    this.row = new Uint32Array(this.count);
    const rows = new Uint32Array(events.shapes.length);
    for (let e = 0; e < this.count; e++) this.row[e] = rows[this.shape[e]]++;
    this.i = perLife(events.i, this.life, events.lives.length, 1);
    this.lc = perLife(events.lc, this.life, events.lives.length, 0);
    this.bands = raw.bands;
    this.story = raw.story;
    this.roles = barsOf(raw.roles);
    this.absences = barsOf(raw.absences);
    this.workloads = barsOf(raw.workloads);
    this.operations = barsOf(raw.operations);
    this.toxics = barsOf(raw.toxics);
    this.ofLane = this.lanes.map(() => []);
    for (let e = 0; e < this.count; e++) this.ofLane[this.lane[e]].push(e);
    // the axis may run ahead of the clock's order by less than a millisecond
    for (const list of this.ofLane) list.sort((a, b) => this.x[a] - this.x[b] || a - b);
    this.xOfLane = this.ofLane.map((list) => Float64Array.from(list, (e) => this.x[e]));
    this.messages = this.#messages(raw.messages);
  }

  #messages(raw) {
    const sent = Uint32Array.from(sums(raw.sent));
    const order = Uint32Array.from(sent.keys()).sort((a, b) => this.x[sent[a]] - this.x[sent[b]] || a - b);
    const pick = (list) => Int32Array.from(order, (m) => list[m]);
    const found = { count: order.length, sent: pick(sent), to: pick(raw.to), type: pick(raw.type), state: pick(raw.state), types: raw.types, classes: raw.classes };
    found.received = Int32Array.from(order, (m) => (raw.state[m] === 0 ? sent[m] + raw.flight[m] : -1));
    found.from = found.sent.map((e) => this.lane[e]);
    found.start = Float64Array.from(found.sent, (e) => this.x[e]);
    found.end = Float64Array.from(found.received, (e, m) => (e < 0 ? found.start[m] : Math.max(this.x[e], found.start[m])));
    found.class = found.type.map((type) => raw.classes.indexOf(raw.types[type][1]));
    const spans = new Spans(found.start, found.end);
    found.within = (a, b, visit) => spans.within(a, b, visit);
    return found;
  }

  name(e) { return this.kinds[this.kind[e]]; }
  node(e) { return this.lanes[this.lane[e]].name; }
  ref(e) { return `${this.node(e)}/${this.lives[this.life[e]][1]}/${this.i[e]}`; }

  field(e, name) {
    const at = this.shapes[this.shape[e]].indexOf(name);
    return at < 0 ? undefined : this.columns[this.shape[e]][at](this.row[e]);
  }

  fields(e) { return this.shapes[this.shape[e]].map((name, at) => [name, this.columns[this.shape[e]][at](this.row[e])]); }

  /** The event of a ref; -1 if the run has none. */
  find(ref) {
    if (!this.refs) {
      this.refs = new Map();
      for (let e = 0; e < this.count; e++) this.refs.set(this.ref(e), e);
    }
    const e = this.refs.get(ref);
    return e === undefined ? -1 : e;
  }

  /** Kind, ref and fields as lower-case text, for the search. */
  text(e) {
    this.texts ||= new Array(this.count);
    return (this.texts[e] ||= `${this.name(e)} ${this.ref(e)} ${this.fields(e).map(([k, v]) => `${k}=${plain(v)}`).join(' ')}`.toLowerCase());
  }

  hlc(e) { return ((BigInt(this.start + this.ms[e]) << 16n) | BigInt(this.counter[e])).toString(); }

  /** The wall clock of the event's own node, in seconds. */
  wall(e) { return this.past[e] === null ? 'out of range' : (((this.start + this.ms[e]) * 1000 + this.past[e]) / 1e6).toFixed(6); }
}

function readColumn(raw) {
  if (raw.d) {
    const values = sums(raw.d);
    return (row) => values[row];
  }
  return raw.v ? (row) => raw.v[raw.c[row]] : (row) => raw.r[row];
}

function perLife(list, life, lives, step) {
  const found = new Float64Array(list.length);
  const latest = new Float64Array(lives).fill(-step);
  for (let e = 0; e < list.length; e++) found[e] = latest[life[e]] = latest[life[e]] + step + list[e];
  return found;
}

function plain(value) { return typeof value === 'string' ? value : JSON.stringify(value); }
