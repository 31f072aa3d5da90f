// Charts on uPlot: energy by bucket, and measures over time. Each is drawn again when its width or the colours change.

import { fill, h } from "./dom.js";
import { format, kwh, number } from "./format.js";

/** @import {Schemas} from "../types" */
/** @typedef {{from: string, to: string}} Gap */
/** @typedef {Schemas["EnergyItem"]} EnergyItem */

/** @type {Promise<boolean> | undefined} */
let loading;

/** Load uPlot when the first chart is drawn. False: the server has no copy of it, and the tables have to do. */
export function loadCharts() {
  loading ??= new Promise((resolve) => {
    const script = h("script", { src: "page/uPlot.iife.min.js", onload: () => resolve(true), onerror: () => resolve(false) });
    document.head.append(h("link", { rel: "stylesheet", href: "page/uPlot.min.css" }), script);
  });
  return loading;
}

/** @param {string} name of a colour in style.css */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/**
 * @param {string} name
 * @param {number} share of opacity
 */
function pale(name, share) {
  return `${colour(name)}${Math.round(share * 255).toString(16).padStart(2, "0")}`;
}

/**
 * Keep a chart in an element until the signal.
 * @param {HTMLElement} element
 * @param {string} label
 * @param {AbortSignal} signal
 * @param {() => {options: Omit<uPlot.Options, "width" | "height">, data: uPlot.AlignedData, height: number}} make
 */
function keep(element, label, signal, make) {
  /** @type {uPlot | undefined} */
  let chart;
  const canvas = h("div", { role: "img", "aria-label": label });
  element.append(canvas);
  const draw = () => {
    chart?.destroy();
    const { options, data, height } = make();
    chart = new uPlot({ ...options, width: Math.max(200, element.clientWidth), height }, data, canvas);
  };
  const observer = new ResizeObserver(() => {
    if (element.clientWidth && element.clientWidth !== chart?.width) draw();
  });
  observer.observe(element);
  window.addEventListener("colours", draw, { signal });
  signal.addEventListener("abort", () => {
    observer.disconnect();
    chart?.destroy();
  });
}

/** @returns {uPlot.Axis} */
function axis() {
  const grid = { stroke: colour("line"), width: 1 };
  return { stroke: colour("soft"), font: "12px system-ui, sans-serif", grid, ticks: grid };
}

/**
 * Diagonal lines over a part of the chart.
 * @param {uPlot} u
 * @param {number} left
 * @param {number} right
 */
function hatch(u, left, right) {
  const { ctx, bbox } = u;
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const pen = tile.getContext("2d");
  if (!pen) return;
  pen.strokeStyle = colour("hatch");
  pen.lineWidth = 1.5;
  for (const shift of [-8, 0, 8]) {
    pen.moveTo(shift, 8);
    pen.lineTo(shift + 8, 0);
  }
  pen.stroke();
  const from = Math.max(left, bbox.left);
  const to = Math.min(Math.max(right, left + 2), bbox.left + bbox.width);
  if (to <= from) return;
  ctx.fillStyle = ctx.createPattern(tile, "repeat") ?? "";
  ctx.fillRect(from, bbox.top, to - from, bbox.height);
}

/** A bucket is marked when more than this share of its energy, and more than this energy, is interpolated at its edges. */
export const MARKED = { share: 0.05, kwh: 0.1 };

/** @param {EnergyItem} item */
export function isInterpolated(item) {
  return item.boundaryKwh > MARKED.kwh && item.boundaryKwh > MARKED.share * (Math.abs(item.kwhAc ?? 0) + (item.kwhIn ?? 0) + (item.kwhOut ?? 0));
}

/**
 * AC and DC of each bucket as bars, the DC within the AC: what shows above it is not in the battery.
 * @param {HTMLElement} element
 * @param {string} label
 * @param {EnergyItem[]} items
 * @param {Gap[]} gaps
 * @param {(item: EnergyItem) => string} name of a bucket
 * @param {boolean} isVehicle
 * @param {AbortSignal} signal
 */
