// What is held: keys, mouse, touch sticks and a gamepad, as three moves and three turns.

const AXES = {
  KeyD: ["move", 0, 1], KeyA: ["move", 0, -1],
  KeyE: ["move", 1, 1], KeyQ: ["move", 1, -1],
  KeyW: ["move", 2, 1], KeyS: ["move", 2, -1],
  KeyL: ["turn", 0, 1], KeyJ: ["turn", 0, -1],
  KeyI: ["turn", 1, 1], KeyK: ["turn", 1, -1],
  KeyO: ["turn", 2, 1], KeyU: ["turn", 2, -1],
}; // prettier-ignore
const ROWS = { left: ["QWE", "ASD"], right: ["UIO", "JKL"] };
const FASTER = 2; // with Shift
const DRAG_PIXELS = 110; // that a drag is a key
const LOCK_PIXELS = 240; // that a held pointer moves to be one
const LOCK_SECONDS = 0.8; // in which that is forgotten by half
const DEAD = 0.15; // of a gamepad's sticks
const MOST = 8;
const STEP = 0.02; // a smaller change isn't worth a message
const REPEAT_SECONDS = 1; // what is held is said again, so that the server knows that somebody is there

const clamp = (value, most) => Math.min(Math.max(value, -most), most);

/** Whether an event is for a field or a dialog and not for the world. */
export function isForPage(event) {
  const target = event.target;
  return (
    event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") !== null ||
    ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName)
  ); // prettier-ignore
}

export class Input {
  /** `say(control)`: what is held has changed. */
  constructor(picture, sticks, say) {
    this.say = say;
    this.held = new Set();
    this.shift = false;
    this.look = [0, 0]; // of a drag or a held pointer: right, up
    this.sticks = { move: [0, 0], turn: [0, 0] };
    this.settings = { speed: 1, sensitivity: 1 };
    this.seq = 0;
    this.last = { move: [0, 0, 0], turn: [0, 0, 0] };
    this.saidAt = 0;
    this.#keys();
    this.#mouse(picture);
    this.#touch(sticks);
    this.#caps();
    const loop = (now) => {
      requestAnimationFrame(loop);
      this.#poll(now / 1000);
    };
    requestAnimationFrame(loop);
  }

  /** A new connection: it has heard nothing yet. */
  restart() {
    this.seq = 0;
    this.last = { move: [0, 0, 0], turn: [0, 0, 0] };
  }

