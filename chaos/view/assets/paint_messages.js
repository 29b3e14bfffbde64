// Messages: arrows while they can be told apart, density strips on the lanes when they cannot.
// A message that never arrived is a stub with a cross, whatever the zoom allows to show of the rest.

const ARROWS_MOST = 1600;
const STUBS_MOST = 700;

/** Draws the messages in view; returns how many as arrows. */
function paintMessages(p) {
  const { run, view, state } = p;
  const { messages } = run;
  const shown = [];
  const lost = [];
  let hidden = 0;
  messages.within(view.first, view.last, (m) => {
    if (!state.classes[messages.class[m]]) return;
    if (messages.received[m] < 0) { if (state.lost) lost.push(m); } else if (messages.from[m] !== messages.to[m]) shown.push(m);
    else hidden++;
  });
  const dense = shown.length > ARROWS_MOST;
  p.figures.mode = dense ? 'density' : 'arrows';
  p.figures.inView = shown.length + lost.length + hidden;
  let arrows = shown;
  if (dense) {
    paintDensity(p);
    const election = messages.classes.indexOf('election');
    const rare = shown.filter((m) => messages.class[m] === election);
    arrows = rare.length <= ARROWS_MOST / 2 ? rare : [];
    if (state.cone) arrows = arrows.concat(thinned(shown.filter((m) => inPast(state.cone, run, m) || inFuture(state.cone, run, m)), ARROWS_MOST / 2));
  }
  paintArrows(p, arrows);
  paintStubs(p, lost);
  return arrows.length;
}

function thinned(list, most) {
  if (list.length <= most) return list;
  const step = list.length / most;
  return Array.from({ length: Math.floor(most) }, (_, i) => list[Math.floor(i * step)]);
}

function inPast(cone, run, m) { return cone.past.member[run.messages.received[m]] === 1; }
function inFuture(cone, run, m) { return cone.future.member[run.messages.sent[m]] === 1; }

/** Arrows by style, one path each. */
function paintArrows(p, list) {
  const { g, run, state } = p;
  const { messages } = run;
  const heads = list.length < 500;
  const paths = new Map();
  const path = (style) => {
    if (!paths.has(style)) paths.set(style, new Path2D());
    return paths.get(style);
  };
  for (const m of list) {
    if (state.cone && inPast(state.cone, run, m)) arrow(p, path('past'), m, true);
    else if (state.cone && inFuture(state.cone, run, m)) arrow(p, path('future'), m, true);
    else arrow(p, path(messages.classes[messages.class[m]]), m, heads);
  }
  const crowded = list.length > 700 ? 0.4 : list.length > 250 ? 0.6 : 0.85;
  for (const [style, found] of paths) {
    const marked = style === 'past' || style === 'future';
    g.strokeStyle = style === 'past' ? PAST : style === 'future' ? FUTURE : CLASS_COLOURS[style];
    g.globalAlpha = marked ? 0.9 : state.cone ? 0.13 : style === 'election' ? 0.9 : crowded;
    g.lineWidth = marked || style === 'election' ? 1.5 : 1;
    g.stroke(found);
  }
  g.globalAlpha = 1;
}

function ends(p, m) {
  const { run, view, layout } = p;
  const { messages } = run;
  const [from, to] = [layout.lanes[messages.from[m]], layout.lanes[messages.to[m]]];
  return [view.x(messages.start[m]), from.line, view.x(messages.end[m]), to.line];
}

function arrow(p, path, m, head) {
  const [x1, y1, x2, y2] = ends(p, m);
  path.moveTo(x1, y1);
  path.lineTo(x2, y2);
  if (!head) return;
  const angle = Math.atan2(y2 - y1, x2 - x1);
  for (const turn of [-0.42, 0.42]) {
    path.moveTo(x2, y2);
    path.lineTo(x2 - 7 * Math.cos(angle + turn), y2 - 7 * Math.sin(angle + turn));
  }
}

/** Lost messages: towards their lane, but a third of the way; at most one in a few pixels a pair of lanes. */
function paintStubs(p, lost) {
  const { g, run, state } = p;
  const { messages } = run;
  const free = new Map();
  const gap = lost.length > STUBS_MOST ? 7 : 3;
  for (const m of lost) {
    const [x, from, to] = stub(p, m);
    const pair = messages.from[m] * 4096 + messages.to[m] + 1;
    if (x - (free.get(pair) ?? -Infinity) < gap) continue;
    free.set(pair, x);
    g.globalAlpha = state.cone && !inCone(state.cone, messages.sent[m]) ? 0.25 : 0.9;
    g.strokeStyle = BAD;
    g.lineWidth = 1;
    g.setLineDash(messages.state[m] === 1 ? [] : [3, 2]);
    g.beginPath();
    g.moveTo(x, from);
    g.lineTo(x + 5, to);
    g.stroke();
    g.setLineDash([]);
    p.cross(x + 5, to, 2.6);
    g.globalAlpha = 1;
  }
}

/** [x, from y, to y] of a message that never arrived. */
function stub(p, m) {
  const { run, view, layout } = p;
  const { messages } = run;
  const from = layout.lanes[messages.from[m]].line;
  const to = messages.to[m] < 0 ? from - 26 : layout.lanes[messages.to[m]].line;
  const reach = Math.sign(to - from || 1) * Math.min(Math.abs(to - from) * 0.36, 34);
  return [view.x(messages.start[m]), from, from + reach];
}

/** How many messages leave and reach a lane, in bins of three pixels, as a strip on both sides of its line. */
function paintDensity(p) {
  const { g, run, view, layout, state } = p;
  const key = state.classes.join();
  if (!run.touches || run.touches.key !== key) run.touches = touches(run, state.classes, key);
  const bin = 3;
  const bins = Math.ceil((view.width - GUTTER) / bin);
  const found = run.lanes.map((_, l) => densities(run.touches.of[l], view, bin, bins));
  const most = Math.max(...found.map((each) => each.most), 1);
  run.lanes.forEach((_, l) => {
    const box = layout.lanes[l];
    const room = run.lanes[l].kind === 'replica' ? Math.min(box.height / 2 - 22, 30) : 9;
    const foot = run.lanes[l].kind === 'replica' ? box.line - 19 : box.line - 2;
    g.fillStyle = state.cone ? '#8fa1b344' : '#8fa1b3aa';
    found[l].counts.forEach((count, b) => {
      if (!count) return;
      const tall = Math.max(1, Math.sqrt(count / most) * room);
      g.fillRect(GUTTER + b * bin, foot - tall, bin - 0.5, tall);
    });
  });
}

function touches(run, classes, key) {
  const { messages } = run;
  const of = run.lanes.map(() => []);
  for (let m = 0; m < messages.count; m++) {
    if (!classes[messages.class[m]]) continue;
    of[messages.from[m]].push(messages.start[m]);
    if (messages.received[m] >= 0) of[messages.to[m]].push(messages.end[m]);
  }
  return { key, of: of.map((list) => Float64Array.from(list).sort()) };
}

function densities(list, view, bin, bins) {
  const counts = new Uint32Array(bins);
  let most = 0;
  let from = firstNotBelow(list, view.us(GUTTER));
  for (let b = 0; b < bins && from < list.length; b++) {
    const to = firstNotBelow(list, view.us(GUTTER + (b + 1) * bin), from);
    counts[b] = to - from;
    most = Math.max(most, counts[b]);
    from = to;
  }
  return { counts, most };
}
