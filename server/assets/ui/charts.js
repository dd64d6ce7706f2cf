// The charts of a model: the last ten minutes of one of its tasks, drawn with uPlot.

const SECONDS = 600;
const STAGES = ["total", "prepare", "queue", "inference", "encode"];
const STAGE_COLORS = ["--total", "--s0", "--s1", "--s2", "--s3"];
const HEIGHT = 170;

// The places of the parts of a point, as the server writes it.
const AT = { time: 0, requests: 1, errors: 2, queued: 3, percentiles: 4, sizes: 5, reasons: 6, workers: 7, processes: 8, restarts: 9 };

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function compact(value) {
  if (value == null) return "–";
  if (value === 0) return "0";
  if (value >= 1e6) return `${trim(value / 1e6)}M`;
  if (value >= 1e4) return `${trim(value / 1e3)}k`;
  return trim(value);
}

function trim(value) {
  return String(Number(value.toPrecision(3)));
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}

function millis(value) {
  if (value == null) return "–";
  if (value < 1) return `${trim(value * 1000)} µs`;
  return value < 1000 ? `${trim(value)} ms` : `${trim(value / 1000)} s`;
}

export class Charts {
  constructor(root) {
    this.root = root;
    this.points = [];
    this.plots = new Map();
    this.reasons = [];
    this.sizes = [];
    this.shownReasons = "";
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(root);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.onScheme = () => this.rebuild();
    this.scheme.addEventListener("change", this.onScheme);
    this.destroyed = false;
  }

  destroy() {
    this.destroyed = true;
    this.observer.disconnect();
    this.scheme.removeEventListener("change", this.onScheme);
    for (const plot of this.plots.values()) plot.destroy();
    this.plots.clear();
  }

  async load() {
    try {
      const response = await fetch(this.root.dataset.history);
      if (!response.ok) return;
      const history = await response.json();
      if (this.destroyed) return;
      this.reasons = history.reasons;
      this.sizes = history.sizes;
      const first = history.points[0]?.[AT.time] ?? Infinity;
      const last = history.points.at(-1)?.[AT.time] ?? 0;
      // Seconds that have arrived meanwhile, and those before a restart of the server.
      const older = this.points.filter((point) => point[AT.time] < first);
      const newer = this.points.filter((point) => point[AT.time] > last && point[AT.time] > first);
      this.points = [...older, ...history.points, ...newer].slice(-SECONDS);
      this.rebuild();
    } catch {
      // The stream still brings the seconds from now on.
    }
  }

  push(point) {
    this.points.push(point);
    if (this.points.length > SECONDS) this.points.shift();
    if (this.reasons.length) this.update();
  }

  rebuild() {
    for (const plot of this.plots.values()) plot.destroy();
    this.plots.clear();
    this.shownReasons = "";
    this.update();
  }

  // The points with an empty one wherever seconds are missing, so that lines have gaps there.
  withGaps() {
    const rows = [];
    for (const point of this.points) {
      const last = rows.at(-1);
      if (last && point[AT.time] - last[AT.time] > 3) rows.push([last[AT.time] + 1]);
      rows.push(point);
    }
    return rows;
  }

  update() {
    const rows = this.withGaps();
    const times = rows.map((row) => row[AT.time]);
    const column = (read) => rows.map((row) => (row.length > 1 ? read(row) ?? null : null));
    for (const [id, offset] of [["p50", 0], ["p99", 1]]) {
      const columns = STAGES.map((_, stage) => column((row) => row[AT.percentiles][2 * stage + offset]));
      this.plot(id, [times, ...columns], () => this.lines(STAGES, STAGE_COLORS, millis, { dashed: 0 }));
    }
    const rates = [column((row) => row[AT.requests]), column((row) => row[AT.errors])];
    this.plot("rate", [times, ...rates], () => this.lines(["requests", "errors"], ["--accent", "--problem"], compact));
    const queued = column((row) => row[AT.queued]);
    this.plot("queue", [times, queued], () => this.lines(["waiting"], ["--s1"], compact, { fill: true }));
    this.updateReasons(rows, times);
    this.updateSizes();
    this.drawWorkers();
    this.describe();
  }

