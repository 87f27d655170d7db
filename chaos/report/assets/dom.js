// Elements, and how numbers read. Whatever comes from the document becomes text or an attribute here, never markup.

const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((each) => each !== null && each !== undefined));
  return element;
}

const find = (selector) => document.querySelector(selector);

function seconds(value) {
  return value < 10 ? `${value.toFixed(1)} s` : `${Math.round(value)} s`;
}

// A moment of the run, precise enough for a step of `step` seconds: 61.5 s, 5:07.
function moment(value, step = 1) {
  const digits = step >= 1 ? 0 : Math.min(6, Math.ceil(-Math.log10(step)));
  if (value < 60 || step < 1) return `${value.toFixed(digits)} s`;
  const whole = Math.round(value);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

function milliseconds(value) {
  if (value >= 1000) return `${(value / 1000).toFixed(value < 10000 ? 1 : 0)} s`;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

const counted = (number, one, more = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : more}`;

// Calls `work` once before the next frame, however often it is asked to.
function perFrame(work) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      work();
    });
  };
}

// Calls `work` when the element comes near the window, or is about to be printed.
function whenNear(element, work) {
  let done = false;
  const once = () => {
    if (done) return;
    done = true;
    watcher.disconnect();
    work();
  };
  const watcher = new IntersectionObserver((entries) => entries.some((each) => each.isIntersecting) && once(), { rootMargin: "600px" });
  watcher.observe(element);
  addEventListener("beforeprint", once);
}

const tip = {
  show(x, y, lines) {
    const element = find(".tip");
    element.replaceChildren(...lines.map((line, number) => make("p", {}, number ? line : make("b", {}, line))));
    element.hidden = false;
    const box = element.getBoundingClientRect();
    element.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - box.width - 8))}px`;
    element.style.top = `${y + 18 + box.height > innerHeight ? Math.max(8, y - box.height - 12) : y + 18}px`;
  },
  hide() {
    find(".tip").hidden = true;
  },
};
