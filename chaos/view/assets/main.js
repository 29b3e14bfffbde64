// Start, state and actions: binds run, view, painters, panel and input together.

async function open() {
  const began = performance.now();
  let run;
  try {
    run = new Run(await unpack($('data').textContent));
  } catch (error) {
    $('status').textContent = `This page's data cannot be read: ${error.message}. A browser of 2023 or later is needed.`;
    throw error;
  }
  const state = { picked: -1, cone: null, hits: null, hit: -1, query: '', lost: true, classes: run.messages.classes.map(() => true) };
  const view = new View(run.end);
  const layout = new Layout(run);
  const painter = new Painter($('chart'), run, view, layout, state);
  const strip = new Overview($('overview'), run, view, state);
  const causes = new Causes(run);
  const picker = new Picker(run, view, layout, state, painter);

  let asked = false;
  const draw = () => { asked = false; painter.draw(); strip.draw(); tellStatus(); };
  const redraw = () => { if (!asked) { asked = true; requestAnimationFrame(draw); } };
  let saving = 0;
  const moved = () => {
    redraw();
    clearTimeout(saving);
    saving = setTimeout(save, 150);
  };

  function tellStatus() {
    const { figures } = painter;
    const span = view.span * view.scale;
    const what = figures.mode === 'density' ? `${counted(figures.inView, 'message')} in view: too many for arrows, zoom in to see them` : `${counted(figures.inView, 'message')} in view`;
    const text = run.count ? `${duration(span)} shown from ${clock(Math.max(view.first, 0), Math.max(span / 100, 1))} · ${what}` : 'nothing was recorded';
    if ($('status').textContent !== text) $('status').textContent = text;
  }

  function pick(e, reveal = false) {
    state.picked = e;
    state.cone = e < 0 ? null : causes.of(e);
    panel.event(state.cone);
    if (e >= 0) panel.open('event');
    if (e >= 0 && reveal) show(e);
    moved();
  }

  /** Bring an event into sight without changing the zoom, unless that would hide all detail. */
  function show(e) {
    const x = view.x(run.x[e]);
    if (x < GUTTER + 40 || x > view.width - 60) view.centre(run.x[e]);
    const box = layout.lanes[run.lane[e]];
    if (box.top - view.scroll < HEAD || box.top + box.height - view.scroll > view.height) view.scroll = box.top - HEAD - 20;
  }

  function neighbour(e, step) {
    const list = run.ofLane[run.lane[e]];
    return list[causes.position[e] + step] ?? -1;
  }

  /** Show the events of a sentence, with some room around them. */
  function tell(sentence) {
    const places = sentence.refs.map((e) => run.x[e]);
    const [low, high] = [Math.min(sentence.x, ...places), Math.max(sentence.x, ...places)];
    const width = Math.max((high - low) * 1.5, Math.min(run.end, 400e3));
    view.show((low + high) / 2 - width / 2, width);
    panel.here(sentence);
    state.hits = sentence.refs;
    state.query = '';
    moved();
  }

  function find(query) {
    state.query = query.trim();
    state.hit = -1;
    state.hits = null;
    if (state.query) {
      const exact = run.find(state.query);
      if (exact >= 0) { state.hits = [exact]; panel.found(state.query, state.hits); pick(exact, true); return; }
      const wanted = state.query.toLowerCase();
      state.hits = [];
      for (let e = 0; e < run.count; e++) if (run.text(e).includes(wanted)) state.hits.push(e);
    }
    panel.found(state.query, state.hits || []);
    if (state.query) panel.open('found');
    moved();
  }

  function nextHit(step) {
    if (!state.hits || !state.hits.length) return;
    state.hit = (state.hit + step + state.hits.length) % state.hits.length;
    pick(state.hits[state.hit], true);
  }

  /** The other end of the picked message, else the next leader. */
  function follow(step) {
    const joined = state.picked < 0 ? [] : (step < 0 ? causes.before : causes.after).get(state.picked) || [];
    if (joined.length) { pick(joined[0], true); return; }
    const { roles } = run;
    const from = state.picked >= 0 ? run.x[state.picked] : view.us(GUTTER + view.span / 2);
    const leaders = [];
    for (let b = 0; b < roles.count; b++) if (roles.what(b) === 'leader') leaders.push(roles.first[b]);
    const ahead = leaders.filter((e) => (step > 0 ? run.x[e] > from : run.x[e] < from));
    if (ahead.length) pick(step > 0 ? ahead[0] : ahead.at(-1), true);
  }

  function middle() {
    const us = view.us(GUTTER + view.span / 2);
    let best = -1;
    for (let e = 0; e < run.count; e++) if (best < 0 || Math.abs(run.x[e] - us) + weight(run.name(e)) * view.scale < Math.abs(run.x[best] - us) + weight(run.name(best)) * view.scale) best = e;
    return best;
  }

  function fold() {
    $('panel').hidden = !$('panel').hidden;
    $('fold').setAttribute('aria-expanded', !$('panel').hidden);
    measure();
  }

  const keys = {
    '+': () => view.zoom(1 / 1.5), '=': () => view.zoom(1 / 1.5), '-': () => view.zoom(1.5), _: () => view.zoom(1.5),
    f: () => view.fit(), 0: () => view.fit(),
    Home: () => view.show(-view.span * view.scale * 0.02, view.span * view.scale),
    End: () => view.show(run.end - view.span * view.scale * 0.98, view.span * view.scale),
    ArrowLeft: (shift) => view.pan(-view.span * (shift ? 0.8 : 0.12)), ArrowRight: (shift) => view.pan(view.span * (shift ? 0.8 : 0.12)),
    ArrowUp: () => { view.scroll -= 60; }, ArrowDown: () => { view.scroll += 60; },
    Enter: () => pick(middle()), c: () => { if (state.picked >= 0) view.centre(run.x[state.picked]); },
    ',': () => { if (state.picked >= 0) { const to = neighbour(state.picked, -1); if (to >= 0) pick(to, true); } },
    '.': () => { if (state.picked >= 0) { const to = neighbour(state.picked, 1); if (to >= 0) pick(to, true); } },
    '[': () => follow(-1), ']': () => follow(1), n: () => nextHit(1), N: () => nextHit(-1),
    '/': () => { $('find').focus(); $('find').select(); }, '?': () => { if ($('panel').hidden) fold(); panel.open('help'); },
    p: fold, Escape: () => { pick(-1); state.hits = null; panel.here(null); },
  };

  const actions = {
    moved, pick, tell, neighbour,
    causes: (e) => causes.before.get(e) || [],
    effects: (e) => causes.after.get(e) || [],
    click: (x, y) => { const e = picker.at(x, y); if (e >= 0 || state.picked >= 0) pick(e); },
    key: (key, shift) => { if (!keys[key]) return false; keys[key](shift); moved(); return true; },
    hover: (x, y) => hover(x, y),
    share: async (button) => {
      save();
      try { await navigator.clipboard.writeText(location.href); button.textContent = 'Copied'; } catch { button.textContent = 'Copy it from the address bar'; }
    },
  };

  function hover(x, y) {
    const e = x < 0 ? -1 : picker.at(x, y);
    const tip = $('tip');
    $('chart').classList.toggle('over', e >= 0);
    tip.hidden = e < 0;
    if (e < 0) return;
    tip.textContent = `${saying(run, e)}\n${(run.x[e] / 1e6).toFixed(6)} s · ${run.ref(e)}`;
    const top = $('chart').offsetTop + y;
    tip.style.left = `${Math.max(4, Math.min(x + 14, view.width - tip.offsetWidth - 6))}px`;
    tip.style.top = `${top + 18 + tip.offsetHeight > $('stage').clientHeight ? top - tip.offsetHeight - 12 : top + 18}px`;
  }

  function measure() {
    if (painter.measure() && strip.measure()) draw();
  }

  function save() {
    const parts = [`t=${(view.first / 1e6).toFixed(6)}`, `w=${((view.span * view.scale) / 1e6).toFixed(6)}`];
    if (state.picked >= 0) parts.push(`ev=${encodeURIComponent(run.ref(state.picked))}`);
    if (state.query) parts.push(`q=${encodeURIComponent(state.query)}`);
    const off = run.messages.classes.filter((_, c) => !state.classes[c]);
    if (off.length) parts.push(`off=${off.join(',')}`);
    lastHash = `#${parts.join('&')}`;
    try { history.replaceState(null, '', lastHash); } catch { /* some browsers refuse this for local files; the view still works */ }
  }

  let lastHash = '';
  function load() {
    if (location.hash === lastHash) return;
    const asked = new URLSearchParams(location.hash.slice(1).replaceAll('+', '%2B'));
    const off = (asked.get('off') || '').split(',');
    run.messages.classes.forEach((name, c) => { state.classes[c] = !off.includes(name); });
    legend();
    if (asked.get('q')) { $('find').value = asked.get('q'); find(asked.get('q')); }
    const e = asked.get('ev') ? run.find(asked.get('ev')) : -1;
    if (e >= 0) pick(e);
    const [t, w] = [Number(asked.get('t') ?? NaN), Number(asked.get('w') ?? NaN)].map((s) => s * 1e6);
    if (Number.isFinite(t) && w > 0) view.show(t, w);
    else if (e >= 0) view.show(run.x[e] - 500e3, 1e6);
    if (asked.get('panel')) { if (asked.get('panel') === 'none') { if (!$('panel').hidden) fold(); } else if ($(`tab-${asked.get('panel')}`)) panel.open(asked.get('panel')); }
    redraw();
  }

  function legend() {
    const used = new Set(run.messages.class);
    const items = run.messages.classes.flatMap((name, c) => (used.has(c) ? [toggle(CLASS_WORDS[name], (g) => stroke(g, CLASS_COLOURS[name]), state.classes[c], () => { state.classes[c] = !state.classes[c]; legend(); moved(); })] : []));
    const { dropped, unseen } = run.summary;
    if (dropped + unseen) items.push(toggle(`lost (${dropped} dropped, ${unseen} not seen to arrive)`, stubIcon, state.lost, () => { state.lost = !state.lost; legend(); moved(); }));
    for (const [text, paint] of signs(run)) items.push(element('span', {}, icon(paint), text));
    $('legend').replaceChildren(...items);
  }

  const { summary } = run;
  $('facts').textContent = [counted(summary.events, 'event'), counted(summary.messages, 'message'), duration(summary.seconds * 1e6), ...summary.scenarios].join(' · ');
  $('facts').title = $('facts').textContent;
  const panel = new Panel(run, actions);
  legend();
  listen($('chart'), $('overview'), strip, view, actions);
  $('zoom-in').onclick = () => { view.zoom(1 / 1.6); moved(); };
  $('zoom-out').onclick = () => { view.zoom(1.6); moved(); };
  $('fit').onclick = () => { view.fit(); view.scroll = 0; moved(); };
  $('fold').onclick = fold;
  let typing = 0;
  $('find').oninput = () => { clearTimeout(typing); typing = setTimeout(() => find($('find').value), 200); };
  $('find').onkeydown = (key) => { if (key.key === 'Enter') { clearTimeout(typing); if ($('find').value.trim() !== state.query) find($('find').value); nextHit(key.shiftKey ? -1 : 1); } };
  if (window.innerWidth < 560) fold();
  painter.measure();
  view.fit();
  load();
  measure();
  new ResizeObserver(measure).observe($('stage'));
  window.addEventListener('hashchange', load);
  window.addEventListener('beforeprint', measure);
  window.addEventListener('afterprint', measure);
  // figures and the view for tests and for measuring; nothing here changes the page but through the same actions
  window.skerry = { run, view, state, layout, picker, figures: painter.figures, actions, draw, loaded_ms: performance.now() - began };
  document.documentElement.dataset.ready = 'yes';
}

