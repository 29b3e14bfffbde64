// The whole run in a strip: who led, what was broken, how much was said, what was lost; and where the view is.

class Overview {
  constructor(canvas, run, view, state) {
    Object.assign(this, { canvas, run, view, state });
    this.g = canvas.getContext('2d', { alpha: false });
    this.picture = null;
  }

  measure() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return false;
    this.ratio = Math.min(window.devicePixelRatio || 1, 3);
    this.canvas.width = Math.round(width * this.ratio);
    this.canvas.height = Math.round(height * this.ratio);
    Object.assign(this, { width, height, picture: null });
    return true;
  }

  x(us) { return GUTTER + ((us / this.view.end) * (this.width - GUTTER - 12)); }
  us(x) { return ((x - GUTTER) / (this.width - GUTTER - 12)) * this.view.end; }

  draw() {
    const { g } = this;
    if (!this.picture) this.#paint();
    g.setTransform(1, 0, 0, 1, 0, 0);
    g.drawImage(this.picture, 0, 0);
    g.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    g.fillStyle = '#f2b600';
    for (const e of this.state.hits ? this.state.hits.slice(0, 3000) : []) g.fillRect(this.x(this.run.x[e]) - 0.5, 2, 1.5, 8);
    if (this.state.picked >= 0) {
      g.fillStyle = INK;
      g.fillRect(this.x(this.run.x[this.state.picked]) - 1, 0, 2, this.height);
    }
    const left = Math.max(this.x(this.view.first), GUTTER);
    const right = Math.min(this.x(this.view.last), this.width - 12);
    g.fillStyle = '#ffffffb0';
    g.fillRect(GUTTER, 0, left - GUTTER, this.height);
    g.fillRect(right, 0, this.width - right, this.height);
    g.strokeStyle = '#0b63a5';
    g.lineWidth = 1.5;
    g.strokeRect(left, 1, Math.max(right - left, 3), this.height - 3);
  }

  /** Everything that does not change with the view, once. */
  #paint() {
    this.picture = document.createElement('canvas');
    this.picture.width = this.canvas.width;
    this.picture.height = this.canvas.height;
    const g = this.picture.getContext('2d', { alpha: false });
    const { run, height } = this;
    g.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    g.fillStyle = '#fff';
    g.fillRect(0, 0, this.width, height);
    for (const band of run.bands) {
      g.fillStyle = band.cut ? '#f3c7b8' : '#efe3c4';
      g.fillRect(this.x(band.start), 0, Math.max(this.x(band.end) - this.x(band.start), 2), height);
    }
    for (let b = 0; b < run.absences.count; b++) {
      g.fillStyle = '#5a687630';
      g.fillRect(this.x(run.absences.start[b]), 0, Math.max(this.x(run.absences.end[b]) - this.x(run.absences.start[b]), 2), height);
    }
    this.#traffic(g);
    const { roles } = run;
    for (let b = 0; b < roles.count; b++) {
      if (roles.what(b) !== 'leader') continue;
      const left = this.x(roles.start[b]);
      const wide = Math.max(this.x(roles.end[b]) - left, 2);
      g.fillStyle = termColour(roles.number[b]);
      g.fillRect(left, height - 14, wide, 11);
      const text = `${run.lanes[roles.lane[b]].name}`;
      g.font = `700 9px ${FONT}`;
      g.textBaseline = 'middle';
      g.fillStyle = '#fff';
      if (g.measureText(text).width + 6 < wide) g.fillText(text, left + 3, height - 8);
    }
    g.fillStyle = SOFT;
    g.font = `400 11px ${FONT}`;
    g.textBaseline = 'middle';
    g.fillText('traffic', 10, 12);
    g.fillText('leader', 10, height - 9);
  }

  #traffic(g) {
    const { run, height } = this;
    const bins = new Uint32Array(Math.max(1, Math.ceil((this.width - GUTTER) / 2)));
    const lost = new Uint32Array(bins.length);
    const { messages } = run;
    for (let m = 0; m < messages.count; m++) {
      const bin = Math.min(bins.length - 1, Math.floor((this.x(messages.start[m]) - GUTTER) / 2));
      (messages.received[m] < 0 ? lost : bins)[bin]++;
    }
    const most = Math.max(1, bins.reduce((a, b) => Math.max(a, b), 0), lost.reduce((a, b) => Math.max(a, b), 0));
    const room = height - 20;
    bins.forEach((count, b) => {
      const tall = Math.sqrt(count / most) * room;
      g.fillStyle = '#8fa1b3';
      g.fillRect(GUTTER + b * 2, height - 16 - tall, 1.6, tall);
      if (!lost[b]) return;
      const red = Math.max(2, Math.sqrt(lost[b] / most) * room);
      g.fillStyle = BAD;
      g.fillRect(GUTTER + b * 2, height - 16 - red, 1.6, red);
    });
  }
}