  // Areas on top of each other, for the reasons that occurred.
  updateReasons(rows, times) {
    const counts = this.reasons.map((_, index) => rows.map((row) => (row.length > 1 ? row[AT.reasons][index] ?? 0 : null)));
    const occurred = this.reasons.map((_, index) => index).filter((index) => counts[index].some((count) => count > 0));
    const key = occurred.join();
    if (key !== this.shownReasons) {
      this.plots.get("reasons")?.destroy();
      this.plots.delete("reasons");
      this.shownReasons = key;
    }
    const raw = occurred.map((index) => counts[index]);
    const stacked = [];
    for (const values of raw) {
      const below = stacked.at(-1);
      stacked.push(values.map((value, at) => (value == null ? null : value + (below?.[at] ?? 0))));
    }
    this.rawReasons = raw;
    const names = occurred.map((index) => this.reasons[index]);
    const palette = ["--s2", "--s1", "--s3", "--s0", "--total", "--accent", "--warning", "--fine", "--problem", "--muted"];
    this.plot("reasons", [times, ...stacked], () => {
      const options = this.lines(names, names.map((_, index) => palette[index % palette.length]), compact);
      options.bands = names.slice(1).map((_, index) => ({ series: [index + 2, index + 1] }));
      options.series.slice(1).forEach((series, index) => {
        series.fill = `${series.stroke}59`;
        series.value = (_, __, seriesIndex, at) => compact(at == null ? null : this.rawReasons[seriesIndex - 1]?.[at]);
        series.points = { show: false };
        series.width = 1;
        series.label = names[index];
      });
      return options;
    });
  }

  updateSizes() {
    const totals = this.sizes.map((_, index) => {
      let total = 0;
      for (const point of this.points) total += point[AT.sizes][index] ?? 0;
      return total;
    });
    const last = Math.max(totals.findLastIndex((total) => total > 0), 2);
    const shown = totals.slice(0, last + 1);
    const names = this.sizes.slice(0, last + 1);
    const data = [shown.map((_, index) => index), shown];
    const known = this.plots.get("sizes");
    if (known && known.data[0].length !== shown.length) {
      known.destroy();
      this.plots.delete("sizes");
    }
    this.plot("sizes", data, () => {
      const options = this.lines(["batches"], ["--s2"], compact, { fill: true });
      options.scales.x = { time: false, range: () => [-0.6, last + 0.6] };
      options.axes[0].values = (_, splits) => splits.map((split) => names[split] ?? "");
      options.axes[0].splits = () => shown.map((_, index) => index);
      options.axes[0].space = 10;
      options.series[0] = { label: "items", value: (_, at) => names[at] ?? "–" };
      options.series[1].paths = window.uPlot.paths.bars({ size: [0.7, 48] });
      options.series[1].fill = color("--s2");
      options.series[1].points = { show: false };
      return options;
    });
  }

  // Options of a chart with lines over time.
  lines(names, colors, format, { fill = false, dashed = -1 } = {}) {
    const muted = color("--muted");
    const grid = { stroke: color("--line"), width: 1 };
    const font = "11px system-ui, sans-serif";
    const end = () => this.points.at(-1)?.[AT.time] ?? Math.floor(Date.now() / 1000);
    // A second without neighbors is not part of any line.
    const isolated = (plot, series) => {
      const values = plot.data[series];
      const found = [];
      values.forEach((value, at) => {
        if (value != null && values[at - 1] == null && values[at + 1] == null) found.push(at);
      });
      return found;
    };
    return {
      width: 300,
      height: HEIGHT,
      cursor: { drag: { x: false, y: false }, y: false },
      legend: { live: true },
      scales: {
        x: { time: true, range: () => [end() - SECONDS, end()] },
        y: { range: (_, low, high) => [0, high > 0 ? high * 1.08 : 1] },
      },
      axes: [
        { stroke: muted, grid: { show: false }, ticks: grid, font, size: 26, space: 70, incrs: [60, 120, 300], values: (_, splits) => splits.map(clock) },
        { stroke: muted, grid, ticks: { show: false }, font, size: 52, space: 28, values: (_, splits) => splits.map(format) },
      ],
      series: [
        { label: "time", value: (_, at) => (at == null ? "–" : new Date(at * 1000).toLocaleTimeString()) },
        ...names.map((label, index) => ({
          label,
          stroke: color(colors[index]),
          width: index === dashed ? 1.25 : 1.5,
          dash: index === dashed ? [4, 3] : undefined,
          fill: fill ? `${color(colors[index])}26` : undefined,
          points: { show: true, size: 4, fill: color(colors[index]), filter: isolated },
          value: (_, value) => format(value),
        })),
      ],
    };
  }

