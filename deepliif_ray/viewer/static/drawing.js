// Drawing on the slide with a pointer: a closed line, a place, corners that are moved.

import { el } from "./dom.js";

const LEAST_STEP = 3; // px of the screen between the points of a line

/** Lay a sheet over the stage that takes the pointer until it is removed. */
export class Sheet {
  constructor(stage, viewer) {
    this.stage = stage;
    this.viewer = viewer;
    this.sheet = null;
  }

  /** Return the level-0 place of a pointer. */
  at(event) {
    const box = this.stage.getBoundingClientRect();
    return imagePoint(this.viewer, event.clientX - box.left, event.clientY - box.top);
  }

  open(handlers) {
    this.close();
    this.sheet = el("div", { class: "on-top", ...handlers });
    this.stage.append(this.sheet);
  }

  close() {
    this.sheet?.remove();
    this.sheet = null;
    this.line = null;
  }

  /** Let a closed line be drawn once; `done` gets its points, `moved` hears of each. */
  loop(done, moved) {
    let last = null;
    this.open({
      onpointerdown: (event) => {
        event.target.setPointerCapture(event.pointerId);
        this.line = [this.at(event)];
        last = event;
      },
      onpointermove: (event) => {
        if (!this.line || Math.hypot(event.clientX - last.clientX, event.clientY - last.clientY) < LEAST_STEP) return;
        this.line.push(this.at(event));
        last = event;
        moved();
      },
      onpointerup: () => {
        const { line } = this;
        this.line = null;
        moved();
        if (line?.length > 2) done(line);
      },
      onwheel: (event) => this.viewer.canvas.dispatchEvent(new WheelEvent("wheel", event)),
    });
  }

  /** Let corners of a ring be moved, added (on an edge) and removed (with Shift). */
  corners(ring, reach, changed) {
    let held = -1;
    const near = (point) => ring.findIndex(([x, y]) => Math.hypot(x - point[0], y - point[1]) < reach());
    this.open({
      onpointerdown: (event) => {
        const point = this.at(event);
        held = near(point);
        if (held >= 0 && event.shiftKey) {
          if (ring.length > 3) ring.splice(held, 1);
          held = -1;
        } else if (held < 0) {
          const edge = ring.findIndex((from, n) => toEdge(point, from, ring[(n + 1) % ring.length]) < reach());
          if (edge >= 0) {
            ring.splice(edge + 1, 0, point);
            held = edge + 1;
          }
        }
        event.target.setPointerCapture(event.pointerId);
        changed();
      },
      onpointermove: (event) => {
        if (held < 0) return;
        ring[held] = this.at(event);
        changed();
      },
      onpointerup: () => (held = -1),
    });
  }
}

export function imagePoint(viewer, x, y) {
  const item = viewer.world.getItemAt(0);
  const point = item.viewportToImageCoordinates(
    viewer.viewport.viewerElementToViewportCoordinates(new OpenSeadragon.Point(x, y)),
  );
  return [point.x, point.y];
}

function toEdge([x, y], [x0, y0], [x1, y1]) {
  const length = (x1 - x0) ** 2 + (y1 - y0) ** 2 || 1;
  const along = Math.min(1, Math.max(0, ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length));
  return Math.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0));
}

/** Draw a ring. */
export function stroke(context, view, ring, colour, width = 2, closed = true) {
  context.beginPath();
  ring.forEach(([x, y], n) => (n ? context.lineTo(x, y) : context.moveTo(x, y)));
  if (closed) context.closePath();
  for (const [ink, wide] of [["rgba(255,255,255,.8)", width + 2], [colour, width]]) {
    context.strokeStyle = ink;
    context.lineWidth = (wide * view.ratio) / view.scale;
    context.stroke();
  }
}

/** Write a word at a place, upright and as large at every zoom. */
export function write(context, view, [x, y], text) {
  context.save();
  const { a, b, c, d, e, f } = context.getTransform();
  const [left, top] = [a * x + c * y + e, b * x + d * y + f];
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.font = `600 ${13 * view.ratio}px system-ui, sans-serif`;
  context.lineWidth = 4 * view.ratio;
  context.strokeStyle = "rgba(255,255,255,.9)";
  context.fillStyle = "#000";
  context.strokeText(text, left + 4 * view.ratio, top - 4 * view.ratio);
  context.fillText(text, left + 4 * view.ratio, top - 4 * view.ratio);
  context.restore();
}
