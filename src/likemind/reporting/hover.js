document.querySelectorAll(".pt").forEach((point) => {
  const twins = document.querySelectorAll(`.pt[data-i="${point.dataset.i}"]`);
  const light = (on) => () => twins.forEach((twin) => twin.classList.toggle("on", on));
  point.addEventListener("mouseenter", light(true));
  point.addEventListener("mouseleave", light(false));
});
