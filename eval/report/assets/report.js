// The controls of report.html: images to choose and to compare, and tables to filter. Sorting is sortable.min.js.
"use strict";

function made(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const FEW = 2; // captions of a kind, unless all are asked for
const SMALL = 96; // pixels, below which an image is shown with its own pixels

// ---- images

function choices(legend, type, name, values, checked) {
  const group = made("fieldset", {}, made("legend", {}, legend));
  for (const value of values) {
    const input = made("input", { type, name, value });
    input.checked = checked(value);
    group.append(made("label", {}, input, " " + value));
  }
  return group;
}

function picked(form, name) {
  return [...form.querySelectorAll(`input[name="${name}"]:checked`)].map((input) => input.value);
}

function held(button, dense, own, label) {
  const image = button.querySelector("img");
  const caption = button.parentElement.querySelector("figcaption");
  const show = (source, text) => { image.src = source; caption.firstChild.textContent = text; };
  const down = () => { show(dense, "dense"); button.classList.add("held"); };
  const up = () => { show(own, label); button.classList.remove("held"); };
  button.addEventListener("pointerdown", down);
  for (const end of ["pointerup", "pointerleave", "pointercancel", "blur"]) button.addEventListener(end, up);
  button.addEventListener("keydown", (event) => {
    if (event.key === " " || event.key === "Enter") { event.preventDefault(); down(); }
  });
  button.addEventListener("keyup", up);
  button.addEventListener("contextmenu", (event) => event.preventDefault()); // a long touch
}

function card(setting, images, place, cells) {
  const dense = setting.cells.find((cell) => cell.label === "dense");
  const row = made("div", { class: "row" });
  for (const cell of dense ? [dense, ...cells] : cells) {
    const own = images[cell.path][place];
    const text = `${cell.label}: ${setting.captions[place].text}`;
    const image = made("img", { src: own, alt: text, draggable: "false" });
    image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < SMALL));
    const number = cell.numbers[place] ? made("small", {}, cell.numbers[place]) : "";
    const below = made("figcaption", {}, made("span", {}, cell.label), number);
    if (!dense || cell === dense) {
      row.append(made("figure", {}, made("span", { class: "still" }, image), below));
    } else {
      const button = made("button", { type: "button", "aria-label": `${text}; hold to see the dense model's` }, image);
      row.append(made("figure", {}, button, below));
      held(button, images[dense.path][place], own, cell.label);
    }
  }
  const kind = setting.captions[place].kind;
  const mark = kind ? made("small", { class: "kind" }, kind) : "";
  return made("section", { class: "card" }, made("h3", {}, setting.captions[place].text, " ", mark), row);
}

function gallery(root, data) {
  const kinds = (setting) => [...new Set(setting.captions.map((caption) => caption.kind))].filter(Boolean);
  const form = made("form", { class: "controls" });
  const cards = made("div", { class: "cards", "aria-live": "polite" });
  const names = data.settings.map((setting) => setting.name);
  const select = made("select", {}, ...names.map((name, i) => made("option", { value: i }, name)));
  const search = made("input", { type: "search", placeholder: "words of a caption" });
  const all = made("input", { type: "checkbox", name: "all" });
  let setting;

  function controls() {
    setting = data.settings[select.value || 0];
    const pruned = setting.cells.filter((cell) => cell.label !== "dense");
    const sparsities = [...new Set(pruned.map((cell) => cell.sparsity))].sort();
    const labels = [...new Set(pruned.map((cell) => cell.label))];
    form.replaceChildren();
    if (names.length > 1) form.append(made("label", {}, "Model and pattern ", select));
    if (sparsities.length) {
      const last = sparsities[sparsities.length - 1];
      form.append(choices("Sparsity", "radio", "sparsity", sparsities, (value) => value === last));
      form.append(choices("Methods", "checkbox", "method", labels, () => true));
    }
    const groups = kinds(setting);
    if (groups.length) form.append(choices("Captions", "checkbox", "kind", groups, () => true));
    form.append(made("label", {}, all, ` all ${setting.captions.length} captions`), made("label", {}, "Search ", search));
    update();
  }

  function update() {
    const methods = picked(form, "method"), sparsity = picked(form, "sparsity")[0], wanted = picked(form, "kind");
    const words = search.value.trim().toLowerCase();
    const cells = setting.cells.filter((cell) => methods.includes(cell.label) && cell.sparsity === sparsity);
    const seen = {};
    const places = setting.captions.map((_, place) => place).filter((place) => {
      const { kind, text } = setting.captions[place];
      if ((kind && !wanted.includes(kind)) || !text.toLowerCase().includes(words)) return false;
      seen[kind] = (seen[kind] || 0) + 1;
      return all.checked || words || seen[kind] <= (kind ? FEW : 3 * FEW);
    });
    cards.replaceChildren(...places.map((place) => card(setting, data.images, place, cells)));
    if (!places.length) cards.append(made("p", {}, "No caption is chosen."));
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => (event.target === select ? controls() : update()));
  root.replaceChildren(form, cards);
  controls();
}

// ---- tables

function filtered(table) {
  const rows = () => [...table.tBodies[0].rows];
  if (rows().length < 6) return;
  const input = made("input", { type: "search", placeholder: "words of a row" });
  const count = made("output", {}, "");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows()) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    count.textContent = words.length ? `${rows().filter((row) => !row.hidden).length} of ${rows().length} rows` : "";
  });
  const region = table.parentElement;
  region.before(made("div", { class: "filter" }, made("label", {}, "Filter ", input), count));
}

// ---- the page

const data = document.getElementById("gallery-data");
if (data) gallery(document.getElementById("gallery"), JSON.parse(data.textContent));
document.querySelectorAll("table.sortable").forEach(filtered);

const folded = () => document.querySelectorAll("details:not([open])");
let opened = [];
addEventListener("beforeprint", () => { opened = [...folded()]; opened.forEach((each) => { each.open = true; }); });
addEventListener("afterprint", () => opened.forEach((each) => { each.open = false; }));
function reveal() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let each = target && target.closest("details"); each; each = each.parentElement.closest("details")) each.open = true;
}
addEventListener("hashchange", reveal);
reveal();
