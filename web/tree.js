// The tree of modules: folded, equal neighbours as one row, opened by a click or a key.

import { make, roughly, several } from './dom.js';

const FEWEST = 3; // neighbours that become one row

/** Modules of the core and its weights, by their paths, as one tree. */
export function treeOf(modules, weights) {
  const byPath = new Map();
  const at = (path) => {
    if (byPath.has(path)) return byPath.get(path);
    const dot = path.lastIndexOf('.');
    const node = { name: path.slice(dot + 1), path, type: '', layer: false, children: [], weights: [], count: 0 };
    byPath.set(path, node);
    if (path !== '') at(dot < 0 ? '' : path.slice(0, dot)).children.push(node);
    return node;
  };
  for (const { path, type, layer } of modules) Object.assign(at(path), { type, layer });
  for (const { key, shape, dtype, quantized } of weights) {
    if (quantized) continue;
    const dot = key.lastIndexOf('.');
    const count = shape.reduce((a, b) => a * b, 1);
    at(dot < 0 ? '' : key.slice(0, dot)).weights.push({ name: key.slice(dot + 1), shape, dtype, count });
  }
  const root = at('');
  const forms = new Map();
  const sum = (node) => {
    for (const child of node.children) sum(child);
    node.count = [...node.weights, ...node.children].reduce((a, b) => a + b.count, 0);
    const form = JSON.stringify([
      node.type, node.weights.map((w) => [w.name, w.shape, w.dtype]), node.children.map((c) => [c.name, c.form]),
    ]);
    if (!forms.has(form)) forms.set(form, forms.size);
    node.form = forms.get(form);
  };
  sum(root);
  return root;
}

/** Runs of neighbours that are alike. */
function runs(children) {
  const out = [];
  for (const child of children) {
    const last = out.at(-1);
    if (last && last[0].form === child.form && /^\d+$/.test(child.name) && /^\d+$/.test(last[0].name)) last.push(child);
    else out.push([child]);
  }
  return out.flatMap((run) => (run.length >= FEWEST ? [run] : run.map((one) => [one])));
}

function head(names, type, count, toClass) {
  const kind = toClass
    ? make('button', { type: 'button', class: 'type', title: 'Show the class', on: { click: (e) => (e.preventDefault(), toClass()) } }, type)
    : make('span', { class: 'type' }, type);
  return [make('span', { class: 'name' }, names), kind, make('span', { class: 'count' }, count ? roughly(count) : '')];
}

function rows(node, classes, show) {
  const list = make('ul');
  for (const w of node.weights)
    list.append(make('li', { class: 'leaf' }, make('span', { class: 'name' }, w.name),
      make('span', { class: 'type' }, `${w.dtype} ${w.shape.length ? w.shape.join(' × ') : 'scalar'}`),
      make('span', { class: 'count' }, roughly(w.count))));
  for (const run of runs(node.children)) {
    const [first] = run;
    const many = run.length > 1;
    const names = many ? `${first.name} … ${run.at(-1).name}` : first.name;
    const type = many ? `${run.length} × ${first.type || 'module'}` : first.type || 'module';
    const line = classes.get(first.type);
    const summary = head(names, type, first.count * run.length, line && (() => show(line)));
    const inner = first.children.length + first.weights.length > 0;
    if (!inner) {
      list.append(make('li', { class: 'leaf' }, ...summary));
      continue;
    }
    const details = make('details', {}, make('summary', {}, ...summary));
    details.addEventListener('toggle', () => {
      if (!details.open || details.childElementCount > 1) return;
      const below = rows(first, classes, show);
      const only = below.childElementCount === 1 && below.querySelector(':scope > li > details');
      if (only) only.open = true; // what is inside of one thing is what was asked for
      details.append(below);
    });
    list.append(make('li', {}, details));
  }
  return list;
}

/** Fills `target`; `show` is called with the line of a class that was asked for. */
export function showTree(target, root, classes, show) {
  const all = make('p', { class: 'hint' },
    `${root.type || 'The model'}: ${several(root.count, 'number')} in weights and buffers. Equal neighbours are one row; a class leads to its source.`);
  const list = rows(root, classes, show);
  list.className = 'tree';
  target.replaceChildren(all, list);
  for (const details of list.querySelectorAll(':scope > li > details'))
    if (list.childElementCount <= 12) details.open = true;
}
