// What the control API tells every second: the status, and the curves of every deployment. Pages listen to it.
import { serverEvents } from "./api.js";

export const POINTS = 300;
export const REQUESTS = 0, ERRORS = 1, P50 = 2, P99 = 3, ACTIVE = 4, QUEUED = 5;
const IDLE = [0, 0, null, null, 0, 0];

export const live = { status: null, curves: new Map(), connected: false };
const listeners = new Set();

export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell() {
  for (const listener of [...listeners]) listener();
}

export function points(key) {
  return live.curves.get(key) ?? [];
}

export function newest(key) {
  return points(key).at(-1) ?? IDLE;
}

// All deployments as one: sums; of the quantiles the largest, for nothing better is known.
export function together(keys) {
  const curves = keys.map(points);
  const length = Math.max(0, ...curves.map((curve) => curve.length));
  return Array.from({ length }, (_, index) => {
    const sum = [0, 0, null, null, 0, 0];
    for (const curve of curves) {
      const point = curve[index - (length - curve.length)];
      if (!point) continue;
      for (const field of [REQUESTS, ERRORS, ACTIVE, QUEUED]) sum[field] += point[field];
      for (const field of [P50, P99]) if (point[field] !== null) sum[field] = Math.max(sum[field] ?? 0, point[field]);
    }
    return sum;
  });
}

const takers = {
  status(status) { live.status = status; },
  curves({ points: told }) { live.curves = new Map(Object.entries(told)); },
  points(told) {
    for (const key of new Set([...live.curves.keys(), ...Object.keys(told)])) {
      const curve = live.curves.get(key) ?? [];
      curve.push(told[key] ?? IDLE);
      if (curve.length > POINTS) curve.shift();
      live.curves.set(key, curve);
    }
  },
};

export async function follow(signal) {
  while (!signal.aborted) {
    try {
      for await (const [kind, data] of serverEvents("/live", signal)) {
        takers[kind]?.(data);
        live.connected = true;
        if (kind !== "curves") tell();
      }
    } catch (error) {
      if (error.status === 401 || signal.aborted) return;
    }
    live.connected = false;
    tell();
    await new Promise((wake) => setTimeout(wake, 1000));
  }
}
