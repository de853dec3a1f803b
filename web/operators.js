// Operators before and after simplification, what the rules did, and messages.

import { counted, make, several } from './dom.js';

export function showOperators(target, conversion, simplified) {
  const before = conversion.stats?.op_types ?? simplified?.simplified?.op_types_before ?? {};
  const after = simplified?.simplified?.op_types_after;
  const names = [...new Set([...Object.keys(before), ...Object.keys(after ?? {})])];
  const most = Math.max(1, ...Object.values(before), ...Object.values(after ?? {}));
  names.sort((a, b) => Math.max(before[b] ?? 0, after?.[b] ?? 0) - Math.max(before[a] ?? 0, after?.[a] ?? 0) || (a < b ? -1 : 1));
  const bar = (n, kind) => {
    const shown = make('span', { class: `bar ${kind}` });
    shown.style.width = `${(100 * n) / most}%`;
    return shown;
  };
  const total = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);
  const cell = (n) => make('td', { class: 'number' }, n === undefined ? '…' : counted(n));
  const row = (name) => {
    const [old, now] = [before[name] ?? 0, after && (after[name] ?? 0)];
    const bars = make('td', { class: 'bars', 'aria-hidden': 'true' }, bar(old, 'before'), after ? bar(now, 'after') : null);
    return make('tr', {}, make('th', { scope: 'row' }, name), cell(old), cell(now), bars);
  };
  const table = make('table', { class: 'operators' },
    make('thead', {}, make('tr', {}, make('th', { scope: 'col' }, 'Operator'), make('th', { scope: 'col', class: 'number before' }, 'Before'),
      make('th', { scope: 'col', class: 'number after' }, 'After'), make('td', { class: 'bars' }))),
    make('tbody', {}, ...names.map(row)),
    make('tfoot', {}, make('tr', {}, make('th', { scope: 'row' }, 'All'), cell(total(before)), cell(after && total(after)), make('td'))));
  const rules = Object.entries(simplified?.simplified?.rules ?? {}).sort(([, a], [, b]) => b - a);
  const did = rules.length === 0 ? [] : [
    make('h4', {}, 'What the rules of simplification did'),
    make('table', { class: 'rules' }, make('tbody', {}, ...rules.map(([rule, times]) =>
      make('tr', {}, make('th', { scope: 'row' }, rule), make('td', { class: 'number' }, several(times, 'time')))))),
  ];
  const hint = 'Before: as the model has them. After: in the simplified model, which computes the same.';
  target.replaceChildren(make('p', { class: 'hint' }, hint), table, ...did);
}

/** One message of the core. */
function message(d) {
  const node = [d.op_type && (d.domain ? `${d.domain}::${d.op_type}` : d.op_type), d.node && `node ${d.node}`,
    d.op_type && d.opset ? `opset ${d.opset}` : ''].filter(Boolean).join(', ');
  return make('li', { class: d.severity },
    make('p', {}, make('strong', {}, d.severity), ` ${d.message}`),
    node ? make('p', { class: 'where' }, node) : null,
    d.inputs ? make('p', { class: 'where' }, d.inputs) : null,
    d.hint ? make('p', { class: 'advice' }, d.hint) : null);
}

/** What would not convert, first by operator. Returns how many messages there are. */
export function showMessages(target, conversion, simplified) {
  const said = new Set(conversion.diagnostics.map((d) => JSON.stringify(d)));
  const more = (simplified?.diagnostics ?? []).filter((d) => !said.has(JSON.stringify(d)));
  const errors = conversion.diagnostics.filter((d) => d.severity === 'error');
  const notes = conversion.diagnostics.filter((d) => d.severity !== 'error');
  const byType = new Map();
  for (const d of errors) if (d.op_type) byType.set(d.op_type, (byType.get(d.op_type) ?? 0) + 1);
  const part = (title, list) => (list.length === 0 ? [] : [make('h4', {}, title), make('ul', { class: 'messages' }, ...list.map(message))]);
  const counts = [...byType].map(([type, n]) => `${type} (${n})`).join(', ');
  target.replaceChildren(
    ...part(counts ? `What does not convert: ${counts}` : conversion.readable ? 'Why it does not convert' : 'Why it cannot be read', errors),
    ...part('Notes of the conversion', notes),
    ...part('Notes of the simplification', more),
    ...(conversion.diagnostics.length + more.length === 0 ? [make('p', { class: 'hint' }, 'Everything converts; there is nothing to say.')] : []));
  return conversion.diagnostics.length + more.length;
}
