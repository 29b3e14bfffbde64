// Where lanes lie: their heights, the line that arrows meet, the rows of their bars.

const HEAD = 46; // the fault strip and the axis above the lanes, in pixels
const LEAST = { replica: 74, agent: 46, client: 48, proxy: 36, other: 30 };
const ROW_MOST = 13;

class Layout {
  constructor(run) {
    this.run = run;
    this.lanes = run.lanes.map(() => ({ top: 0, height: 0, line: 0, name: 0, row: 0, rows: 0, base: 0 }));
    this.total = 0;
  }

  /** Divide `height` pixels; lanes that do not fit are scrolled to. */
  fit(height) {
    const room = height - HEAD - 8;
    const wanted = this.run.lanes.map((lane, l) => this.#wanted(lane.kind, this.rows(l)));
    const total = wanted.reduce((a, b) => a + b, 0);
    const weights = this.run.lanes.map((lane, l) => (lane.kind === 'replica' ? 3 : this.rows(l) > 1 ? 1 : 0.4));
    const weight = weights.reduce((a, b) => a + b, 0) || 1;
    const spare = Math.max(0, room - total);
    let top = HEAD;
    this.run.lanes.forEach((lane, l) => {
      const box = this.lanes[l];
      box.top = top;
      box.height = wanted[l] + Math.min((spare * weights[l]) / weight, lane.kind === 'replica' ? 96 : 60);
      box.rows = this.rows(l);
      const bars = lane.kind === 'client' || lane.kind === 'proxy';
      box.line = lane.kind === 'replica' ? top + box.height * 0.52 : top + (bars ? 7 : 13);
      box.name = lane.kind === 'replica' ? box.line : top + 14;
      box.base = box.line + (bars ? 5 : 9);
      box.row = 0;
      top += box.height;
    });
    this.total = top;
  }

  #wanted(kind, rows) { return Math.max(LEAST[kind], (kind === 'agent' ? 28 : 14) + Math.min(rows, 12) * 4); }

  rows(lane) {
    const { workloads, operations, toxics } = this.run;
    return Math.max(workloads.rows[lane] || 0, operations.rows[lane] || 0, toxics.rows[lane] || 0);
  }

  /** Divide each lane among the rows that bars in view use, so few bars are tall ones. */
  rowsFor(used) {
    this.lanes.forEach((box, l) => {
      box.row = Math.min(ROW_MOST, (box.top + box.height - 5 - box.base) / Math.max(used[l], 1));
    });
  }

  /** The lane at a height of the screen; -1 between and beyond. */
  at(y) { return this.lanes.findIndex((box) => y >= box.top && y < box.top + box.height); }
}