export function energyChart(element, label, items, gaps, name, isVehicle, signal) {
  const edges = items.flatMap((item) => [Date.parse(item.from), Date.parse(item.to)]);
  /** The place of an instant on the axis, on which every bucket has the width 1. @param {string} at */
  const place = (at) => {
    const time = Date.parse(at);
    const n = items.findIndex((_, i) => time < (edges[2 * i + 1] ?? 0));
    if (n < 0) return items.length - 0.5;
    const [from = 0, to = 1] = edges.slice(2 * n, 2 * n + 2);
    return n - 0.5 + Math.max(0, (time - from) / (to - from));
  };
  keep(element, label, signal, () => {
    const bars = (/** @type {number} */ share) => uPlot.paths.bars?.({ size: [share, 80 * share], radius: 0.1 });
    const shown = (/** @type {uPlot} */ _u, /** @type {number | null} */ value) => kwh(value);
    /** @type {uPlot.Series[]} */
    const own = isVehicle
      ? [
          { label: "AC", stroke: colour("ac"), fill: pale("ac", 0.35), width: 1, paths: bars(0.8), points: { show: false }, value: shown },
          { label: "DC in", stroke: colour("dc"), fill: colour("dc"), width: 0, paths: bars(0.45), points: { show: false }, value: shown },
          { label: "DC out", stroke: colour("out"), fill: colour("out"), width: 0, paths: bars(0.45), points: { show: false }, value: shown },
        ]
      : [
          { label: "AC drawn", stroke: colour("ac"), fill: pale("ac", 0.5), width: 1, paths: bars(0.7), points: { show: false }, value: shown },
          { label: "AC fed back", stroke: colour("out"), fill: colour("out"), width: 0, paths: bars(0.7), points: { show: false }, value: shown },
        ];
    const out = items.map((item) => (item.kwhOut === null ? null : -item.kwhOut));
    const values = isVehicle
      ? [items.map((item) => item.kwhAc), items.map((item) => item.kwhIn), out]
      : [items.map((item) => item.kwhIn), out];
    return {
      height: 280,
      data: /** @type {uPlot.AlignedData} */ ([items.map((_, n) => n), ...values]),
      options: {
        scales: { x: { time: false, range: [-0.5, items.length - 0.5] }, y: { range: (_u, low, high) => room(low, high) } },
        series: [{ label: "Time", value: (_u, n) => (n === null ? "" : name(/** @type {EnergyItem} */ (items[n]))) }, ...own],
        axes: [
          { ...axis(), grid: { show: false }, splits: (u) => every(items.length, u.width), values: (_u, ns) => ns.map((n) => name(/** @type {EnergyItem} */ (items[n]))) },
          { ...axis(), size: 56, values: (_u, ns) => ns.map((n) => number(n, ns.some((v) => v % 1) ? 1 : 0)), label: "kWh", labelSize: 18, labelFont: "12px system-ui, sans-serif" },
        ],
        cursor: { drag: { x: false, y: false }, y: false, points: { show: false } },
        hooks: {
          drawAxes: [(u) => gaps.forEach((gap) => hatch(u, u.valToPos(place(gap.from), "x", true), u.valToPos(place(gap.to), "x", true)))],
          draw: [(u) => items.forEach((item, n) => mark(u, item, n))],
        },
      },
    };
  });
}

/**
 * Signs at the foot of a bucket: dots for interpolated energy, a triangle for withheld energy, a line for a reset.
 * @param {uPlot} u
 * @param {EnergyItem} item
 * @param {number} n
 */
function mark(u, item, n) {
  const { ctx, bbox } = u;
  const pixel = devicePixelRatio;
  const x = u.valToPos(n, "x", true);
  const foot = bbox.top + bbox.height;
  if (isInterpolated(item)) {
    ctx.fillStyle = colour("mark");
    for (const shift of [-5, 0, 5]) {
      ctx.beginPath();
      ctx.arc(x + shift * pixel, foot - 4 * pixel, 1.6 * pixel, 0, 7);
      ctx.fill();
    }
  }
  if (item.suspectKwh || item.resets) {
    ctx.fillStyle = colour("bad");
    ctx.beginPath();
    ctx.moveTo(x, bbox.top + 2 * pixel);
    ctx.lineTo(x + 6 * pixel, bbox.top + 13 * pixel);
    ctx.lineTo(x - 6 * pixel, bbox.top + 13 * pixel);
    ctx.fill();
  }
}

/**
 * A range with room for the marks, and never empty.
 * @param {number | null} low
 * @param {number | null} high
 * @returns {[number, number]}
 */
function room(low, high) {
  const least = Math.min(0, low ?? 0);
  const most = Math.max(0, high ?? 0);
  const extent = most - least || 1;
  return [least - (least < 0 ? 0.08 * extent : 0), most + 0.12 * extent];
}

/**
 * The buckets that get a text, as many as fit.
 * @param {number} count
 * @param {number} width
 */
