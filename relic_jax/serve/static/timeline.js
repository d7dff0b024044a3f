// The seconds so far: look at one, go back to it, and branch there.

const THUMBS = 600; // pictures that are kept for a look; older ones go

export class Timeline {
  /** `goBack(blocks, otherNoise)`: the person wants to be where so many blocks had been made. */
  constructor(root, goBack) {
    this.root = root;
    this.goBack = goBack;
    this.played = root.querySelector("#played");
    this.cursor = root.querySelector("#cursor");
    this.text = root.querySelector("#cursor-text");
    this.thumb = root.querySelector("#thumb");
    this.thumbs = new Map();
    this.shape = { seconds: 1 };
    this.set(0);
    root.addEventListener("pointermove", (event) => this.#look(this.#at(event)));
    root.addEventListener("pointerleave", () => this.#look(null));
    root.addEventListener("click", (event) => this.#choose(this.#at(event), event.shiftKey));
    root.addEventListener("blur", () => this.#look(null));
    root.addEventListener("keydown", (event) => this.#key(event));
  }

  /** So many blocks are there. */
  set(blocks) {
    this.blocks = blocks;
    for (const [block, url] of this.thumbs) {
      if (block < blocks) continue;
      URL.revokeObjectURL(url);
      this.thumbs.delete(block);
    }
    const room = 60 * Math.ceil((blocks + 1) / 60); // a minute, then the next
    this.room = room;
    this.played.style.width = `${(100 * blocks) / room}%`;
    this.root.setAttribute("aria-valuemin", "0");
    this.root.setAttribute("aria-valuemax", String(blocks));
    this.root.setAttribute("aria-valuenow", String(this.chosen ?? blocks));
    document.getElementById("clock").textContent = `${(blocks * this.shape.seconds).toFixed(0)} s`;
  }

  /** A block is shown; `jpeg` is its first frame, where there is one. */
  add(block, jpeg) {
    if (jpeg) this.thumbs.set(block, URL.createObjectURL(new Blob([jpeg], { type: "image/jpeg" })));
    if (this.thumbs.size > THUMBS) {
      const [oldest, url] = this.thumbs.entries().next().value;
      URL.revokeObjectURL(url);
      this.thumbs.delete(oldest);
    }
    this.set(block + 1);
  }

  #at(event) {
    const box = this.root.getBoundingClientRect();
    return Math.round(((event.clientX - box.x) / box.width) * this.room);
  }

  #choose(block, otherNoise) {
    if (block === null || block >= this.blocks) return;
    this.chosen = null;
    this.#look(null);
    this.goBack(Math.max(block, 0), otherNoise);
  }

  #key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
    if (event.key in steps) {
      this.chosen = Math.min(Math.max((this.chosen ?? this.blocks) + steps[event.key], 0), this.blocks);
      this.#look(this.chosen);
    } else if (event.key === "Enter") {
      this.#choose(this.chosen, event.shiftKey);
    } else {
      return;
    }
    event.preventDefault();
  }

  #look(block) {
    const there = block !== null && block >= 0 && block <= this.blocks;
    this.cursor.hidden = !there;
    if (!there) return;
    this.cursor.style.left = `${(100 * block) / this.room}%`;
    this.text.textContent = `${(block * this.shape.seconds).toFixed(0)} s`;
    const url = this.thumbs.get(block);
    this.thumb.hidden = !url;
    if (url) this.thumb.src = url;
  }
}
