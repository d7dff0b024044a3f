// The dialog in which a world is begun: scenes, a picture of one's own, prompt, seed, a saved session.

export class World {
  /** `begin({scene, picture, prompt, seed})`, `load(bytes)`, `describe(prompt)`. */
  constructor(on) {
    this.on = on;
    this.dialog = document.getElementById("world");
    this.scenes = document.getElementById("scenes");
    this.prompt = document.getElementById("prompt");
    this.seed = document.getElementById("seed");
    this.picture = null;
    this.scene = null;
    document.getElementById("begin").addEventListener("submit", () => this.#begin());
    document.getElementById("describe").addEventListener("click", () => {
      this.on.describe(this.prompt.value);
      this.dialog.close();
    });
    document.getElementById("load").addEventListener("change", async (event) => {
      const file = event.target.files[0];
      event.target.value = "";
      if (!file) return;
      this.dialog.close();
      this.on.load(new Uint8Array(await file.arrayBuffer()));
    });
    this.#dropping();
  }

  open(playing) {
    document.getElementById("describe").disabled = !playing;
    if (!this.dialog.open) this.dialog.showModal();
  }

  close() {
    this.dialog.close();
  }

  /** The scenes that the server has. */
  fill(welcome) {
    this.limit = welcome.max_upload;
    this.prompt.maxLength = welcome.max_prompt;
    if (this.scenes.children.length) return;
    for (const scene of welcome.scenes) {
      const card = this.#card(scene.title);
      const image = document.createElement("img");
      image.src = scene.picture;
      image.alt = "";
      card.prepend(image);
      card.addEventListener("click", () => this.#choose(card, scene.name, scene.prompt));
      if (!this.scene) this.#choose(card, scene.name, scene.prompt);
    }
    this.#own();
  }

  #own() {
    const card = this.#card("");
    card.classList.add("drop");
    card.querySelector("span").remove();
    card.append("Drop a picture here, or choose one");
    const chooser = document.createElement("input");
    chooser.type = "file";
    chooser.accept = "image/png,image/jpeg,image/webp";
    chooser.hidden = true;
    chooser.id = "own";
    chooser.addEventListener("change", () => this.#take(chooser.files[0]));
    card.addEventListener("click", () => chooser.click());
    this.scenes.after(chooser);
    this.own = card;
  }

  #card(title) {
    const card = document.createElement("button");
    card.type = "button";
    card.className = "card";
    card.setAttribute("role", "radio");
    card.setAttribute("aria-checked", "false");
    const label = document.createElement("span");
    label.textContent = title;
    card.append(label);
    this.scenes.append(card);
    return card;
  }

  #choose(card, scene, prompt) {
    for (const one of this.scenes.children) one.setAttribute("aria-checked", String(one === card));
    this.scene = scene;
    if (prompt) this.prompt.value = prompt;
  }

  #dropping() {
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      this.open(false);
      this.#take(event.dataTransfer.files[0]);
    });
  }

  async #take(file) {
    if (!file) return;
    if (file.size > this.limit) return this.on.refuse(`${file.name} is too large`);
    this.picture = new Uint8Array(await file.arrayBuffer());
    const image = document.createElement("img");
    image.src = URL.createObjectURL(file);
    image.alt = file.name;
    image.onload = () => URL.revokeObjectURL(image.src);
    image.onerror = () => this.own.replaceChildren(file.name);
    this.own.classList.add("full");
    this.own.replaceChildren(image);
    this.#choose(this.own, null, "");
    this.prompt.focus();
  }

  #begin() {
    const picture = this.scene === null ? this.picture : null;
    if (this.scene === null && !picture) return this.on.refuse("choose a scene or a picture first");
    this.on.begin({ scene: this.scene, picture, prompt: this.prompt.value, seed: Number(this.seed.value) });
  }
}
