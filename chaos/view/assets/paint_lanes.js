// What lasts, on its lane: role and term of replicas, workloads of agents, operations of callers, toxics;
// and single events as marks: commits, votes, placements, connections lost, violated invariants.

const THICK = { leader: 16, candidate: 9, 'pre-candidate': 7, follower: 4, learner: 4, starting: 2 };

function paintLanes(p) {
  const { g, run, layout } = p;
  run.lanes.forEach((lane, l) => {
    if (['replica', 'client', 'proxy'].includes(lane.kind) || !run.xOfLane[l].length) return;
    const found = p.extent(run.xOfLane[l][0], run.xOfLane[l].at(-1), 1);
    if (!found) return;
    g.fillStyle = '#c3ccd5';
    g.fillRect(found[0], layout.lanes[l].line - 1, found[1] - found[0], 2);
  });
  paintRoles(p);
  divideRows(p);
  paintBars(p, run.workloads, RUN_COLOURS, '#9aa6b2');
  paintBars(p, run.operations, OP_COLOURS, '#9aa6b2');
  paintBars(p, run.toxics, { toxic: BAD }, BAD);
}

function paintRoles(p) {
  const { g, run, layout } = p;
  const { roles } = run;
  roles.within(p.view.first, p.view.last, (b) => {
    const found = p.extent(roles.start[b], roles.end[b], 1.5);
    if (!found) return;
    const [left, right] = found;
    const { line } = layout.lanes[roles.lane[b]];
    const role = roles.what(b);
    const term = roles.number[b];
    const thick = THICK[role] || 4;
    const colour = termColour(term);
    g.fillStyle = colour;
    g.fillRect(left, line - thick / 2, right - left, thick);
    if (role === 'candidate' || role === 'pre-candidate') {
      g.fillStyle = '#ffffff99';
      for (let x = left; x < right; x += 6) g.fillRect(x, line - thick / 2, 2, thick);
    }
  });
}

/** Written last, so that nothing crosses the words. */
function paintRoleNames(p) {
  const { g, run, layout } = p;
  const { roles } = run;
  const free = run.lanes.map(() => -Infinity);
  roles.within(p.view.first, p.view.last, (b) => {
    const found = p.extent(roles.start[b], roles.end[b], 1.5);
    if (!found) return;
    const left = Math.max(found[0], GUTTER);
    const width = found[1] - left;
    const lane = roles.lane[b];
    const { line } = layout.lanes[lane];
    const [role, term] = [roles.what(b), roles.number[b]];
    if (role === 'leader') {
      const text = [`LEADER  term ${term}`, `LEADER ${term}`, `${term}`].find((each) => p.wide(each, 11, 700) + 10 < width);
      if (!text) return;
      g.fillStyle = termColour(term);
      g.fillRect(left, line - 8, p.wide(text, 11, 700) + 12, 16);
      p.words(text, left + 6, line + 0.5, { colour: '#fff', weight: 700 });
      free[lane] = left + p.wide(text, 11, 700) + 16;
      return;
    }
    if (role === 'starting' || left < free[lane]) return;
    const words = role === 'follower' ? [`term ${term}`, `t${term}`] : [`${role} ${term}`, role, `t${term}`];
    const text = words.find((each) => p.wide(each, 11, 600) + 8 < width);
    if (!text) return;
    p.words(text, left + 4, line - 11, { colour: termColour(term), weight: 600, halo: '#ffffffd0' });
    free[lane] = left + p.wide(text, 11, 600) + 10;
  });
}

/** How many rows the bars in view need decides how tall they are. */
function divideRows(p) {
  const used = p.run.lanes.map(() => 1);
  for (const bars of [p.run.workloads, p.run.operations, p.run.toxics]) {
    bars.within(p.view.first, p.view.last, (b) => { used[bars.lane[b]] = Math.max(used[bars.lane[b]], bars.row[b] + 1); });
  }
  p.layout.rowsFor(used);
}

