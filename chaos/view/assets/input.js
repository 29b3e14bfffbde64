// Pointer, wheel, touch and keys, turned into actions.  Must not know how anything is drawn.

function listen(chart, overview, strip, view, actions) {
  const fingers = new Map();
  let drag = null;

  chart.addEventListener('wheel', (wheel) => {
    wheel.preventDefault();
    const lines = wheel.deltaMode === 1 ? 16 : wheel.deltaMode === 2 ? 400 : 1;
    if (wheel.shiftKey || Math.abs(wheel.deltaX) > Math.abs(wheel.deltaY)) view.pan((wheel.deltaX || wheel.deltaY) * lines);
    else if (wheel.altKey) view.scroll += wheel.deltaY * lines;
    else view.zoom(Math.exp(Math.max(-240, Math.min(240, wheel.deltaY * lines)) / 320), Math.max(wheel.offsetX, GUTTER));
    actions.moved();
  }, { passive: false });

  chart.addEventListener('pointerdown', (pointer) => {
    if (pointer.button) return;
    chart.setPointerCapture(pointer.pointerId);
    fingers.set(pointer.pointerId, pointer);
    drag = { x: pointer.offsetX, y: pointer.offsetY, moved: fingers.size > 1 };
  });

  chart.addEventListener('pointermove', (pointer) => {
    if (!drag) { actions.hover(pointer.offsetX, pointer.offsetY); return; }
    const before = fingers.get(pointer.pointerId);
    if (!before) return;
    if (fingers.size === 2) pinch(pointer, before);
    else if (drag.moved || Math.hypot(pointer.offsetX - drag.x, pointer.offsetY - drag.y) > 4) {
      if (!drag.moved) chart.classList.add('dragging');
      drag.moved = true;
      view.pan(before.offsetX - pointer.offsetX);
      view.scroll += before.offsetY - pointer.offsetY;
      actions.moved();
    }
    fingers.set(pointer.pointerId, pointer);
  });

  function pinch(pointer, before) {
    const other = [...fingers.values()].find((each) => each.pointerId !== pointer.pointerId);
    const [was, is] = [before, pointer].map((each) => Math.max(20, Math.abs(each.offsetX - other.offsetX)));
    view.zoom(was / is, (pointer.offsetX + other.offsetX) / 2);
    actions.moved();
  }

  const release = (pointer) => {
    fingers.delete(pointer.pointerId);
    if (drag && !drag.moved && pointer.type === 'pointerup') actions.click(pointer.offsetX, pointer.offsetY);
    if (!fingers.size) { drag = null; chart.classList.remove('dragging'); }
  };
  chart.addEventListener('pointerup', release);
  chart.addEventListener('pointercancel', release);
  chart.addEventListener('pointerleave', () => actions.hover(-1, -1));

  let seeking = false;
  const seek = (pointer) => { view.centre(strip.us(pointer.offsetX)); actions.moved(); };
  overview.addEventListener('pointerdown', (pointer) => { seeking = true; overview.setPointerCapture(pointer.pointerId); seek(pointer); });
  overview.addEventListener('pointermove', (pointer) => { if (seeking) seek(pointer); });
  overview.addEventListener('pointerup', () => { seeking = false; });
  overview.addEventListener('pointercancel', () => { seeking = false; });

  document.addEventListener('keydown', (key) => {
    if (key.ctrlKey || key.metaKey || key.altKey) return;
    const typing = key.target instanceof HTMLInputElement;
    if (typing) {
      if (key.key === 'Escape') chart.focus();
      return;
    }
    const inPanel = key.target instanceof HTMLElement && key.target.closest('#panel, header, #legend');
    if (inPanel && ['ArrowUp', 'ArrowDown', 'ArrowLeft', 'ArrowRight', 'Home', 'End', 'Enter', ' '].includes(key.key)) return;
    if (actions.key(key.key, key.shiftKey)) key.preventDefault();
  });
}
