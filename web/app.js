// The page: files in, views and downloads out. All work is done by worker.js.

import { fromDrop, fromInput, modelsIn } from './chosen.js';
import { bytes, counted, find, inOrder, make, roughly, several } from './dom.js';
import { showMessages, showOperators } from './operators.js';
import { showSource } from './source.js';
import { claim, remove } from './store.js';
import { showTree, treeOf } from './tree.js';

const LIMIT = 2e9; // addresses of WebAssembly have 32 bits, and conversion and simplification need room each
const VIEWS = ['source', 'modules', 'operators', 'messages'];
const TITLES = { source: 'Source', modules: 'Modules', operators: 'Operators', messages: 'Messages' };
const TITLE = document.title;
const COPIED_MS = 2000;
const MOST_NAMES = 10;

const trusted = globalThis.trustedTypes?.createPolicy('onnx2nn', { createScriptURL: (url) => url });
const script = (url) => (trusted ? trusted.createScriptURL(url) : url);

let chosen = []; // all files, also those that were added for the model's sake
let current = null; // the model of them that is looked at
let worker = null;
let urls = [];
let conversion = null;
let number = 0; // of the model, since the page was opened
const page = claim();
let cleaned = page; // once files of models before are gone

// ---- The core, compiled once ----

async function compile() {
  const response = await fetch('onnx2nn.wasm');
  if (!response.ok) throw new Error(`onnx2nn.wasm: ${response.status}`);
  try {
    return await WebAssembly.compileStreaming(response.clone());
  } catch {
    return WebAssembly.compile(await response.arrayBuffer()); // a host that sends another type
  }
}
const compiled = compile();
compiled.catch(() => {}); // said where it is needed

// ---- What is shown ----

function show(...ids) {
  for (const id of ['drop', 'working', 'message', 'result']) find(id).hidden = !ids.includes(id);
  find('about').hidden = ids.length > 1 || !ids.includes('drop');
}

/** What is being done; said aloud once, where `moved`, which changes all the time, is only shown. */
function tell(stage, moved = '') {
  if (find('stage').textContent !== stage) find('stage').textContent = stage;
  find('moved').textContent = moved;
}

function say(title, ...children) {
  find('message').replaceChildren(make('h2', {}, title), ...children);
  show('drop', 'message');
}

/** A button that copies what `text` gives. */
function copier(button, text) {
  button.hidden = !navigator.clipboard;
  button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(text());
    const label = button.textContent;
    button.textContent = find('said').textContent = 'Copied';
    setTimeout(() => {
      button.textContent = label;
      find('said').textContent = '';
    }, COPIED_MS);
  });
}

