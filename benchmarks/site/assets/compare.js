// Two pictures of a figure on top of each other, with a slider that moves the border between them.
(() => {
  const { element } = window;

  function chooser(label, names) {
    return element("select", names.map(name => element("option", name)), { "aria-label": label });
  }

  function comparison(pictures) {
    const groups = [...new Set(pictures.map(picture => picture.group))];
    const group = chooser("scene", groups);
    const sides = [chooser("left picture", []), chooser("right picture", [])];
    const images = sides.map(() => element("img", [], { alt: "" }));
    const border = element("input", [], { type: "range", min: 0, max: 100, value: 50, "aria-label": "border between the pictures" });
    const notes = sides.map(() => element("span"));
    const frame = element("div", [...images, border], { class: "pictures" });

    const ofGroup = () => pictures.filter(picture => picture.group === group.value);
    const move = () => frame.style.setProperty("--border", `${border.value}%`);

    function show() {
      sides.forEach((side, place) => {
        const { label, note, png } = ofGroup().find(picture => picture.label === side.value);
        images[place].src = `data:image/png;base64,${png}`;
        images[place].alt = `${group.value}, ${label}`;
        notes[place].textContent = note ? `${label}: ${note}` : label;
      });
    }

    function fill() {
      const labels = ofGroup().map(picture => picture.label);
      sides.forEach((side, place) => {
        const before = side.value;
        side.replaceChildren(...labels.map(label => element("option", label)));
        side.value = labels.includes(before) ? before : labels[Math.min(place + 1, labels.length - 1)];
      });
      show();
    }

    group.addEventListener("change", fill);
    for (const side of sides) side.addEventListener("change", show);
    border.addEventListener("input", move);
    move();
    fill();
    return [element("div", [group, ...sides], { class: "filters" }), frame, element("p", notes, { class: "notes" })];
  }

  for (const place of document.querySelectorAll(".compare")) place.append(...comparison(window.figurePictures[place.dataset.figure]));
})();
