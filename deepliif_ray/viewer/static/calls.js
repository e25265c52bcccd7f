// The published rules of what counts and what is positive, as query/sql/words.sql has them, on packed cells.

export const DAB_STEPS = 1000;
export const MAX_AREA = 65534;
const NO_LIMIT = 1e9;

/** Return cut-offs as packed cells are compared with them. An empty one (null) does not hold. */
export function limitsOf(cutoffs) {
  const step = (value) => Math.round(value * DAB_STEPS) + 1;
  return {
    below: Math.floor(cutoffs.size_thresh),
    above: cutoffs.size_thresh_upper === null ? NO_LIMIT : Math.ceil(cutoffs.size_thresh_upper),
    marker: cutoffs.marker_thresh === null ? NO_LIMIT : cutoffs.marker_thresh,
    odLow: cutoffs.od_thresh_lower === null ? -1 : cutoffs.od_thresh_lower,
    odHigh: cutoffs.od_thresh_upper === null ? NO_LIMIT : cutoffs.od_thresh_upper,
    steps: [step(cutoffs.weak), step(cutoffs.moderate), step(cutoffs.strong)],
  };
}

/** Tell whether counts by these cut-offs are exact: those of DAB are compared in steps, areas up to a limit. */
export function areExact(cutoffs) {
  const whole = (value) => Math.round(value * DAB_STEPS) / DAB_STEPS === value && value >= 0 && value <= 4;
  return whole(cutoffs.weak) && whole(cutoffs.moderate) && whole(cutoffs.strong) &&
    cutoffs.size_thresh <= MAX_AREA && (cutoffs.size_thresh_upper ?? 0) <= MAX_AREA;
}

/** Return -1 if a cell does not count, else its strength, plus 4 if it is positive. */
export function callOf(limits, area, od, dab, marker, flags) {
  const said = (flags >> 1) & 3;
  if (said === 3) return -1;
  if (said === 0 && !(area > limits.below && area < limits.above)) return -1;
  const steps = limits.steps;
  let strength = (dab >= steps[0]) + (dab >= steps[1]) + (dab >= steps[2]);
  let positive;
  if (said === 1) {
    positive = true;
    strength = Math.max(strength, 1);
  } else if (said === 2) {
    positive = false;
    strength = 0;
  } else {
    positive = od >= limits.odLow && od <= limits.odHigh &&
      ((flags & 1) !== 0 || ((flags & 8) !== 0 && marker > limits.marker));
  }
  return strength + 4 * positive;
}
