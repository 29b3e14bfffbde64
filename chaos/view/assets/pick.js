// What lies under the pointer: an event, a bar, a message or a fault; and what to say about it.

class Picker {
  constructor(run, view, layout, state, painter) { Object.assign(this, { run, view, layout, state, painter }); }

  /** The event at a point of the chart; -1 if none is near. */
  at(x, y) {
    if (x < GUTTER || y < HEAD) return y < HEAD && x >= GUTTER ? this.#fault(x) : -1;
    const height = y + this.view.scroll;
    const lane = this.layout.at(height);
    if (lane < 0) return -1;
    const bar = this.#bar(x, height, lane);
    if (bar >= 0) return bar;
    const box = this.layout.lanes[lane];
    const near = Math.abs(height - box.line) < 34 ? this.#event(x, lane, 9) : -1;
    if (near >= 0 && Math.abs(height - box.line) < 16) return near;
    const message = this.#message(x, height);
    return message >= 0 ? message : near;
  }

  #event(x, lane, most) {
    const { run, view } = this;
    const list = run.xOfLane[lane];
    const middle = firstNotBelow(list, view.us(x));
    let best = -1;
    let least = most;
    for (let at = Math.max(0, middle - 200); at < Math.min(list.length, middle + 200); at++) {
      const e = run.ofLane[lane][at];
      const away = Math.abs(view.x(list[at]) - x) + weight(run.name(e));
      if (away < least) { least = away; best = e; }
    }
    return best;
  }

  #bar(x, y, lane) {
    for (const bars of [this.run.workloads, this.run.operations, this.run.toxics]) {
      if (!bars.rows[lane]) continue;
      const box = this.layout.lanes[lane];
      const row = Math.floor((y - box.base) / box.row);
      const [from, to] = [this.view.us(x - 3), this.view.us(x + 3)];
      let best = -1;
      bars.within(from, to, (b) => { if (bars.lane[b] === lane && bars.row[b] === row) best = bars.first[b]; });
      if (best >= 0) return best;
    }
    return -1;
  }

  #message(x, y) {
    if (this.painter.figures.mode !== 'arrows') return -1;
    const { run, view, state } = this;
    const { messages } = run;
    let best = -1;
    let least = 5;
    messages.within(view.us(x - 6), view.us(x + 6), (m) => {
      if (!state.classes[messages.class[m]]) return;
      let line = ends(this.painter, m);
      if (messages.received[m] < 0) {
        const [left, from, to] = stub(this.painter, m);
        line = [left, from, left + 5, to];
      }
      const away = distance(x, y, ...line);
      if (away < least) { least = away; best = messages.sent[m]; }
    });
    return best;
  }

  #fault(x) {
    const us = this.view.us(x);
    const margin = 3 * this.view.scale;
    const band = this.run.bands.find((each) => us >= each.start - margin && us <= each.end + margin);
    if (band) return band.first;
    let found = -1;
    const { absences } = this.run;
    absences.within(us - margin, us + margin, (b) => { if (absences.what(b) !== 'away') found = absences.first[b]; });
    return found;
  }
}

/** Rare kinds win over frequent ones at the same place. */
function weight(kind) {
  return { role: 0, vote: 0, fault: 0, heal: 0, inv: 0, lease: 0, run: 0.5, commit: 1, place: 1, op: 1, drop: 1, send: 2, recv: 2 }[kind] ?? 1.5;
}

function distance(x, y, x1, y1, x2, y2) {
  const [dx, dy] = [x2 - x1, y2 - y1];
  const along = Math.max(0, Math.min(1, ((x - x1) * dx + (y - y1) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(x - x1 - along * dx, y - y1 - along * dy);
}

/** One line about an event. */
function saying(run, e) {
  const f = (name) => { const value = run.field(e, name); return value === undefined || value === null ? '' : plain(value); };
  const words = {
    send: () => `sends ${f('type')} to ${f('to')}`,
    recv: () => `receives ${f('type')} from ${f('fr')}`,
    drop: () => `${f('type')} to ${f('to')} is dropped: ${f('why')}`,
    role: () => `becomes ${f('role')} in term ${f('term')}${f('why') && `: ${f('why')}`}`,
    vote: () => `votes for ${f('candidate')} in term ${f('term')}`,
    append: () => `has ${f('first')}–${f('index')} on disk`,
    commit: () => `commits ${f('first') === f('index') ? f('index') : `${f('first')}–${f('index')}`}`,
    apply: () => `applies ${f('first') === f('index') ? f('index') : `${f('first')}–${f('index')}`}`,
    op: () => `${f('op')} ${f('key')}: ${{ invoke: 'asked', ok: 'acknowledged', fail: `refused ${f('code')}`, info: `unknown ${f('code')}` }[f('ph')] || f('ph')}`,
    place: () => `${f('do')} ${f('allocation')} on ${f('node')}${f('by') && `, decided by ${f('by')}`}`,
    run: () => `${f('do')} ${f('allocation')} (attempt ${f('attempt')})`,
    job: () => `${f('do')} ${f('job')}`,
    node: () => `${f('do')} ${f('node')}: ${f('state')}`,
    fault: () => `fault ${f('kind')} on ${f('target')}`,
    heal: () => `heal ${f('kind')} on ${f('target')}`,
    conn: () => `connection with ${f('peer')} ${f('what')} ${f('why')}`,
    lease: () => `lease ${f('do')} ${f('node')} ${f('number')}`,
    note: () => f('text'),
    inv: () => `invariant ${f('name')} ${f('ok') === 'false' ? 'violated' : 'checked'}`,
  }[run.name(e)];
  return `${run.node(e)} ${words ? words() : run.name(e)}`.slice(0, 300);
}
