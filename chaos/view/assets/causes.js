// What happened before and after an event, in the order of messages (Lamport's "happened before").
// A replica or agent is taken as one process, in the order of its lane; messages and requests join processes.
// Callers and the proxy are not: each of their requests and faults stands for itself.

class Causes {
  constructor(run) {
    this.run = run;
    this.position = new Uint32Array(run.count);
    for (const list of run.ofLane) list.forEach((e, p) => { this.position[e] = p; });
    this.chained = run.lanes.map((lane) => lane.kind !== 'client' && lane.kind !== 'proxy');
    this.before = new Map();
    this.after = new Map();
    const { messages } = run;
    for (let m = 0; m < messages.count; m++) if (messages.received[m] >= 0) this.#join(messages.sent[m], messages.received[m]);
    this.#joinOperations();
  }

  #join(cause, effect) {
    push(this.after, cause, effect);
    push(this.before, effect, cause);
  }

  /** A caller's question precedes the replica's receipt of it, the replica's answer the caller's. */
  #joinOperations() {
    const { run } = this;
    const kind = run.kinds.indexOf('op');
    const asked = new Map();
    const told = new Map();
    for (let e = 0; kind >= 0 && e < run.count; e++) {
      if (run.kind[e] !== kind) continue;
      const id = run.field(e, 'id');
      const calls = run.lanes[run.lane[e]].kind === 'client';
      const opens = run.field(e, 'ph') === 'invoke';
      if (calls && opens) asked.set(id, e);
      else if (!calls && opens && asked.has(id)) this.#join(asked.get(id), e);
      else if (!calls && !opens) told.set(id, e);
      else if (calls) {
        if (asked.has(id)) this.#join(asked.get(id), e);
        if (told.has(id) && run.field(told.get(id), 'ph') === run.field(e, 'ph')) this.#join(told.get(id), e);
      }
    }
  }

  /** Both cones of an event: membership, sizes, and how far they reach on each lane. */
  of(e) {
    const past = this.#spread(e, -1, this.before);
    const future = this.#spread(e, 1, this.after);
    return { event: e, past, future };
  }

  #spread(e, step, edges) {
    const { run } = this;
    const member = new Uint8Array(run.count);
    const reach = run.lanes.map(() => (step < 0 ? -1 : Infinity));
    const waiting = [e];
    let size = 0;
    while (waiting.length) {
      const from = waiting.pop();
      const lane = run.lane[from];
      const list = run.ofLane[lane];
      for (let p = this.position[from]; p >= 0 && p < list.length && !member[list[p]]; p += step) {
        member[list[p]] = 1;
        size++;
        for (const other of edges.get(list[p]) || []) if (!member[other]) waiting.push(other);
        if (!this.chained[lane]) break;
      }
      const p = this.position[from];
      reach[lane] = step < 0 ? Math.max(reach[lane], p) : Math.min(reach[lane], p);
    }
    const edge = reach.map((p, lane) => (this.chained[lane] && p >= 0 && p < Infinity ? run.x[run.ofLane[lane][p]] : null));
    return { member, size: size - 1, edge };
  }
}

function push(map, key, value) {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}
