// Elements without HTML: whatever a model's text holds, it stays text.

// What turns the direction in which the characters around it are shown.
const TURNS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** Text whose characters are shown in the order that they have. */
export const inOrder = (text) => text.replace(TURNS, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);

/** An element with attributes, and children that are elements or text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'on') for (const [event, f] of Object.entries(value)) element.addEventListener(event, f);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value);
  }
  for (const child of children)
    if (child !== null && child !== undefined && child !== '') element.append(typeof child === 'string' ? inOrder(child) : child);
  return element;
}

export const find = (id) => document.getElementById(id);

const number = new Intl.NumberFormat('en');

/** 25557032 is "25,557,032". */
export const counted = (n) => number.format(n);

/** "one node", "3 nodes". */
export const several = (n, what) => `${n === 1 ? 'one' : counted(n)} ${what}${n === 1 ? '' : 's'}`;

/** 25557032 is "25.6 million". */
export function roughly(n) {
  for (const [unit, word] of [[1e9, ' billion'], [1e6, ' million'], [1e4, ' thousand']])
    if (n >= unit) return `${(n / (unit === 1e4 ? 1e3 : unit)).toPrecision(3)}${word}`;
  return counted(n);
}

/** 25557032 is "25.6 MB". */
export function bytes(n) {
  for (const [unit, word] of [[1e9, 'GB'], [1e6, 'MB'], [1e3, 'kB']])
    if (n >= unit) return `${n / unit >= 100 ? Math.round(n / unit) : (n / unit).toFixed(1)} ${word}`;
  return `${n} bytes`;
}
