// The side panel: the story, the picked event, what was found.  Puts text into the page as text, never as markup.

const $ = (id) => document.getElementById(id);

/** An element with text or children; attributes never carry script. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.map((each) => (each instanceof Node ? each : String(each))));
  return made;
}

class Panel {
  constructor(run, actions) {
    this.run = run;
    this.actions = actions;
    for (const name of ['story', 'event', 'found', 'help']) $(`tab-${name}`).onclick = () => this.open(name);
    document.querySelector('[role="tablist"]').onkeydown = (key) => this.#arrow(key);
    this.story();
    this.event(null);
    this.found('', []);
    this.open('story');
  }

  open(name) {
    this.current = name;
    for (const each of ['story', 'event', 'found', 'help']) {
      $(`tab-${each}`).setAttribute('aria-selected', each === name);
      $(`tab-${each}`).tabIndex = each === name ? 0 : -1;
      $(`pane-${each}`).hidden = each !== name;
    }
  }

  #arrow(key) {
    const names = ['story', 'event', 'found', 'help'];
    const step = { ArrowLeft: -1, ArrowRight: 1 }[key.key];
    if (!step) return;
    key.preventDefault();
    this.open(names[(names.indexOf(this.current) + step + names.length) % names.length]);
    $(`tab-${this.current}`).focus();
  }

  story() {
    const list = element('ol', { class: 'story' });
    for (const sentence of this.run.story) {
      const tone = sentence.text.startsWith('VIOLATED') ? 'bad' : sentence.text.startsWith('Nothing acknowledged was lost') ? 'good' : '';
      const button = element('button', { type: 'button' }, element('time', {}, sentence.timed ? (sentence.x / 1e6).toFixed(3) : ''), element('span', { class: tone }, sentence.text));
      button.onclick = () => this.actions.tell(sentence);
      const item = element('li', {}, button);
      sentence.item = item;
      list.append(item);
    }
    $('pane-story').replaceChildren(this.run.story.length ? list : element('p', { class: 'empty' }, 'The trace holds nothing to tell.'));
  }

  /** Mark the sentence that was chosen. */
  here(sentence) {
    for (const each of this.run.story) each.item.classList.toggle('here', each === sentence);
    if (sentence) sentence.item.scrollIntoView({ block: 'nearest' });
  }

  event(cone) {
    const pane = $('pane-event');
    if (!cone) {
      pane.replaceChildren(element('p', { class: 'empty' }, 'Pick an event: click it in the diagram, or press Enter for the one nearest the middle. Its fields, its causes and its effects appear here.'));
      return;
    }
    const { run } = this;
    const e = cone.event;
    const table = element('table', {});
    const rows = [['at', `${(run.x[e] / 1e6).toFixed(6)} s`], ['kind', run.name(e)], ...run.fields(e), ['lc', run.lc[e]], ['hlc', run.hlc(e)], ['t', run.wall(e)]];
    for (const [name, value] of rows) table.append(element('tr', {}, element('th', { scope: 'row' }, name), element('td', {}, shown(value))));
    const cones = element('p', { class: 'cone' }, element('b', { class: 'past' }, `${cone.past.size.toLocaleString('en')} before`), ' · ',
      element('b', { class: 'future' }, `${cone.future.size.toLocaleString('en')} after`), ` of ${counted(run.count - 1, 'event')}`);
    pane.replaceChildren(element('div', { class: 'event' }, element('h2', {}, saying(run, e)), element('p', { class: 'ref', title: 'The name of this event' }, run.ref(e)),
      this.#ways(e), cones, table));
  }

  /** Buttons to the other ends of messages and the neighbours on the lane. */
  #ways(e) {
    const { actions } = this;
    const row = element('div', { class: 'row' });
    const way = (text, to) => {
      if (to === undefined || to < 0) return;
      const button = element('button', { type: 'button' }, text);
      button.onclick = () => actions.pick(to, true);
      row.append(button);
    };
    way('‹ before', actions.neighbour(e, -1));
    way('after ›', actions.neighbour(e, 1));
    for (const cause of actions.causes(e)) way(`↖ ${this.run.node(cause)} ${this.run.name(cause)}`, cause);
    for (const effect of actions.effects(e).slice(0, 6)) way(`↘ ${this.run.node(effect)} ${this.run.name(effect)}`, effect);
    const share = element('button', { type: 'button' }, 'Copy link');
    share.onclick = () => actions.share(share);
    row.append(share);
    return row;
  }

  found(query, hits, more = 0) {
    const list = element('ol', { class: 'hits' });
    for (const e of hits.slice(0, 300)) {
      const button = element('button', { type: 'button' }, element('time', {}, (this.run.x[e] / 1e6).toFixed(3)), marked(saying(this.run, e), query));
      button.onclick = () => this.actions.pick(e, true);
      list.append(element('li', {}, button));
    }
    const total = hits.length + more;
    const head = query ? `${counted(total, 'event')} with “${query}”${total > 300 ? '; the first 300' : ''}` : 'Type a ref (node/incarnation/number) or any text above: a job, a term=4, a code.';
    $('pane-found').replaceChildren(element('p', { class: 'empty' }, head), list);
  }
}

function shown(value) { return typeof value === 'string' ? value : JSON.stringify(value, null, value && typeof value === 'object' && JSON.stringify(value).length > 34 ? 1 : 0); }

function marked(text, query) {
  const at = text.toLowerCase().indexOf(query.toLowerCase());
  if (at < 0 || !query) return element('span', {}, text);
  return element('span', {}, text.slice(0, at), element('mark', {}, text.slice(at, at + query.length)), text.slice(at + query.length));
}