  #keys() {
    addEventListener("keydown", (event) => {
      this.shift = event.shiftKey;
      if (isForPage(event) || !(event.code in AXES)) return;
      this.held.add(event.code);
      event.preventDefault();
    });
    addEventListener("keyup", (event) => {
      this.shift = event.shiftKey;
      this.held.delete(event.code);
    });
    const release = () => {
      this.held.clear();
      this.shift = false;
    };
    addEventListener("blur", release);
    document.addEventListener("visibilitychange", release);
  }

  #mouse(picture) {
    let from = null;
    picture.addEventListener("pointerdown", (event) => {
      from = [event.clientX, event.clientY];
      picture.setPointerCapture(event.pointerId);
    });
    picture.addEventListener("pointermove", (event) => {
      if (document.pointerLockElement === picture) {
        this.look[0] += event.movementX / LOCK_PIXELS;
        this.look[1] -= event.movementY / LOCK_PIXELS;
      } else if (from) {
        this.look = [(event.clientX - from[0]) / DRAG_PIXELS, (from[1] - event.clientY) / DRAG_PIXELS];
      }
    });
    for (const type of ["pointerup", "pointercancel"]) {
      picture.addEventListener(type, () => {
        from = null;
        if (document.pointerLockElement !== picture) this.look = [0, 0];
      });
    }
    picture.addEventListener("dblclick", () => picture.requestPointerLock?.());
    document.addEventListener("pointerlockchange", () => (this.look = [0, 0]));
  }

  #touch(root) {
    for (const name of ["move", "turn"]) {
      const stick = root.querySelector(`#stick-${name}`);
      const knob = stick.querySelector("i");
      const set = (x, y) => {
        this.sticks[name] = [x, y];
        knob.style.transform = `translate(${x * 34}px, ${-y * 34}px)`;
        stick.classList.toggle("held", x !== 0 || y !== 0);
      };
      const follow = (event) => {
        const box = stick.getBoundingClientRect();
        const x = (event.clientX - box.x) / box.width - 0.5;
        const y = 0.5 - (event.clientY - box.y) / box.height;
        const most = Math.max(1, Math.hypot(x, y) / 0.5);
        set((2 * x) / most, (2 * y) / most);
      };
      stick.addEventListener("pointerdown", (event) => {
        stick.setPointerCapture(event.pointerId);
        follow(event);
      });
      stick.addEventListener("pointermove", (event) => stick.hasPointerCapture(event.pointerId) && follow(event));
      for (const type of ["pointerup", "pointercancel"]) stick.addEventListener(type, () => set(0, 0));
    }
    for (const button of root.querySelectorAll("[data-hold]")) {
      button.addEventListener("pointerdown", () => this.held.add(button.dataset.hold));
      for (const type of ["pointerup", "pointercancel", "pointerleave"]) {
        button.addEventListener(type, () => this.held.delete(button.dataset.hold));
      }
    }
  }

  #caps() {
    this.caps = {};
    for (const [side, rows] of Object.entries(ROWS)) {
      const box = document.getElementById(`${side}-keys`);
      for (const key of rows.join("")) {
        const cap = document.createElement("span");
        cap.textContent = key;
        box.append(cap);
        this.caps[`Key${key}`] = cap;
      }
    }
  }

  #gamepad() {
    const axes = { move: [0, 0, 0], turn: [0, 0, 0] };
    for (const pad of navigator.getGamepads?.() ?? []) {
      if (!pad?.connected) continue;
      const stick = (i) => (Math.abs(pad.axes[i] ?? 0) > DEAD ? pad.axes[i] : 0);
      const button = (i) => pad.buttons[i]?.value ?? 0;
      axes.move = [stick(0), button(7) - button(6), -stick(1)];
      axes.turn = [stick(2), -stick(3), button(5) - button(4)];
    }
    return axes;
  }

  #sum() {
    const { move, turn } = this.#gamepad();
    const sum = { move: [...move], turn: [...turn] };
    for (const code of this.held) {
      const [kind, axis, sign] = AXES[code];
      sum[kind][axis] += sign;
    }
    const sticks = this.sticks;
    sum.move[0] += sticks.move[0];
    sum.move[2] += sticks.move[1];
    sum.turn[0] += sticks.turn[0] + this.look[0];
    sum.turn[1] += sticks.turn[1] + this.look[1];
    const faster = this.shift ? FASTER : 1;
    const scale = { move: this.settings.speed * faster, turn: this.settings.sensitivity * faster };
    const of = (kind) => sum[kind].map((value) => Math.round(clamp(value * scale[kind], MOST) * 1000) / 1000);
    return { move: of("move"), turn: of("turn") };
  }

  #poll(now) {
    const passed = Math.min(now - (this.polledAt ?? now), 0.1);
    this.polledAt = now;
    if (document.pointerLockElement) this.look = this.look.map((value) => value * 0.5 ** (passed / LOCK_SECONDS));
    for (const [code, cap] of Object.entries(this.caps)) {
      cap.classList.toggle("held", this.held.has(code));
    }
    const sum = this.#sum();
    const all = (one) => [...one.move, ...one.turn];
    const before = all(this.last);
    const apart = Math.max(...all(sum).map((value, i) => Math.abs(value - before[i])));
    const stops = apart > 0 && all(sum).every((value) => value === 0);
    if (apart >= STEP || stops) {
      this.last = sum;
      this.seq += 1;
    } else if (all(this.last).every((value) => value === 0) || now - this.saidAt < REPEAT_SECONDS) {
      return;
    }
    this.saidAt = now;
    this.say({ type: "control", seq: this.seq, ...this.last });
  }
}