const words = (text) => (/^[\w./@%+:,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
const command = (name) => `pip install "onnx2nn[verify]"\nonnx2nn ${words(name)}`;

function select(view, focus = false) {
  for (const name of VIEWS) {
    const tab = find(`tab-${name}`);
    tab.setAttribute('aria-selected', String(name === view));
    tab.tabIndex = name === view ? 0 : -1;
    find(`panel-${name}`).hidden = name !== view;
  }
  find('copy-source').classList.toggle('away', view !== 'source' || find('panel-source').querySelector('code') === null);
  if (focus) find(`tab-${view}`).focus();
}

function makeTabs() {
  find('tabs').append(...VIEWS.map((view) => make('button', {
    id: `tab-${view}`, type: 'button', role: 'tab', 'aria-controls': `panel-${view}`, on: { click: () => select(view) },
  }, TITLES[view])));
  find('tabs').addEventListener('keydown', (event) => {
    const at = VIEWS.findIndex((view) => find(`tab-${view}`) === event.target);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: VIEWS.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    select(VIEWS[(to + VIEWS.length) % VIEWS.length], true);
  });
  for (const view of VIEWS) find(`panel-${view}`).setAttribute('aria-labelledby', `tab-${view}`);
  select('source');
}

function goToClass(line) {
  select('source', true);
  line.scrollIntoView({ block: 'start' });
  line.classList.remove('found');
  requestAnimationFrame(() => line.classList.add('found'));
}

function showFacts({ stats = {}, weights = [], inputs = [], outputs = [] }) {
  const parameters = weights.reduce((sum, w) => sum + (w.quantized ? 0 : w.shape.reduce((a, b) => a * b, 1)), 0);
  const opsets = Object.entries(stats.opsets ?? {}).map(([domain, version]) => `${domain || 'ai.onnx'} ${version}`);
  const facts = [
    ['Parameters', weights.length > 0 && `${roughly(parameters)} (${bytes(stats.weight_bytes ?? 0)})`],
    ['Operators', several(stats.nodes_before ?? 0, 'node')],
    ['Opset', opsets.join(', ')],
    ['Made by', stats.producer],
  ];
  find('facts').replaceChildren(...facts.filter(([, value]) => value).flatMap(([name, value]) => [make('dt', {}, name), make('dd', {}, value)]));
  const row = (port, kind) => make('tr', {}, make('th', { scope: 'row' }, make('span', { class: 'kind' }, kind), ` ${port.name}`),
    make('td', {}, `${port.dtype} ${port.shape ? `[${port.shape.join(', ')}]` : 'of any rank'}`));
  find('ports').replaceChildren(make('caption', {}, 'Inputs and outputs'),
    make('tbody', {}, ...inputs.map((p) => row(p, 'in')), ...outputs.map((p) => row(p, 'out'))));
  find('ports').hidden = inputs.length + outputs.length === 0;
}

function showConversion(data, name) {
  conversion = data.json;
  const done = data.status === 0;
  const errors = conversion.diagnostics.filter((d) => d.severity === 'error').length;
  find('name').textContent = inOrder(name);
  document.title = `${name}: ${TITLE}`;
  find('verdict').className = done ? 'good' : 'bad';
  find('verdict').textContent = done
    ? `Converted to class ${conversion.class_name} in ${(data.ms / 1000).toFixed(1)}\u00a0s`
    : conversion.readable ? `Does not convert: ${several(errors, 'thing')} to mend` : 'This file cannot be read';
  find('downloads').replaceChildren();
  find('parts').hidden = true;
  for (const id of ['downloads', 'facts', 'command']) find(id).closest('section').hidden = !conversion.readable;
  find('command').textContent = command(name);
  showFacts(conversion);
  const classes = done ? showSource(find('panel-source'), data.source) : new Map();
  if (done) {
    showTree(find('panel-modules'), treeOf(data.modules, conversion.weights), classes, goToClass);
  } else {
    for (const view of ['source', 'modules'])
      find(`panel-${view}`).replaceChildren(make('p', { class: 'hint' }, 'There is none: see the messages.'));
  }
  showRest(null);
  select(done ? 'source' : 'messages');
  show('working', 'result');
  find('name').focus({ preventScroll: true });
}

function showRest(simplified) {
  showOperators(find('panel-operators'), conversion, simplified);
  const count = showMessages(find('panel-messages'), conversion, simplified);
  find('tab-messages').textContent = count ? `${TITLES.messages} (${counted(count)})` : TITLES.messages;
}

const WHAT = { py: 'source', safetensors: 'weights', pt: 'TorchScript', onnx: 'simplified model', data: 'its weights' };

function offer({ name, blob }) {
  const url = URL.createObjectURL(blob);
  urls.push(url);
  const what = WHAT[name.split('.').at(-1)] ?? 'data';
  return make('li', {}, make('a', { href: url, download: name, 'data-size': blob.size },
    make('span', { class: 'file' }, name), make('span', { class: 'what' }, `${what}, ${bytes(blob.size)}`)));
}

function showFiles({ of, files, error }) {
  const items = files.map(offer);
  if (error)
    items.push(make('li', { class: 'none' }, `No ${of === 'pt' ? 'TorchScript' : `.${of}`}: `, make('span', {}, error.replace(/^onnx2nn: /, '').trim())));
  if (of === 'pt') {
    find('make-pt').closest('li').replaceWith(...items);
    items[0].querySelector('a')?.focus();
    return;
  }
  // It takes time and memory, for which those who want source do not ask.
  if (of === 'py' && files.length > 0)
    items.push(make('li', {}, make('button', { id: 'make-pt', type: 'button', on: { click: () => work('pt') } },
      make('span', { class: 'file' }, files[0].name.replace(/py$/, 'pt')), make('span', { class: 'what' }, 'make TorchScript'))));
  find('downloads').append(...items);
  find('parts').hidden = find('downloads').querySelector('a') === null;
}

// ---- One model ----

function end() {
  worker?.terminate();
  worker = null;
}

function stop() {
  end();
  for (const url of urls) URL.revokeObjectURL(url);
  urls = [];
  conversion = null;
  document.title = TITLE;
}

const STOPPED = {
  memory: 'The browser has no more memory for this model.',
  stack: 'This model is nested more deeply than the browser allows.',
  internal: 'Something went wrong inside of the converter; please report it.',
};

function onMessage(data, base) {
  if (data.kind === 'progress') {
    tell(`${data.stage} ${base} …`, data.moved ? bytes(data.moved) : '');
  } else if (data.kind === 'conversion') {
    if (data.missing !== null) return askFor(data.missing, base);
    showConversion(data, base);
  } else if (data.kind === 'simplified') {
    showRest(data.json);
  } else if (data.kind === 'files') {
    showFiles(data);
  } else if (data.kind === 'done') {
    end();
    show('drop', 'result');
    find('result').dataset.heap = data.heap;
    find('result').dataset.ms = Math.round(data.ms);
  } else if (data.kind === 'failed') {
    stop();
    say(STOPPED[data.reason], make('p', {}, 'The program has no such limits:'), make('pre', {}, command(base)), make('p', { class: 'where' }, data.text));
  }
}

/** The model keeps weights in a file that was not chosen. */
function askFor(location, base) {
  end();
  const added = chosen.filter((c) => c !== current).map((c) => c.name);
  say('One more file is needed',
    make('p', {}, `${base} keeps weights in `, make('code', {}, location), '. Drop or choose it too, or the folder that holds all of them.'),
    added.length === 0 ? '' : make('p', { class: 'where' }, `So far there are: ${added.slice(0, MOST_NAMES).join(', ')}${added.length > MOST_NAMES ? ', …' : ''}`));
}

/** Starts a worker on the model: for 'source' and what goes with it, or for TorchScript ('pt'). */
async function work(want) {
  const model = current;
  const base = model.name.split('/').at(-1);
  const others = modelsIn(chosen).filter((m) => m !== model);
  tell('Loading the converter …');
  const mine = (worker = new Worker(script('worker.js'), { type: 'module' }));
  const receive = (data) => mine === worker && onMessage(data, base);
  const fail = (text) => receive({ kind: 'failed', reason: 'internal', text });
  mine.addEventListener('message', ({ data }) => receive(data));
  mine.addEventListener('error', (event) => fail(event.message ?? ''));
  show('working', ...(conversion ? ['result'] : []));
  try {
    const files = chosen.filter((f) => !others.includes(f));
    await cleaned;
    mine.postMessage({ module: await compiled, path: model.name, files, want, page: await page, number });
  } catch (error) {
    fail(String(error));
  }
}

function start(model) {
  stop();
  current = model;
  ++number;
  // Those of the model before this one may still be on their way to a download.
  const old = number - 2;
  cleaned = page.then((claimed) => Promise.all(['py', 'pt', 'onnx'].map((of) => remove(claimed, `${old}.${of}`))));
  const base = model.name.split('/').at(-1);
  const size = chosen.reduce((sum, { file }) => sum + file.size, 0);
  const others = modelsIn(chosen).reduce((sum, m) => sum + (m === model ? 0 : m.file.size), 0);
  if (size - others > LIMIT)
    return say('This model is too large for a browser',
      make('p', {}, `${base} and its files have ${bytes(size - others)}, and a page can take ${bytes(LIMIT)}. The program has no limit:`),
      make('pre', {}, command(base)));
  work('source');
}

function take(files) {
  if (files.length === 0) return;
  const models = modelsIn(files);
  const waiting = modelsIn(chosen);
  if (models.length === 0 || models.every((m) => !/\.onnx$/i.test(m.name))) {
    // Files for the model that is there, or one model under another name.
    if (waiting.length === 1 && find('message').hidden === false) {
      chosen = [...chosen.filter((c) => !files.some((f) => f.name === c.name)), ...files];
      return start(waiting[0]);
    }
    if (models.length === 0) return say('There is no .onnx file among these', make('p', {}, several(files.length, 'file')));
  }
  chosen = files;
  if (models.length === 1) return start(models[0]);
  stop();
  say('Which one?', make('ul', { class: 'choices' }, ...models.map((m) =>
    make('li', {}, make('button', { type: 'button', on: { click: () => start(m) } }, m.name)))));
}

// ---- What people do ----

function listen() {
  for (const id of ['files', 'folder'])
    find(id).addEventListener('change', ({ target }) => {
      const files = fromInput(target);
      target.value = ''; // so that the same file can be chosen again
      take(files);
    });
  find('example').addEventListener('click', async () => {
    try {
      const response = await fetch('digits.onnx');
      take([{ name: 'digits.onnx', file: new File([await response.blob()], 'digits.onnx') }]);
    } catch (error) {
      say('The example cannot be loaded', make('p', { class: 'where' }, String(error)));
    }
  });
  const cancel = () => {
    // What is there stays; the downloads that were not made are not.
    end();
    if (!conversion) stop();
    show('drop', ...(conversion ? ['result'] : []));
    find('said').textContent = 'Cancelled';
    find('files').focus();
  };
  find('cancel').addEventListener('click', cancel);
  addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && !find('working').hidden) cancel();
  });
  copier(find('copy-source'), () => find('panel-source').textContent);
  copier(find('copy-command'), () => find('command').textContent);
  const over = (event) => {
    if (![...event.dataTransfer.types].includes('Files')) return;
    event.preventDefault();
    document.body.classList.add('over');
  };
  addEventListener('dragenter', over);
  addEventListener('dragover', over);
  addEventListener('dragleave', (event) => event.relatedTarget === null && document.body.classList.remove('over'));
  addEventListener('drop', async (event) => {
    event.preventDefault();
    document.body.classList.remove('over');
    try {
      take(await fromDrop(event.dataTransfer));
    } catch (error) {
      say('These files cannot be read', make('p', { class: 'where' }, String(error)));
    }
  });
}

makeTabs();
listen();
show('drop');
// The page is there without a network once it was opened with one.
if (location.protocol.startsWith('http') && 'serviceWorker' in navigator) navigator.serviceWorker.register(script('offline.js')).catch(() => {});
