// The WebSocket: messages as relic_jax/serve/protocol.py describes them, and what happens when it is gone.

export const PROTOCOL_VERSION = 1;

const FINAL = new Set([4400, 4401, 4403, 4406, 4408, 4409, 4413, 4429]); // the server said why: a person decides
const RETRY_SECONDS = [1, 2, 4, 8];
const PING_SECONDS = 2;

/** The parts of a binary message: its header, and the bytes that came with it. */
export function unpack(buffer) {
  const view = new DataView(buffer);
  const parts = [];
  for (let at = 0; at < buffer.byteLength; ) {
    const length = view.getUint32(at);
    parts.push(new Uint8Array(buffer, at + 4, length));
    at += 4 + length;
  }
  return [JSON.parse(new TextDecoder().decode(parts[0])), parts.slice(1)];
}

/** One binary message of a header and bytes. */
export function pack(message, bytes) {
  const header = new TextEncoder().encode(JSON.stringify(message));
  const out = new Uint8Array(8 + header.length + bytes.length);
  const view = new DataView(out.buffer);
  view.setUint32(0, header.length);
  out.set(header, 4);
  view.setUint32(4 + header.length, bytes.length);
  out.set(bytes, 8 + header.length);
  return out;
}

/**
 * Keeps a connection. Calls `on[type](message, parts)` for each message, `on.gone(why, seconds)` when the connection
 * is gone and is tried again in so many seconds, `on.ended(why, code)` when it is for a person to try again.
 */
export class Connection {
  constructor(on) {
    this.on = on;
    this.tries = 0;
    this.offset = null; // the server's clock less ours, seconds
    this.bestTrip = Infinity;
    setInterval(() => this.say({ type: "ping", at: performance.now() / 1000 }), PING_SECONDS * 1000);
    addEventListener("offline", () => this.socket?.close());
  }

  open() {
    clearTimeout(this.timer);
    const secure = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${secure}://${location.host}/ws?protocol_version=${PROTOCOL_VERSION}`);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.say({ type: "hello", token: decodeURIComponent(location.hash.slice(1)) });
    };
    socket.onmessage = (event) => this.#take(event.data);
    socket.onclose = (event) => socket === this.socket && this.#closed(event);
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  say(message, bytes) {
    if (!this.isOpen) return;
    this.socket.send(bytes ? pack(message, bytes) : JSON.stringify(message));
  }

  /** The server's time now, by the quickest answer of all so far; null before there was one. */
  serverTime() {
    return this.offset === null ? null : performance.now() / 1000 + this.offset;
  }

  #take(data) {
    const [message, parts] = typeof data === "string" ? [JSON.parse(data), []] : unpack(data);
    if (message.type === "welcome") this.tries = 0;
    if (message.type === "pong") this.#clock(message);
    this.on[message.type]?.(message, parts);
  }

  #clock(pong) {
    const now = performance.now() / 1000;
    const trip = now - pong.at;
    this.bestTrip *= 1.01; // clocks drift: an old answer counts less and less
    if (trip <= this.bestTrip) {
      this.bestTrip = trip;
      this.offset = pong.time - (pong.at + now) / 2;
    }
  }

  #closed(event) {
    this.offset = null;
    this.bestTrip = Infinity;
    if (FINAL.has(event.code)) {
      this.on.ended(event.reason || "The server ended the connection.", event.code);
      return;
    }
    const seconds = RETRY_SECONDS[Math.min(this.tries++, RETRY_SECONDS.length - 1)];
    this.on.gone(event.reason, seconds);
    this.timer = setTimeout(() => this.open(), seconds * 1000);
  }
}
