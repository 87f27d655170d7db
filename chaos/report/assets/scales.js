// From values to pixels, and where the marks of an axis stand.

const STEPS_S = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200];

function linear(from, until, start, end) {
  const scale = (value) => start + ((value - from) / (until - from || 1)) * (end - start);
  scale.invert = (pixel) => from + ((pixel - start) / (end - start || 1)) * (until - from);
  return scale;
}

function logarithmic(from, until, start, end) {
  const inner = linear(Math.log10(from), Math.log10(until), start, end);
  return (value) => inner(Math.log10(Math.max(from, value)));
}

function timeMarks(from, until, count) {
  const step = STEPS_S.find((each) => (until - from) / each <= count) ?? STEPS_S.at(-1);
  const marks = [];
  for (let number = Math.ceil(from / step); number * step <= until; number += 1) marks.push(number * step);
  return { step, marks };
}

// Round numbers from 0 to at least `most`, up to four of them.
function countMarks(most) {
  const raw = most / 3;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = Math.max(1, [1, 2, 5, 10].map((each) => Math.round(each * power)).find((each) => each >= raw));
  return Array.from({ length: Math.ceil(most / step) + 1 }, (_, number) => number * step);
}

function powersOfTen(from, until) {
  const marks = [];
  for (let value = from; value <= until * 1.0001; value *= 10) marks.push(value);
  return marks;
}

// For each span the first row in which it overlaps none before it, with at least `space` between them.
function stack(spans, space) {
  const ends = [];
  return spans.map(([from, until]) => {
    let row = ends.findIndex((end) => end + space <= from);
    if (row < 0) row = ends.push(0) - 1;
    ends[row] = until;
    return row;
  });
}
