// The picture: decodes blocks and shows their frames in time.
//
// A block is shown frame by frame, evenly; when its time is over, the next begins. There is at most one that waits. The
// time of a frame is the moving average of how often blocks come: a server that is slower than real time gives slow
// even motion, not a stutter.

const FASTER = 0.97; // of the average: where blocks come in time again, the pace goes back to the real one
const KEPT = 0.8; // of the average, from block to block

/** Decodes JPEGs. */
class Pictures {
  async decode(header, parts) {
    return Promise.all(parts.map((part) => createImageBitmap(new Blob([part], { type: "image/jpeg" }))));
  }
  close() {}
}

/** Decodes H.264 with WebCodecs: a packet for each frame, none reordered. */
class Packets {
  constructor() {
    this.waiting = [];
    this.time = 0;
  }

  async decode(header, parts) {
    if (header.key || !this.decoder) this.#begin(parts[0]);
    const frames = parts.map(() => new Promise((resolve, reject) => this.waiting.push({ resolve, reject })));
    parts.forEach((data, i) => {
      const type = header.key && i === 0 ? "key" : "delta";
      this.decoder.decode(new EncodedVideoChunk({ type, timestamp: this.time++, data }));
    });
    return Promise.all(frames);
  }

  #begin(packet) {
    this.close();
    const set = packet.findIndex((_, i) => packet[i] === 0 && packet[i + 1] === 1 && (packet[i + 2] & 31) === 7);
    const hex = [...packet.slice(set + 3, set + 6)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    this.decoder = new VideoDecoder({
      output: (frame) => {
        // A decoder has few frames of its own, and goes on when they are given back.
        const one = this.waiting.shift();
        createImageBitmap(frame).then(one?.resolve, one?.reject).finally(() => frame.close());
      },
      error: (error) => this.waiting.splice(0).forEach((one) => one.reject(error)),
    });
    this.decoder.configure({ codec: `avc1.${hex}`, optimizeForLatency: true });
  }

  close() {
    if (this.decoder?.state !== "closed") this.decoder?.close();
    this.waiting.splice(0).forEach((one) => one.reject(new Error("flushed")));
  }
}

/** Which of the server's codecs this page can show; H.264 needs WebCodecs, which needs a secure context. */
export async function bestCodec(offered) {
  if (!offered.includes("h264") || !globalThis.isSecureContext || !globalThis.VideoDecoder) return "jpeg";
  try {
    const { supported } = await VideoDecoder.isConfigSupported({ codec: "avc1.64001f", optimizeForLatency: true });
    return supported ? "h264" : "jpeg";
  } catch {
    return "jpeg";
  }
}

export class Screen {
  /** `on.shown(header, early)`: a block's first frame is drawn. `on.drawn(header, i)`: a frame is. */
  constructor(canvas, glow, on) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.glow = glow.getContext("2d");
    this.on = on;
    this.stalls = { count: 0, seconds: 0 };
    this.paused = false;
    this.shape = { fps: 16, block: 16 };
    this.flush();
    new ResizeObserver(() => this.#fit()).observe(canvas);
    const loop = () => {
      requestAnimationFrame(loop);
      this.#tick(performance.now() / 1000);
    };
    loop();
  }

  /** Forgets all frames: those of another past. */
  flush() {
    this.decoders ??= {};
    for (const decoder of Object.values(this.decoders)) decoder.close();
    this.decoders = { jpeg: new Pictures(), h264: new Packets() };
    this.turn = (this.turn ?? 0) + 1;
    this.#free(this.now);
    this.#free(this.next);
    this.now = this.next = null;
    this.arrived = null;
    this.average = this.shape.block / this.shape.fps;
  }

  get depth() {
    return this.next ? 1 : 0;
  }

  /** A block has come. */
  async take(header, parts) {
    const turn = this.turn;
    const arrived = performance.now() / 1000;
    if (this.arrived !== null) {
      const most = (3 * this.shape.block) / this.shape.fps;
      this.average = KEPT * this.average + (1 - KEPT) * Math.min(arrived - this.arrived, most);
    }
    this.arrived = arrived;
    let frames;
    try {
      frames = await this.decoders[header.codec].decode(header, parts);
    } catch (error) {
      if (turn === this.turn) throw error;
      return; // flushed in the meantime
    }
    const block = { header, frames, ready: performance.now() / 1000, shown: -1 };
    if (turn !== this.turn) return this.#free(block);
    this.#free(this.next); // what was never shown is stale
    this.next = block;
  }

  #tick(now) {
    if (this.paused) return this.#hold(now);
    const interval = Math.max(1 / this.shape.fps, (FASTER * this.average) / this.shape.block);
    if (!this.now || now >= this.now.start + this.now.frames.length * this.now.interval) this.#turn(now, interval);
    if (!this.now) return;
    const due = Math.floor((now - this.now.start) / this.now.interval + 1e-6);
    const index = Math.min(due, this.now.frames.length - 1);
    if (index !== this.now.shown) {
      this.now.shown = index;
      this.#draw(this.now.frames[index]);
      this.on.drawn(this.now.header, index, now);
    }
  }

  /** The next block, where there is one; else the picture stands still. */
  #turn(now, interval) {
    if (!this.next) return;
    const over = this.now ? this.now.start + this.now.frames.length * this.now.interval : null;
    const late = over === null ? 0 : this.next.ready - over;
    let early = null;
    if (over !== null && !this.now.held) early = late > 0 ? -late : over - this.next.ready;
    if (early !== null && late > 1 / this.shape.fps) {
      this.stalls.count += 1;
      this.stalls.seconds += late;
    }
    this.#free(this.now);
    this.now = this.next;
    this.next = null;
    this.now.interval = interval;
    // Evenly after the last one; a screen's own frames don't add up to delay.
    this.now.start = over !== null && now - over < interval ? over : now;
    this.on.shown(this.now.header, early, now);
  }

  #hold(now) {
    if (!this.now) return;
    this.now.held = true;
    this.now.start = now - Math.max(this.now.shown, 0) * this.now.interval;
  }

  #draw(frame) {
    const { width, height } = this.canvas;
    this.context.imageSmoothingQuality = "high";
    this.context.drawImage(frame, 0, 0, width, height);
    this.glow.drawImage(frame, 0, 0, 24, 16);
  }

  #fit() {
    const scale = Math.min(devicePixelRatio, 1600 / Math.max(this.canvas.clientWidth, 1));
    const width = Math.round(this.canvas.clientWidth * scale);
    const height = Math.round(this.canvas.clientHeight * scale);
    if (!width || (width === this.canvas.width && height === this.canvas.height)) return;
    this.canvas.width = width;
    this.canvas.height = height;
    const frame = this.now?.frames[Math.max(this.now.shown, 0)];
    if (frame) this.#draw(frame);
  }

  #free(block) {
    block?.frames.forEach((frame) => frame.close());
  }
}
