// Folds all flags at once.
const flags = [...document.querySelectorAll("details.flag")];
if (flags.length > 1) {
  const button = document.createElement("button");
  button.className = "fold";
  const name = () => { button.textContent = flags.every((f) => f.open) ? "Fold all flags" : "Unfold all flags"; };
  button.onclick = () => { const open = !flags.every((f) => f.open); flags.forEach((f) => { f.open = open; }); name(); };
  flags.forEach((f) => f.addEventListener("toggle", name));
  name();
  document.querySelector("main > section").append(button);
}
// Reads the nearest window mean off a chart.
for (const svg of document.querySelectorAll("svg[data-chart]")) {
  const [left, width, height, low, high, from, to, decimals, unit] = svg.dataset.chart.split(" ")
    .map((word, at) => (at < 8 ? Number(word) : word));
  const cursor = svg.querySelector(".cursor");
  const readout = svg.parentNode.querySelector(".readout");
  const points = [...svg.querySelectorAll(".mean")]
    .flatMap((line) => [...line.points].map((p) => [p.x, p.y]))
    .concat([...svg.querySelectorAll(".point")].map((c) => [c.cx.baseVal.value, c.cy.baseVal.value]));
  svg.onmousemove = (event) => {
    const at = (event.offsetX / svg.clientWidth) * svg.viewBox.baseVal.width - left;
    const near = points.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a));
    const time = new Date(from + (near[0] / width) * (to - from)).toISOString().slice(11, 19);
    const value = (high - (near[1] / height) * (high - low)).toFixed(decimals);
    cursor.setAttribute("x1", near[0]);
    cursor.setAttribute("x2", near[0]);
    cursor.style.visibility = "visible";
    readout.textContent = `${value} ${unit ?? ""} at ${time}`;
  };
  svg.onmouseleave = () => { cursor.style.visibility = "hidden"; readout.textContent = ""; };
}