function toggle(text, paint, on, act) {
  const button = element('button', { type: 'button', 'aria-pressed': String(on) }, icon(paint), text);
  button.onclick = act;
  return button;
}

function icon(paint) {
  const canvas = element('canvas', { width: 40, height: 24, 'aria-hidden': 'true' });
  canvas.style.width = '20px';
  canvas.style.height = '12px';
  const g = canvas.getContext('2d');
  g.scale(2, 2);
  paint(g);
  return canvas;
}

function stroke(g, colour, dash = []) {
  g.strokeStyle = colour;
  g.lineWidth = 2;
  g.setLineDash(dash);
  g.beginPath();
  g.moveTo(1, 10);
  g.lineTo(18, 3);
  g.stroke();
  g.setLineDash([]);
  g.beginPath();
  g.moveTo(12, 2);
  g.lineTo(18, 3);
  g.lineTo(15, 8);
  g.stroke();
}

function stubIcon(g) {
  g.strokeStyle = BAD;
  g.lineWidth = 1.5;
  g.beginPath();
  g.moveTo(2, 10);
  g.lineTo(10, 6);
  g.moveTo(8, 3);
  g.lineTo(13, 9);
  g.moveTo(8, 9);
  g.lineTo(13, 3);
  g.stroke();
}

/** The signs this run has, in words. */
function signs(run) {
  const box = (colour, y, height) => (g) => { g.fillStyle = colour; g.fillRect(0, y, 20, height); };
  const has = (kind) => run.kinds.includes(kind);
  const found = [];
  if (run.roles.count) found.push(['leader, colour = term', box(termColour(2), 1, 10)]);
  if (has('commit')) found.push(['commit', (g) => { g.fillStyle = '#0b6e4f'; g.beginPath(); g.moveTo(10, 1); g.lineTo(15, 11); g.lineTo(5, 11); g.fill(); }]);
  if (has('lease')) found.push(['lease granted', (g) => { g.fillStyle = '#8a6116'; g.beginPath(); g.moveTo(10, 1); g.lineTo(15, 6); g.lineTo(10, 11); g.lineTo(5, 6); g.fill(); }], ['lease over', (g) => { g.strokeStyle = BAD; g.lineWidth = 1.5; g.beginPath(); g.moveTo(10, 1.5); g.lineTo(14.5, 6); g.lineTo(10, 10.5); g.lineTo(5.5, 6); g.closePath(); g.stroke(); }]);
  if (has('place')) found.push(['placement decided', (g) => { g.fillStyle = '#0072b2'; g.fillRect(6, 2, 8, 8); }]);
  if (run.workloads.count) found.push(['workload', box(RUN_COLOURS.running, 3, 6)], ['ended well', box(RUN_COLOURS.ok, 3, 6)]);
  if (run.operations.count) found.push(['write acknowledged', box(OP_COLOURS.acked, 3, 6)], ['refused', (g) => { g.strokeStyle = OP_COLOURS.refused; g.lineWidth = 1.5; g.strokeRect(1, 3, 18, 6); }], ['unknown', (g) => { g.strokeStyle = OP_COLOURS.unknown; g.lineWidth = 1.5; g.strokeRect(1, 3, 18, 6); g.fillStyle = OP_COLOURS.unknown; g.fillRect(2, 5.4, 16, 1.2); }]);
  if (run.absences.count) found.push(['down', (g) => { g.fillStyle = '#5a687640'; g.fillRect(0, 0, 20, 12); g.strokeStyle = '#1c273366'; g.beginPath(); for (let x = -6; x < 20; x += 6) { g.moveTo(x, 12); g.lineTo(x + 12, 0); } g.stroke(); }]);
  if (run.bands.length) found.push(['sides of a partition', (g) => { g.fillStyle = SIDES[0]; g.fillRect(0, 0, 10, 12); g.fillStyle = SIDES[1]; g.fillRect(10, 0, 10, 12); }]);
  return found;
}

open();
