// What the page measures: frames a second, key to picture, age of what is shown.

const KEPT = 240; // of each kind

const sorted = (values) => [...values].sort((a, b) => a - b);

/** A quantile of some values, null where there are none. */
export function quantile(values, share) {
  const all = sorted(values);
  return all.length ? all[Math.min(all.length - 1, Math.floor(share * all.length))] : null;
}

const milliseconds = (seconds) => (seconds === null ? "–" : `${Math.round(seconds * 1000)} ms`);

export class Figures {
  constructor() {
    this.restart();
  }

  restart() {
    this.drawn = []; // times of the newest frames
    this.frames = 0;
    this.blockTimes = [];
    this.latencies = [];
    this.ages = [];
    this.oldest = 0;
    this.sent = new Map(); // when each control was, by seq
  }

  /** A control leaves; what repeats an earlier one isn't a press. */
  pressed(seq, now) {
    if (!this.sent.has(seq)) this.sent.set(seq, now);
  }

  /** What was pressed before is of another past. */
  forget() {
    this.sent.clear();
  }

  shown(header, now) {
    this.#keep(this.blockTimes, header.end - header.start);
    for (const [seq, at] of this.sent) {
      if (seq > header.seq) continue;
      this.#keep(this.latencies, now - at);
      this.sent.delete(seq);
    }
  }

  /** A frame is on the screen; `age` is how long ago its block was made, null where nobody knows. */
  frame(now, age) {
    this.frames += 1;
    this.drawn.push(now);
    while (this.drawn.length && this.drawn[0] < now - 2) this.drawn.shift();
    if (age === null) return;
    this.#keep(this.ages, age);
    this.oldest = Math.max(this.oldest, age);
  }

  fps(now) {
    const recent = this.drawn.filter((at) => at > now - 2);
    return recent.length < 2 ? 0 : (recent.length - 1) / Math.max(now - recent[0], 1e-3);
  }

  /** All of it as numbers: for whoever measures. */
  all(now) {
    const of = (values) => ({ median: quantile(values, 0.5), p95: quantile(values, 0.95), p99: quantile(values, 0.99) });
    return {
      fps: this.fps(now),
      frames: this.frames,
      block: of(this.blockTimes),
      latency: { ...of(this.latencies), count: this.latencies.length },
      age: { ...of(this.ages), most: this.oldest },
    };
  }

  /** Writes them to the page. */
  show(now, screen, memoryBytes) {
    const { block, latency, age } = this.all(now);
    const set = (id, text) => (document.getElementById(id).textContent = text);
    set("fps", this.fps(now).toFixed(1));
    set("latency", latency.count ? `${milliseconds(latency.median)}, p95 ${milliseconds(latency.p95)}` : "press a key");
    set("block-time", [block.median, block.p95, block.p99].map(milliseconds).join(" / "));
    set("age", milliseconds(age.median));
    set("stalls", `${screen.stalls.count} times, ${screen.stalls.seconds.toFixed(1)} s`);
    set("depth", String(screen.depth));
    set("memory-use", memoryBytes ? `${Math.round(memoryBytes / 2 ** 20)} MiB` : "–");
  }

  #keep(list, value) {
    list.push(value);
    if (list.length > KEPT) list.shift();
  }
}
