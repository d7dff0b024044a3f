// Two small drawings: the way so far from above, and what memory holds.

const ACCENT = "255 196 61";
const KINDS = { 1: 1, 2: 0.62, 4: 0.34 }; // height of a latent that is kept whole, halved, quartered per side

/** The path of the camera from above; forward at the start is up. */
export function drawMap(canvas, path, pose) {
  const context = canvas.getContext("2d");
  const side = canvas.width;
  context.clearRect(0, 0, side, side);
  const points = [[0, 0], ...path];
  const xs = points.map((point) => point[0]);
  const zs = points.map((point) => point[1]);
  const [left, right, near, far] = [Math.min(...xs), Math.max(...xs), Math.min(...zs), Math.max(...zs)];
  const span = Math.max(right - left, far - near, 2) * 1.35;
  const at = ([x, z]) => [
    side / 2 + ((x - (left + right) / 2) / span) * side,
    side / 2 - ((z - (near + far) / 2) / span) * side,
  ];
  context.lineWidth = 3;
  context.lineJoin = "round";
  for (let i = 1; i < points.length; i++) {
    context.strokeStyle = `rgb(${ACCENT} / ${0.25 + 0.65 * (i / points.length)})`;
    context.beginPath();
    context.moveTo(...at(points[i - 1]));
    context.lineTo(...at(points[i]));
    context.stroke();
  }
  context.fillStyle = "rgb(255 255 255 / 45%)";
  context.beginPath();
  context.arc(...at(points[0]), 4, 0, 7);
  context.fill();
  if (!pose) return;
  const [x, y] = at([pose.position[0], pose.position[2]]);
  context.translate(x, y);
  context.rotate((pose.yaw * Math.PI) / 180);
  const view = context.createLinearGradient(0, 0, 0, -46);
  view.addColorStop(0, `rgb(${ACCENT} / 55%)`);
  view.addColorStop(1, `rgb(${ACCENT} / 0%)`);
  context.fillStyle = view;
  context.beginPath();
  context.moveTo(0, 0);
  context.lineTo(-34, -46);
  context.lineTo(34, -46);
  context.fill();
  context.fillStyle = `rgb(${ACCENT})`;
  context.beginPath();
  context.moveTo(0, -11);
  context.lineTo(8, 8);
  context.lineTo(0, 4);
  context.lineTo(-8, 8);
  context.fill();
  context.setTransform(1, 0, 0, 1, 0, 0);
}

/** What the cache holds, a bar each; brighter where the newest view attends to more. */
export function drawMemory(canvas, memory) {
  const width = Math.round(canvas.clientWidth * devicePixelRatio);
  const height = Math.round(canvas.clientHeight * devicePixelRatio);
  if (!width || !height) return;
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  const { held, mass } = memory;
  if (!held.length) return;
  const most = Math.max(...(mass ?? [0]), 1e-6);
  const step = width / Math.max(held.length, 24);
  held.forEach(([, factor], i) => {
    const tall = height * KINDS[factor];
    const share = mass ? Math.sqrt(mass[i] / most) : 0; // a few get nearly all: the root lets the others be seen
    context.fillStyle = `rgb(255 255 255 / ${factor === 1 ? 16 : 10}%)`;
    context.beginPath();
    context.roundRect(i * step + 1, height - tall, Math.max(step - 2, 1), tall, 3);
    context.fill();
    context.fillStyle = `rgb(${ACCENT} / ${Math.round(share * 100)}%)`;
    context.fill();
  });
}