/** Bars in the rows of their lanes; where many share a pixel one is drawn. */
function paintBars(p, bars, colours, otherwise) {
  const { g, view, layout, state } = p;
  const reached = new Map();
  bars.within(view.first, view.last, (b) => {
    const found = p.extent(bars.start[b], bars.end[b], 2);
    if (!found) return;
    const [left, right] = found;
    const lane = bars.lane[b];
    const key = lane * 64 + bars.row[b];
    if (right - (reached.get(key) ?? -Infinity) < 0.8) return;
    reached.set(key, right);
    const box = layout.lanes[lane];
    const tall = Math.max(1, Math.min(box.row - 1.5, 12));
    const y = box.base + bars.row[b] * box.row;
    const what = bars.what(b);
    g.globalAlpha = state.cone && !inCone(state.cone, bars.first[b]) ? 0.35 : 1;
    g.fillStyle = colours[what] || otherwise;
    if (what === 'unknown' || what === 'refused') {
      g.globalAlpha *= 0.8;
      g.fillRect(left, y, right - left, tall);
      if (tall > 3 && right - left > 5) {
        g.fillStyle = '#fff';
        g.fillRect(left + 1, y + 1, right - left - 2, tall - 2);
        g.fillStyle = colours[what];
        if (what === 'unknown') g.fillRect(left + 1, y + tall / 2 - 0.5, right - left - 2, 1);
      }
    } else g.fillRect(left, y, right - left, tall);
    g.globalAlpha = 1;
    if (['failed', 'oom', 'lost', 'fenced', 'lease'].includes(what) && view.x(bars.end[b]) <= view.width) p.cross(view.x(bars.end[b]), y + tall / 2, Math.min(3.5, tall));
    if (tall >= 9 && right - left > 40) {
      const room = right - Math.max(left, GUTTER) - 8;
      const text = p.fitted(bars.label(b).replace(/^default\//, ''), room, 9.5, 600);
      if (text) p.words(text, Math.max(left, GUTTER) + 4, y + tall / 2 + 0.5, { colour: what === 'unknown' || what === 'refused' ? INK : '#fff', size: 9.5, weight: 600 });
    }
  });
}

function inCone(cone, e) { return e >= 0 && (cone.past.member[e] || cone.future.member[e]); }

// kind → how it is marked; `gap`: at most one mark in so many pixels
const MARKS = {
  commit: { gap: 9, at: 13, draw: markCommit },
  vote: { gap: 6, at: -25, draw: markVote },
  place: { gap: 7, at: 32, draw: markPlace },
  conn: { gap: 6, at: -5, draw: markConnection },
  inv: { gap: 10, at: -20, draw: markViolation },
  lease: { gap: 6, at: -7, draw: markLease },
};

function paintMarks(p) {
  const { run, view, layout } = p;
  marksByLane(run);
  const seen = run.lanes.map((_, l) => [firstNotBelow(run.xOfLane[l], view.first), firstNotBelow(run.xOfLane[l], view.last)]);
  const total = seen.reduce((sum, [a, b]) => sum + b - a, 0);
  if (total <= 1200) paintTicks(p, seen);
  for (const [kind, mark] of Object.entries(MARKS)) {
    run.lanes.forEach((_, l) => {
      const { x, events } = run.marks[kind][l];
      const y = layout.lanes[l].line + mark.at;
      let free = -Infinity;
      for (let at = firstNotBelow(x, view.first - 20 * view.scale); at < x.length && x[at] <= view.last;) {
        const here = view.x(x[at]);
        const next = at + 1 < x.length ? view.x(x[at + 1]) - here : Infinity;
        mark.draw(p, here, y, events[at], Math.min(next, 400), here >= free ? (width) => { free = here + width; } : null);
        at = Math.max(at + 1, firstNotBelow(x, x[at] + mark.gap * view.scale, at));
      }
    });
  }
}

/** The events of each marked kind by lane; made once. */
function marksByLane(run) {
  if (run.marks) return;
  run.marks = {};
  for (const kind of Object.keys(MARKS)) {
    const number = run.kinds.indexOf(kind);
    run.marks[kind] = run.ofLane.map((list, l) => {
      const events = number < 0 ? [] : list.filter((e) => run.kind[e] === number && isMarked(run, kind, e, l));
      return { events, x: Float64Array.from(events, (e) => run.x[e]) };
    });
  }
}

function isMarked(run, kind, e, lane) {
  if (kind === 'place') return run.field(e, 'by') === run.lanes[lane].name && run.field(e, 'do') === 'bind';
  if (kind === 'conn') return run.field(e, 'what') !== 'opened';
  if (kind === 'lease') return ['grant', 'expire', 'refused', 'lost', 'storm'].includes(run.field(e, 'do'));
  return kind !== 'inv' || run.field(e, 'ok') === false;
}

function paintTicks(p, seen) {
  const { g, run, view, layout } = p;
  g.fillStyle = '#1c273388';
  seen.forEach(([from, to], l) => {
    if (run.lanes[l].kind === 'client' || run.lanes[l].kind === 'proxy') return;
    for (let at = from; at < to; at++) g.fillRect(view.x(run.xOfLane[l][at]) - 0.5, layout.lanes[l].line - 3, 1, 6);
  });
}

function markCommit(p, x, y, e, next, label) {
  const { g } = p;
  g.fillStyle = '#0b6e4f';
  g.globalAlpha = p.state.cone && !inCone(p.state.cone, e) ? 0.3 : 1;
  g.beginPath();
  g.moveTo(x, y - 4);
  g.lineTo(x - 3.5, y + 3);
  g.lineTo(x + 3.5, y + 3);
  g.fill();
  if (label && next > 30) {
    const text = String(p.run.field(e, 'index'));
    p.words(text, x, y + 10, { colour: '#0b6e4f', size: 10, align: 'center' });
    label(p.wide(text, 10) + 6);
  }
  g.globalAlpha = 1;
}

function markVote(p, x, y, e, next, label) {
  const { g } = p;
  g.fillStyle = CLASS_COLOURS.election;
  g.beginPath();
  g.arc(x, y, 3, 0, 7);
  g.fill();
  const text = `vote ${p.run.field(e, 'candidate')}`;
  if (label && next > p.wide(text, 10) + 10 && p.view.scale < 20000) {
    p.words(text, x + 6, y - 1, { colour: CLASS_COLOURS.election, size: 10, halo: '#ffffffcc' });
    label(p.wide(text, 10) + 10);
  }
}

function markPlace(p, x, y, e, next, label) {
  const { g } = p;
  g.fillStyle = '#0072b2';
  g.fillRect(x - 3, y - 3, 6, 6);
  const text = `${String(p.run.field(e, 'allocation')).replace(/^default\//, '')} → ${p.run.field(e, 'node')}`;
  if (label && next > p.wide(text, 10) + 12) {
    p.words(text, x + 6, y, { colour: '#0072b2', size: 10, halo: '#ffffffcc' });
    label(p.wide(text, 10) + 12);
  }
}

function markConnection(p, x, y) {
  const { g } = p;
  g.strokeStyle = '#7c1d3a';
  g.lineWidth = 1.2;
  g.beginPath();
  g.arc(x, y, 2.5, 0, 7);
  g.stroke();
}

function markViolation(p, x, y) { p.words('!', x, y, { colour: BAD, size: 15, weight: 800, align: 'center', halo: '#fff' }); }

/** A full diamond where a lease begins, an open one where it ends or is refused. */
function markLease(p, x, y, e) {
  const { g } = p;
  g.beginPath();
  g.moveTo(x, y - 4.5);
  g.lineTo(x + 4.5, y);
  g.lineTo(x, y + 4.5);
  g.lineTo(x - 4.5, y);
  g.closePath();
  g.fillStyle = p.run.field(e, 'do') === 'grant' ? '#8a6116' : '#fff';
  g.strokeStyle = p.run.field(e, 'do') === 'grant' ? '#8a6116' : BAD;
  g.lineWidth = 1.5;
  g.fill();
  g.stroke();
}