function every(count, width) {
  const step = Math.max(1, Math.ceil(count / Math.max(3, Math.floor(width / 64))));
  return Array.from({ length: Math.ceil(count / step) }, (_, n) => n * step);
}

/**
 * A measure over time: a line through the first, least, greatest and last value of each column, so that no peak is lost.
 * @param {HTMLElement} element
 * @param {string} label
 * @param {Schemas["MeasureSeries"]} series
 * @param {{from: string, to: string}} period
 * @param {Gap[]} gaps
 * @param {{colour: string, zone: string, axis: Intl.DateTimeFormatOptions, range?: [number, number], fromZero: boolean}} look
 * @param {AbortSignal} signal
 */
export function seriesChart(element, label, series, period, gaps, look, signal) {
  const [times, values] = line(series.columns);
  const [from, to] = [Date.parse(period.from) / 1000, Date.parse(period.to) / 1000];
  keep(element, label, signal, () => ({
    height: 180,
    data: [times, values],
    options: {
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), look.zone),
      scales: { x: { range: [from, to] }, y: { range: (_u, low, high) => look.range ?? (look.fromZero ? room(low, high) : spread(low, high)) } },
      series: [
        { label: "Time", value: (_u, at) => (at === null ? "" : format(new Date(at * 1000), look.zone, { ...look.axis, hour: "2-digit", minute: "2-digit" })) },
        { label, stroke: colour(look.colour), fill: pale(look.colour, 0.12), width: 1.5, points: { show: false }, value: (_u, v) => `${number(v)} ${unit(series.unit)}` },
      ],
      axes: [
        { ...axis(), space: 70, values: (_u, ats) => ats.map((at) => format(new Date(at * 1000), look.zone, look.axis)) },
        { ...axis(), size: 56, values: (_u, ns) => ns.map((n) => number(n, ns.some((v) => v % 1) ? 1 : 0)), label: unit(series.unit), labelSize: 18, labelFont: "12px system-ui, sans-serif" },
      ],
      cursor: { drag: { x: false, y: false }, y: false, points: { size: 7 } },
      hooks: {
        drawAxes: [
          (u) => gaps.forEach((gap) => hatch(u, u.valToPos(Date.parse(gap.from) / 1000, "x", true), u.valToPos(Date.parse(gap.to) / 1000, "x", true))),
        ],
      },
    },
  }));
}

/** @param {string} name of the contract */
export function unit(name) {
  return name === "degC" ? "°C" : name;
}

/**
 * @param {number | null} low
 * @param {number | null} high
 * @returns {[number, number]}
 */
function spread(low, high) {
  const [least, most] = [low ?? 0, high ?? 1];
  const margin = 0.08 * (most - least) || 1;
  return [least - margin, most + margin];
}

/**
 * Up to four points a column; the line is broken where columns are missing.
 * @param {Schemas["SeriesColumn"][]} columns
 * @returns {[number[], (number | null)[]]}
 */
export function line(columns) {
  /** @type {number[]} */
  const times = [];
  /** @type {(number | null)[]} */
  const values = [];
  const apart = usual(columns);
  let before = -Infinity;
  for (const { from, to, count, first, min, max, last } of columns) {
    const [start, end] = [Date.parse(from) / 1000, Date.parse(to) / 1000];
    if (start - before > 2.5 * apart && times.length) {
      times.push(before + 1);
      values.push(null);
    }
    const points = count === 1 ? [first] : [first, min, max, last];
    points.forEach((value, n) => {
      times.push(start + ((end - start) * (n + 0.5)) / points.length);
      values.push(value);
    });
    before = end;
  }
  return [times, values];
}

/**
 * The usual time from one column with readings to the next, s.
 * @param {Schemas["SeriesColumn"][]} columns
 */
export function usual(columns) {
  const starts = columns.map((column) => Date.parse(column.from) / 1000);
  const steps = starts.slice(1).map((at, n) => at - (starts[n] ?? at)).sort((a, b) => a - b);
  return steps[Math.floor(steps.length / 2)] ?? Infinity;
}

/**
 * What the signs of a chart mean.
 * @param {[string, string][]} entries class and text
 */
export function legend(entries) {
  return h("ul", { class: "legend" }, ...entries.map(([name, text]) => h("li", {}, h("i", { class: name, "aria-hidden": true }), text)));
}

/**
 * Say that charts are missing.
 * @param {HTMLElement} element
 */
export function withoutCharts(element) {
  fill(element, h("p", { class: "note" }, "Charts are not installed on this server; the tables have the same figures."));
}
