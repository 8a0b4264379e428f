document.querySelectorAll(".pt").forEach((point) => {
  const twins = document.querySelectorAll(`.pt[data-i="${point.dataset.i}"]`);
  const light = (on) => () => twins.forEach((twin) => twin.classList.toggle("on", on));
  point.addEventListener("mouseenter", light(true));
  point.addEventListener("mouseleave", light(false));
});

document.querySelectorAll(".set").forEach((set) => {
  const names = JSON.parse(set.dataset.names), m = names.length, said = set.querySelector(".readout");
  const panels = [...set.querySelectorAll(".panel")], step = 480 / m;
  const rank = (panel, a, b) => parseInt(panel.dataset.ranks.substr(2 * (a * m - (a * (a + 1)) / 2 + b - a - 1), 2), 16);
  let row = 0, column = 1;
  const show = () => {
    const [a, b] = [Math.min(row, column), Math.max(row, column)];
    const places = panels.map((panel) => `${panel.dataset.title} ${a === b ? "–" : rank(panel, a, b)}`);
    said.textContent = `${names[row]} – ${names[column]}: ${places.join(", ")} (0 the most alike pair, 100 the least)`;
    panels.forEach((panel) => {
      const mark = panel.querySelector(".at"), start = Number(panel.querySelector("image").getAttribute("x"));
      mark.setAttribute("x", start + column * step);
      mark.setAttribute("y", row * step);
      mark.classList.add("on");
    });
  };
  panels.forEach((panel) => {
    const matrix = panel.querySelector(".matrix"), picture = panel.querySelector("image");
    const within = (share) => Math.min(m - 1, Math.max(0, Math.floor(share * m)));
    matrix.addEventListener("mousemove", (event) => {
      const box = picture.getBoundingClientRect();
      column = within((event.clientX - box.left) / box.width);
      row = within((event.clientY - box.top) / box.height);
      show();
    });
    matrix.addEventListener("focus", show);
    matrix.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!move) return;
      event.preventDefault();
      row = within((row + move[0] + 0.5) / m);
      column = within((column + move[1] + 0.5) / m);
      show();
    });
  });
});
