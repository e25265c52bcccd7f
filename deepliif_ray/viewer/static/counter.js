// The worker that has all cells of a slide: it fetches them, and counts them at any cut-off.

export class Counter {
  constructor() {
    this.worker = new Worker("/static/counting.js", { type: "module" });
    this.waiting = new Map();
    this.number = 0;
    this.worker.onmessage = ({ data }) => {
      const { resolve, reject } = this.waiting.get(data.number);
      this.waiting.delete(data.number);
      if (data.error) reject(new Error(data.error));
      else resolve(data);
    };
  }

  ask(message) {
    this.number += 1;
    const { number } = this;
    return new Promise((resolve, reject) => {
      this.waiting.set(number, { resolve, reject });
      this.worker.postMessage({ ...message, number });
    });
  }

  /**
   * Fetch the cells of a slide; `asked` restricts them: {region, corrections}. Gives a copy of what came and what
   * sliders need, or `isOld` if others were asked for meanwhile.
   */
  fetch(slide, asked) {
    return this.ask({ do: "load", query: { slide, ...asked } });
  }

  count(limits, wanted) {
    return this.ask({ do: "count", limits, ...wanted });
  }

  close() {
    this.worker.terminate();
  }
}