  plot(id, data, options) {
    const known = this.plots.get(id);
    if (known) return known.setData(data);
    const place = document.getElementById(`chart-${id}`);
    if (!place) return;
    place.replaceChildren();
    const all = options();
    all.width = Math.max(place.clientWidth, 120);
    this.plots.set(id, new window.uPlot(all, data, place));
  }

  resize() {
    for (const [id, plot] of this.plots) {
      const place = document.getElementById(`chart-${id}`);
      const width = Math.max(place?.clientWidth ?? 0, 120);
      if (width !== plot.width) plot.setSize({ width, height: HEIGHT });
    }
    this.drawWorkers();
  }

  // A row for each worker: the darker, the busier, and red while its process is being replaced.
  drawWorkers() {
    const canvas = document.getElementById("chart-workers");
    const last = this.points.at(-1);
    if (!canvas) return;
    const workers = last ? last[AT.workers].length : 1;
    const kind = last?.[AT.processes] == null ? "thread" : "process";
    const [row, gap, left, bottom] = [16, 3, 64, 18];
    const height = workers * (row + gap) + bottom;
    const width = canvas.clientWidth;
    const ratio = window.devicePixelRatio || 1;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.clearRect(0, 0, width, height);
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    const end = last?.[AT.time] ?? Math.floor(Date.now() / 1000);
    const step = (width - left) / SECONDS;
    const x = (time) => left + (time - end + SECONDS) * step;
    const fill = (time, y, style, alpha) => {
      context.globalAlpha = alpha;
      context.fillStyle = style;
      context.fillRect(x(time - 1), y, Math.max(step, 1) + 0.3, row);
    };
    const [busy, muted, inset, problem] = ["--accent", "--muted", "--inset", "--problem"].map(color);
    for (let worker = 0; worker < workers; worker += 1) {
      context.globalAlpha = 1;
      context.fillStyle = inset;
      context.fillRect(left, worker * (row + gap), width - left, row);
      context.fillStyle = muted;
      context.fillText(`${kind} ${worker}`, 0, worker * (row + gap) + row / 2);
    }
    for (const point of this.points) {
      point[AT.workers].slice(0, workers).forEach((percent, worker) => {
        const y = worker * (row + gap);
        if (percent < 0) fill(point[AT.time], y, problem, 1);
        else if (percent > 0) fill(point[AT.time], y, busy, 0.15 + (0.85 * percent) / 100);
      });
    }
    context.globalAlpha = 1;
    context.fillStyle = muted;
    for (let minutes = 10; minutes >= 0; minutes -= 2) {
      context.textAlign = minutes === 0 ? "right" : minutes === 10 ? "left" : "center";
      const label = minutes === 0 ? "now" : `${minutes} min ago`;
      if (width > 560 || minutes % 5 === 0 || minutes === 10) context.fillText(label, x(end - minutes * 60), height - 7);
    }
    const states = last?.[AT.workers].map((percent) => (percent < 0 ? "restarting" : `${percent}%`));
    const percents = states?.join(", ") ?? "no data";
    canvas.setAttribute("aria-label", `Timeline of the workers; busy in the last second: ${percents}`);
  }

  // The latest values as text, for those who cannot see the charts.
  describe() {
    const last = this.points.at(-1);
    if (!last) return;
    const label = (id, text) => document.getElementById(`chart-${id}`)?.setAttribute("aria-label", text);
    const stages = (offset) => STAGES.map((name, stage) => `${name} ${millis(last[AT.percentiles][2 * stage + offset])}`).join(", ");
    label("p50", `Median time by stage, in the last second: ${stages(0)}`);
    label("p99", `99th percentile by stage, in the last second: ${stages(1)}`);
    label("rate", `Requests per second: ${compact(last[AT.requests])}; errors per second: ${compact(last[AT.errors])}`);
    label("queue", `Waiting items: ${last[AT.queued]}`);
  }
}
