"use strict";
// the page reads without this: it adds the sorting, the hover, the copying and the choice of light or dark
(() => {
  const root = document.documentElement;
  root.classList.add("script");

  // light or dark
  const toggle = document.getElementById("theme");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const show = () => {
    toggle.textContent = dark() ? "Light" : "Dark";
    toggle.setAttribute("aria-label", `Show the page in ${dark() ? "light" : "dark"} colours`);
  };
  toggle.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();

  // sorting: by the number or the word of a cell; what has none comes last
  const number = (text) => text === "" || Number.isNaN(Number(text)) ? null : Number(text);
  const placed = (text) => text.trim() === "" || text === "-" ? null : text;
  Tablesort.extend("value", () => false, (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (x !== null && y !== null) return y - x;
    if ((x === null) !== (y === null)) return x === null ? -1 : 1;
    return String(placed(b) ?? "").localeCompare(String(placed(a) ?? ""));
  });
  for (const table of document.querySelectorAll("table.sorted")) new Tablesort(table, {descending: true});

  // hover: the title of a mark, at once and on touch
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.append(tip);
  for (const title of document.querySelectorAll("svg.chart title")) {
    const mark = title.parentNode;
    mark.dataset.tip = title.textContent;
    mark.setAttribute("aria-label", title.textContent);
    title.remove();
  }
  for (const tile of document.querySelectorAll(".tiles li[title]")) {
    tile.dataset.tip = tile.title;
    tile.removeAttribute("title");
  }
  const move = (event) => {
    const mark = event.target.closest("[data-tip]");
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    const box = tip.getBoundingClientRect();
    const above = event.clientY - box.height - 14;
    tip.style.left = `${Math.max(8, Math.min(event.clientX - box.width / 2, innerWidth - box.width - 8))}px`;
    tip.style.top = `${above > 4 ? above : event.clientY + 18}px`;
  };
  document.addEventListener("pointermove", move);
  document.addEventListener("pointerdown", move);
  document.addEventListener("scroll", () => { tip.hidden = true; }, {passive: true});

  // copying
  const copied = (button) => {
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  };
  const select = (code) => {
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  };
  for (const button of document.querySelectorAll(".command button")) {
    const code = button.parentNode.querySelector("code");
    button.addEventListener("click", () => {
      const old = () => { select(code); if (document.execCommand("copy")) copied(button); };
      navigator.clipboard ? navigator.clipboard.writeText(code.textContent).then(() => copied(button), old) : old();
    });
  }
})();
