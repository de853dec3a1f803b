// Python source as lines with their tokens in colour, by Prism's tokens: its own way to the page makes HTML.

import { make } from './dom.js';

const BLOCK = 100; // lines that the browser lays out together, once they come into view
const MOST = 1_500_000; // characters in colour; more would make the page slow

function* flat(tokens, kind = '') {
  for (const token of tokens) {
    if (typeof token === 'string') yield [kind, token];
    else yield* flat(Array.isArray(token.content) ? token.content : [token.content], token.type);
  }
}

/** Fills `target`; returns the line of each class, by its name. */
export function showSource(target, source) {
  const { Prism } = globalThis;
  const colourful = Prism && source.length <= MOST;
  const tokens = colourful ? flat(Prism.tokenize(source, Prism.languages.python)) : [['', source]];
  const code = make('code', { translate: 'no' });
  let block = null, line = null, lines = 0;
  const begin = () => {
    if (lines++ % BLOCK === 0) code.append((block = make('span', { class: 'block' })));
    block.append((line = make('span', { class: 'line' })));
  };
  begin();
  for (const [kind, text] of tokens) {
    text.split('\n').forEach((part, i) => {
      if (i > 0) {
        line.append('\n');
        begin();
      }
      if (part) line.append(kind ? make('span', { class: `token ${kind}` }, part) : part);
    });
  }
  if (line.childNodes.length === 0) line.remove();
  target.replaceChildren(make('pre', { class: 'source', tabindex: 0, role: 'region', 'aria-label': 'Python source' }, code));
  const classes = new Map();
  for (const shown of code.querySelectorAll('.line')) {
    const found = /^class (\w+)/.exec(shown.textContent);
    if (found) classes.set(found[1], shown);
  }
  return classes;
}
