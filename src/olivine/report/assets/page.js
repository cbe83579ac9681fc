"use strict";
(() => {
  const root = document.documentElement;
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const made = new Map();

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const series = (place) => colour(`--c${(place % 6) + 1}`);
  const shown = (value) => {
    if (value === null || value === undefined) return "";
    if (Number.isInteger(value)) return value.toLocaleString("en", { useGrouping: true });
    return Number(value.toPrecision(4)).toString();
  };
  const tick = (value) => {
    const size = Math.abs(value);
    if (size >= 1e9) return `${shown(value / 1e9)} G`;
    if (size >= 1e6) return `${shown(value / 1e6)} M`;
    if (size >= 1e4) return `${shown(value / 1e3)} k`;
    return shown(value);
  };
  const choice = (name, which) => document.getElementById(`chart-${name}-${which}`);
  const directed = (axis) =>
    axis.better === null ? axis.label : `${axis.label} (${axis.better ? "higher" : "lower"} is better)`;

  // What each kind of chart shows: datasets, axis titles, and the words for one point.
  const kinds = {
    curves(name, spec) {
      const picked = spec.choices[Number(choice(name, "y").value)];
      const datasets = [];
      for (const each of spec.series) {
        for (const key of picked.keys) {
          const data = each.rows.filter((row) => typeof row[key] === "number").map((row) => ({ x: row.step, y: row[key] }));
          const label = spec.series.length > 1 || picked.keys.length === 1 ? `${each.name}: ${key}` : key;
          if (data.length) datasets.push({ label: label.replaceAll("_", " "), data, line: true });
        }
      }
      return { type: "line", datasets, x: "step", y: picked.label, words: (point) => `step ${shown(point.x)}: ${shown(point.y)}` };
    },
    points(name, spec) {
      const x = spec.axes.find((axis) => axis.key === choice(name, "x").value);
      const y = spec.axes.find((axis) => axis.key === choice(name, "y").value);
      const datasets = spec.groups.map((group) => ({
        label: group.name,
        data: group.points
          .filter((point) => typeof point.values[x.key] === "number" && typeof point.values[y.key] === "number")
          .map((point) => ({ x: point.values[x.key], y: point.values[y.key], name: point.name, note: point.note })),
      }));
      const front = pareto(datasets.flatMap((each) => each.data), x.better, y.better);
      if (front.length > 1) datasets.push({ label: "Pareto front", data: front, line: true, dashed: true });
      const words = (point) =>
        `${point.name}: ${x.label} ${shown(point.x)}, ${y.label} ${shown(point.y)}${point.note ? ` (${point.note})` : ""}`;
      return { type: "scatter", datasets, x: directed(x), y: directed(y), words };
    },
    bars(name, spec) {
      const picked = spec.choices[Number(choice(name, "y").value)];
      const data = picked.values.map((value, place) => ({ x: spec.labels[place], y: value, name: spec.labels[place] }));
      return { type: "bar", datasets: [{ label: picked.label, data }], x: "", y: picked.label, labels: spec.labels,
        words: (point) => `${point.name}: ${picked.label} ${shown(point.y)}` };
    },
  };

  // The points that no other is better than in both directions; an axis without a direction has no front.
  function pareto(points, xBetter, yBetter) {
    if (xBetter === null || yBetter === null || points.length < 2) return [];
    const gain = (value, better) => (better ? value : -value);
    const beaten = (a) => points.some((b) => {
      const dx = gain(b.x, xBetter) - gain(a.x, xBetter);
      const dy = gain(b.y, yBetter) - gain(a.y, yBetter);
      return dx >= 0 && dy >= 0 && (dx > 0 || dy > 0);
    });
    return points.filter((point) => !beaten(point)).sort((a, b) => a.x - b.x);
  }

  function styled(each, place, type) {
    const tint = each.dashed ? colour("--soft") : series(place);
    return { ...each, borderColor: tint, backgroundColor: tint, borderWidth: type === "bar" ? 0 : 2,
      showLine: Boolean(each.line),
      pointStyle: type === "scatter" ? ["circle", "triangle", "rect", "rectRot"][place % 4] : "circle", borderDash: each.dashed ? [5, 5] : [], tension: 0,
      pointRadius: each.dashed ? 0 : type === "line" && each.data.length > 60 ? 0 : type === "line" ? 3 : 6,
      pointHoverRadius: each.dashed ? 0 : type === "line" ? 6 : 9, pointHitRadius: each.dashed ? 0 : 10 };
  }

  function axis(title, numbers, whole) {
    return { title: { display: Boolean(title), text: title, color: colour("--soft") },
      grid: { color: colour("--line") }, border: { color: colour("--line") },
      ticks: numbers ? { color: colour("--soft"), callback: tick, maxTicksLimit: 8, maxRotation: 0,
        ...(whole ? { precision: 0 } : {}) }
        : { color: colour("--soft"), maxRotation: 60, autoSkip: true } };
  }

  function draw(name) {
    const spec = specs[name];
    const canvas = document.getElementById(`chart-${name}`);
    const view = kinds[spec.kind](name, spec);
    made.get(name)?.destroy();
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    const chart = new Chart(canvas, {
      type: view.type,
      data: { labels: view.labels, datasets: view.datasets.map((each, place) => styled(each, place, view.type)) },
      options: {
        responsive: true, maintainAspectRatio: false, animation: false, parsing: view.type !== "line",
        interaction: { mode: "nearest", intersect: view.type !== "line", axis: view.type === "line" ? "x" : "xy" },
        scales: { x: view.type === "bar" ? axis("", false) : { type: "linear", ...axis(view.x, true, view.type === "line") },
          y: { ...axis(view.y, true), beginAtZero: view.type === "bar", grace: view.type === "bar" ? 0 : "8%" } },
        plugins: {
          legend: { display: view.datasets.length > 1, labels: { color: colour("--ink"), boxWidth: 12, boxHeight: 12 } },
          tooltip: { displayColors: false, callbacks: { title: () => "",
            label: (item) => (view.type === "line" && view.datasets.length > 1 ? `${item.dataset.label}, ` : "") + view.words(item.raw) } },
        },
      },
    });
    chart.words = view.words;
    made.set(name, chart);
  }

  // Arrow keys walk through all points, from left to right, and say where they are.
  function walk(name, event) {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
    const chart = made.get(name);
    if (event.key === "Escape") return show(chart, name, null);
    if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
    const places = chart.data.datasets.flatMap((set, datasetIndex) =>
      set.dashed || !chart.isDatasetVisible(datasetIndex) ? [] : set.data.map((_, index) => ({ datasetIndex, index })));
    if (!places.length) return;
    event.preventDefault();
    const now = chart.walked ?? (steps[event.key] > 0 ? -1 : places.length);
    chart.walked = Math.min(Math.max(now + steps[event.key], 0), places.length - 1);
    show(chart, name, places[chart.walked]);
  }

  function show(chart, name, place) {
    const active = place ? [place] : [];
    chart.setActiveElements(active);
    const said = document.getElementById(`chart-${name}-said`);
    if (place) {
      const element = chart.getDatasetMeta(place.datasetIndex).data[place.index];
      const set = chart.data.datasets[place.datasetIndex];
      chart.tooltip.setActiveElements(active, { x: element.x, y: element.y });
      said.textContent = `${set.label}, ${chart.words(set.data[place.index])}`;
    } else {
      chart.walked = undefined;
      chart.tooltip.setActiveElements([], { x: 0, y: 0 });
      said.textContent = "";
    }
    chart.update("none");
  }

  for (const figure of document.querySelectorAll("[data-chart]")) {
    const name = figure.dataset.chart;
    const spec = specs[name];
    for (const which of ["x", "y"]) {
      const select = choice(name, which);
      if (!select) continue;
      if (spec[which]) select.value = spec[which];
      select.addEventListener("change", () => draw(name));
    }
    figure.hidden = false;
    draw(name);
    const canvas = document.getElementById(`chart-${name}`);
    canvas.addEventListener("keydown", (event) => walk(name, event));
    canvas.addEventListener("blur", () => show(made.get(name), name, null));
  }

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const again = () => { for (const name of made.keys()) draw(name); };
  dark.addEventListener("change", again);
  const button = document.getElementById("theme");
  button.hidden = false;
  button.addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    again();
  });
})();
