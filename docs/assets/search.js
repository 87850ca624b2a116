// The search over `PAGES` (index.js), and the menu of narrow windows.
const input = document.querySelector(".search input");
const box = document.querySelector(".results");
const SHOWN = 14;

function escaped(text) {
  const node = document.createElement("span");
  node.textContent = text;
  return node.innerHTML;
}

// What is compared: without case, and "quantized" is "quantised". The length stays the same.
function spelled(text) {
  return text.toLowerCase().replace(/([iy])z(?=[eai])/g, "$1s");
}

// Points of a row: words in the title weigh most, then those in the heading, then those in the text.
function points(row, words) {
  const page = spelled(row.page), heading = spelled(row.heading), text = spelled(row.text);
  let sum = 0;
  for (const word of words) {
    const found = (page.includes(word) ? (row.heading ? 4 : 12) : 0) + (heading.includes(word) ? 8 : 0)
      + Math.min(3, text.split(word).length - 1);
    if (!found) return 0;
    sum += found;
    if (page.split(/[.\s]/).includes(word)) sum += 3;
  }
  return sum;
}

function excerpt(row, words) {
  const at = Math.max(0, spelled(row.text).indexOf(words[0]) - 50);
  let part = escaped((at ? "… " : "") + row.text.slice(at, at + 150));
  for (const word of words) {
    const pattern = escaped(word).replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/([iy])s(?=[eai])/g, "$1[sz]");
    part = part.replace(new RegExp(pattern, "gi"), "<b>$&</b>");
  }
  return part;
}

function search() {
  const words = spelled(input.value).split(/\s+/).filter((word) => word.length > 1);
  box.hidden = !words.length;
  if (!words.length) return;
  const rows = PAGES.map((row) => [points(row, words), row]).filter(([sum]) => sum)
    .sort((one, other) => other[0] - one[0]).slice(0, SHOWN);
  box.innerHTML = rows.map(([, row]) => `<a href="${row.url}">${escaped(row.page)}`
    + `${row.heading ? " › " + escaped(row.heading) : ""}<small>${excerpt(row, words)}</small></a>`).join("")
    || "<p>Nothing found.</p>";
}

function choose(step) {
  const links = [...box.querySelectorAll("a")];
  if (!links.length) return;
  const at = links.findIndex((link) => link.classList.contains("chosen"));
  if (at >= 0) links[at].classList.remove("chosen");
  const next = links[(at + step + links.length + (at < 0 && step < 0 ? 1 : 0)) % links.length];
  next.classList.add("chosen");
  next.scrollIntoView({ block: "nearest" });
}

input.addEventListener("input", search);
input.addEventListener("focus", search);
input.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    choose(event.key === "ArrowDown" ? 1 : -1);
    event.preventDefault();
  } else if (event.key === "Enter") {
    const link = box.querySelector("a.chosen") || box.querySelector("a");
    if (link) location.href = link.href;
  } else if (event.key === "Escape") {
    box.hidden = true;
    input.blur();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== input) {
    input.focus();
    event.preventDefault();
  }
});
document.addEventListener("click", (event) => {
  if (!event.target.closest(".search")) box.hidden = true;
  else if (event.target.closest(".results a")) box.hidden = true;
});

const menu = document.querySelector(".menu");
menu.addEventListener("click", () => {
  const open = document.querySelector("nav").classList.toggle("open");
  menu.setAttribute("aria-expanded", open);
});

// The menu is longer than most windows: show the part that has this page.
const here = document.querySelector("nav [aria-current]");
if (here) here.parentElement.scrollTop = here.offsetTop - here.parentElement.clientHeight / 2;
