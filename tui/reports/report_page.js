"use strict";
// The table of units: sorted, filtered and opened over columns of plain arrays; rows are made as they come into sight.
(() => {
  const BATCH = 60;        // rows made at a time
  const PRINTED = 600;     // rows that are made for a printer
  const FULL_IOU = 0.4;    // fills the bar
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const U = data.units;
  const N = U.unit.length;
  const K = data.categories.length;
  const none = "–";

  const concept = (row) => (row < 0 ? "" : data.concepts[row][0]);
  const category = (i) => (U.category[i] < K ? data.categories[U.category[i]][0] : "");
  const fixed = (count) => (x) => (x === null ? none : x.toFixed(count));
  const digits = (count) => (x) => {
    if (x === null) return none;
    const size = Math.abs(x);
    if (size !== 0 && (size < 0.001 || size >= 1e6)) return x.toExponential(count - 1);
    return size >= 10 ** (count - 1) ? x.toFixed(0) : x.toPrecision(count);
  };
  const share = digits(2);
  const value = (key) => (i) => U[key][i];

  // data.columns says of each column its key, title, help, whether it is a number, which way it is sorted first, and how
  // a number is written. `of`: what a column sorts by; `show`: its text; `cell` fills the cell where text is not enough.
  const own = {
    layer: { show: (i) => data.layers[U.layer[i]] },
    unit: { show: (i) => String(U.unit[i]), cell: openCell },
    label: { of: (i) => concept(U.label[i]).toLowerCase() || null, show: labelOf },
    category: { of: categoryRank, show: category, cell: categoryCell },
    iou: { cell: iouCell },
    needed_by: { of: (i) => needing(i).toLowerCase() || null, show: needing },
  };
  const columns = data.columns.map((column) => {
    const [way, count] = column.write;
    const written = { fixed, digits }[way](count);
    return { ...column, of: value(column.key), show: (i) => written(U[column.key][i]), ...own[column.key] };
  });

  let sorting = { column: columns.find((c) => c.key === "iou"), way: -1 };
  let found = [];                 // the units that pass the filter, sorted
  let made = 0;                   // how many of them have rows
  const opened = new Set();       // units whose details are shown
  let asked = null;               // the unit whose row the keyboard is on

  function needing(i) {
    return data.classes[U.needed_by[i]] || "";
  }
  function labelOf(i) {
    return concept(U.label[i]) || (U.dead[i] ? "dead" : "no label");
  }
  function categoryRank(i) {
    return U.category[i] < K ? U.category[i] : null;
  }
  function element(name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  // ---- filter and sort

  const haystack = Array.from({ length: N }, (_, i) =>
    `${data.layers[U.layer[i]]}:${U.unit[i]} ${labelOf(i)} ${category(i)}`.toLowerCase());

  function passing() {
    const words = $("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    const layer = $("layer").value;
    const wanted = $("category").value;
    const least = Number($("least").value) || 0;
    const significant = $("significant").checked;
    const kept = [];
    for (let i = 0; i < N; i++) {
      if (layer !== "" && U.layer[i] !== Number(layer)) continue;
      if (wanted !== "" && categoryRank(i) !== Number(wanted)) continue;
      if (U.iou[i] < least) continue;
      if (significant && !(U.q[i] !== null && U.q[i] < 0.05)) continue;
      if (words.every((w) => haystack[i].includes(w))) kept.push(i);
    }
    return kept;
  }

  function sorted(kept) {
    const { column, way } = sorting;
    const key = kept.map(column.of);
    const order = kept.map((_, at) => at);
    order.sort((a, b) => {
      const x = key[a], y = key[b];
      if (x === y) return kept[a] - kept[b];
      if (x === null) return 1;   // what is not known comes last either way
      if (y === null) return -1;
      return (x < y ? -1 : 1) * way;
    });
    return order.map((at) => kept[at]);
  }

  function show() {
    found = sorted(passing());
    made = 0;
    asked = null;
    $("rows").replaceChildren();
    grow(BATCH);
    for (const th of $("head").children) {
      const own = th.dataset.key === sorting.column.key;
      if (own) th.setAttribute("aria-sort", sorting.way > 0 ? "ascending" : "descending");
      else th.removeAttribute("aria-sort");
    }
    $("count").textContent = `${found.length.toLocaleString("en")} of ${N.toLocaleString("en")} units`;
  }

  // ---- rows

  function grow(count) {
    const rows = document.createDocumentFragment();
    const end = Math.min(found.length, made + count);
    for (; made < end; made++) rows.append(...unitRows(found[made]));
    $("rows").append(rows);
    $("more").hidden = made === found.length;
    if (asked === null && found.length) turnTo(found[0], false);
  }

  function unitRows(i) {
    const row = element("tr", undefined, "unit");
    row.dataset.row = i;
    for (const column of columns) {
      const cell = element("td", undefined, column.number ? "number" : undefined);
      cell.dataset.label = column.title;
      cell.dataset.key = column.key;
      if (column.cell) column.cell(cell, i, column.show(i));
      else cell.textContent = column.show(i);
      row.append(cell);
    }
    if (!(U.iou[i] > data.detector)) row.classList.add("below");
    return hasMore(i) ? [row, detailRow(i)] : [row];
  }

  function openCell(cell, i, text) {
    const button = element("button", text, "open");
    button.type = "button";
    button.tabIndex = -1;
    button.setAttribute("aria-expanded", String(opened.has(i)));
    button.setAttribute("aria-label", `${data.layers[U.layer[i]]} unit ${text}, ${labelOf(i)}`);
    cell.append(button);
  }

  function categoryCell(cell, i, text) {
    if (!text) return;
    const dot = element("span", undefined, "dot");
    dot.style.background = data.categories[categoryRank(i)][1];
    cell.append(dot, text);
  }

  function iouCell(cell, i, text) {
    const bar = element("span", undefined, "bar");
    const along = (x) => `${Math.min(100, (100 * x) / FULL_IOU)}%`;
    const fill = element("span", undefined, "fill");
    fill.style.width = along(U.iou[i]);
    bar.append(fill);
    const low = U.iou_low && U.iou_low[i], high = U.iou_high && U.iou_high[i];
    if (low !== null && low !== undefined && high !== null && high !== undefined) {
      const interval = element("span", undefined, "interval");
      interval.style.left = along(low);
      interval.style.right = `calc(100% - ${along(high)})`;
      bar.append(interval);
      cell.title = `95 % interval ${low.toFixed(4)} to ${high.toFixed(4)}`;
    }
    cell.append(element("span", text, "value"), bar);
  }

  // ---- a unit's details

  // A row has more below it where it is opened, or where images of all are wanted: then its images alone.
  const hasMore = (i) => opened.has(i) || ($("pictures").checked && imagesOf(i) !== null);
  const imagesOf = (i) => $(`images-${U.layer[i]}-${U.unit[i]}`);

  function toggle(i) {
    const row = rowOf(i);
    if (hasMore(i)) row.nextElementSibling.remove();
    if (!opened.delete(i)) opened.add(i);
    if (hasMore(i)) row.after(detailRow(i));
    row.querySelector(".open").setAttribute("aria-expanded", String(opened.has(i)));
  }

  function detailRow(i) {
    const row = element("tr", undefined, "detail");
    const cell = element("td");
    cell.colSpan = columns.length;
    row.append(cell);
    const images = imagesOf(i);
    if (images) cell.append(strip(i, JSON.parse(images.textContent)));
    if (!opened.has(i)) return row;
    const about = element("div", undefined, "about");
    const said = evidence(i);
    if (said.length) {
      const list = element("ul", undefined, "evidence");
      list.append(...said.map((text) => element("li", text)));
      about.append(list);
    }
    const best = bestTable(i);
    if (best) about.append(best);
    if (about.children.length) cell.append(about);
    if (!cell.children.length) cell.textContent = "Nothing else is known of this unit.";
    return row;
  }

  function strip(i, images) {
    const all = element("div", undefined, "strip");
    for (const [jpeg, caption] of images) {
      const one = element("figure");
      const image = element("img");
      image.decoding = "async";
      image.loading = "lazy";
      image.alt = `${labelOf(i)}: ${caption}`;
      image.src = `data:image/jpeg;base64,${jpeg}`;
      one.append(image, element("figcaption", caption));
      all.append(one);
    }
    return all;
  }

  function evidence(i) {
    const at = (key) => (key in U ? U[key][i] : null);
    const said = [];
    if (at("iou_low") !== null) {
      let text = `IoU ${U.iou[i].toFixed(4)}, 95 % interval ${at("iou_low").toFixed(4)} to ${at("iou_high").toFixed(4)}`;
      if (at("stability") !== null) text += `; the label stays the best in ${(100 * at("stability")).toFixed(0)} % of resamples`;
      said.push(text);
    }
    if (at("p") !== null) said.push(`against chance: p ${share(at("p"))}, q ${share(at("q"))}`);
    if (at("heldout_label") >= 0 && at("train_iou") !== null) {
      said.push(`chosen on train: ${concept(at("heldout_label"))}, IoU ${at("train_iou").toFixed(4)} there` +
        (at("heldout_iou") === null ? ", in no val image" : `, ${at("heldout_iou").toFixed(4)} on val`));
    }
    if (at("auprc") !== null) {
      said.push(`its peak finds the images of its label with AUPRC ${at("auprc").toFixed(3)}` +
        (at("base_rate") === null ? "" : ` (chance: ${at("base_rate").toFixed(3)})`));
    }
    return said.concat(data.said[i] || []);
  }

  function bestTable(i) {
    const table = element("table", undefined, "best");
    const head = element("tr");
    const onImages = data.on_images[data.units.layer[i]];
    const alone = data.ious_alone[data.units.layer[i]];  // then no counts are known
    const counts = alone ? [] : ["both", "unit", "concept"].map((of) => of + (onImages ? " images" : " px"));
    for (const name of ["category", "best concept", "IoU", ...counts]) {
      head.append(element("th", name, /IoU|px|images/.test(name) ? "number" : undefined));
    }
    const rows = [];
    for (let k = 0; k < K; k++) {
      const row = data.best.concept[i * K + k];
      if (row < 0) continue;
      const both = data.best.intersection[i * K + k], own = data.best.area[i * K + k];
      const area = onImages ? data.concept_images[row] : data.concepts[row][2];
      const line = element("tr");
      line.append(element("td", data.categories[k][0]), element("td", concept(row)));
      const iou = alone ? data.best.iou[i * K + k] : both / (own + area - both);
      for (const text of [iou.toFixed(4), ...(alone ? [] : [both, own, area].map((n) => n.toLocaleString("en")))]) {
        line.append(element("td", text, "number"));
      }
      rows.push(line);
    }
    if (!rows.length) return null;
    table.createTHead().append(head);
    table.createTBody().append(...rows);
    const scroll = element("div", undefined, "scroll");
    scroll.append(table);
    return scroll;
  }

  // ---- moving and keys

  const rowOf = (i) => $("rows").querySelector(`tr[data-row="${i}"]`);

  function turnTo(i, focus) {
    const before = asked !== null && rowOf(asked);
    if (before) before.querySelector(".open").tabIndex = -1;
    asked = i;
    const button = rowOf(i).querySelector(".open");
    button.tabIndex = 0;
    if (focus) button.focus();
  }

  function move(by) {
    if (!found.length) return;
    const here = found.indexOf(asked);
    const inTable = document.activeElement && document.activeElement.classList.contains("open");
    const to = inTable ? Math.max(0, Math.min(found.length - 1, here + by)) : Math.max(0, here);
    if (to >= made) grow(BATCH);
    turnTo(found[to], true);
  }

  function sortBy(column, way) {
    sorting = { column, way };
    show();
  }

  function press(column) {
    sortBy(column, column === sorting.column ? -sorting.way : column.first);
  }

  const keys = {
    "/": () => { $("words").focus(); $("words").select(); },
    j: () => move(1),
    k: () => move(-1),
    s: () => press(columns[(columns.indexOf(sorting.column) + 1) % columns.length]),
    "[": () => sortBy(sorting.column, 1),
    "]": () => sortBy(sorting.column, -1),
    i: () => $("pictures").click(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = event.target;
    if (event.key === "Escape" && at === $("words")) {
      $("words").value = "";
      show();
      at.blur();
    } else if (event.key === "Enter" && at === $("words")) {
      at.blur();
      move(0);
    } else if (at.matches("input:not([type=checkbox]), select")) {
      return;
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && at.classList.contains("open")) {
      move(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key in keys) {
      keys[event.key]();
    } else {
      return;
    }
    event.preventDefault();
  });

  $("rows").addEventListener("click", (event) => {
    const row = event.target.closest("tr.unit");
    if (!row || String(getSelection())) return;   // a text that is being selected is no click
    turnTo(Number(row.dataset.row), event.target.classList.contains("open"));
    toggle(Number(row.dataset.row));
  });

  // ---- the page

  for (const column of columns) {
    const th = element("th", undefined, column.number ? "number" : undefined);
    th.scope = "col";
    th.dataset.key = column.key;
    const button = element("button", column.title, "sort");
    button.type = "button";
    if (column.help) button.title = column.help;
    button.addEventListener("click", () => press(column));
    th.append(button);
    $("head").append(th);
  }
  const option = (text, at) => {
    const made = element("option", text);
    made.value = at;
    return made;
  };
  $("layer").append(...data.layers.map(option));
  $("chart-layer").append(...data.layers.map(option));
  $("category").append(...data.categories.map(([name], k) => option(name, k)));
  $("significant").closest("label").hidden = !("q" in U);
  for (const id of ["words", "layer", "category", "least", "significant", "pictures"]) {
    $(id).addEventListener("input", show);
  }
  $("controls").addEventListener("submit", (event) => event.preventDefault());

  const charts = [...document.querySelectorAll(".chart")];
  function chart(at) {
    $("chart-layer").value = at;
    for (const one of charts) one.hidden = Number(one.dataset.layer) !== Number(at);
  }
  $("chart-layer").addEventListener("change", () => chart($("chart-layer").value));
  $("chart-choice").hidden = charts.length < 2;
  if (charts.length) chart(charts.length - 1);
  for (const pick of document.querySelectorAll(".pick")) {
    pick.addEventListener("click", () => {
      chart(pick.dataset.layer);
      $("layer").value = pick.dataset.layer;
      show();
      $("concepts").scrollIntoView();
    });
  }

  $("more").addEventListener("click", () => grow(BATCH));
  const watch = new IntersectionObserver((seen) => {
    if (!seen[0].isIntersecting) return;
    grow(BATCH);
    watch.unobserve($("more"));   // to be told again where it is still in sight
    watch.observe($("more"));
  }, { rootMargin: "600px" });
  watch.observe($("more"));
  addEventListener("beforeprint", () => grow(Math.max(0, PRINTED - made)));

  $("controls").hidden = false;
  $("table").hidden = false;
  show();
})();
