// One model, from the files that were dropped to those that can be downloaded. The page starts a worker for each model,
// and another where TorchScript is asked for, and ends it to cancel, or when it is done, which gives back its memory.

import { Core } from './core.js';

const UPDATE_MS = 100;
const SMALL = 2 ** 25; // Models up to this size need no disk.

const stemOf = (path) => path.split('/').at(-1).replace(/\.[^.]*$/, '') || 'model';

/** Tells the page how far it is, not too often. */
class Progress {
  #stage = '';
  #read = 0;
  #written = 0;
  #last = 0;

  stage(stage) {
    this.#stage = stage;
    this.#read = this.#written = 0;
    this.#tell();
  }

  moved(read, written) {
    this.#read += read;
    this.#written += written;
    if (performance.now() - this.#last > UPDATE_MS) this.#tell();
  }

  #tell() {
    this.#last = performance.now();
    postMessage({ kind: 'progress', stage: this.#stage, moved: this.#written || this.#read });
  }
}

/** The location of external data that the core misses, as its message says it. */
function missingData(json) {
  for (const { code, message } of json.diagnostics) {
    const found = code === 'external-data' && /^(?:.*: )?the external data (.+) is missing$/.exec(message);
    if (found) return found[1];
  }
  return null;
}

/** Converts; a file that was chosen without its folder is put where the model looks for it. */
function convert(core, path, loose) {
  for (;;) {
    const result = core.convert(path);
    const json = result.json();
    const missing = missingData(json);
    const name = missing?.split('/').at(-1);
    if (!missing?.includes('/') || missing.split('/').includes('..') || !loose.has(name)) return { result, json, missing };
    core.add(missing, loose.get(name));
    loose.delete(name);
    result.free();
  }
}

async function run({ module, path, files, want, page, number }) {
  const started = performance.now();
  const since = () => performance.now() - started;
  const progress = new Progress();
  progress.stage('Starting');
  const core = await Core.start(module, (read, written) => progress.moved(read, written));
  for (const { name, file } of files) core.add(name, file);
  const loose = new Map(files.filter(({ name }) => !name.includes('/')).map(({ name, file }) => [name, file]));

  progress.stage('Converting');
  const { result, json, missing } = convert(core, path, loose);
  const large = files.reduce((sum, { file }) => sum + file.size, 0) > SMALL;
  const keep = (of) => large && core.keepIn(page, `${number}.${of}`);
  const write = async (of, stage) => {
    progress.stage(stage);
    await keep(of);
    const written = await core.write(result, `${stemOf(path)}.${of}`);
    postMessage({ kind: 'files', of, files: written, error: written.length ? '' : result.diagnostics() });
  };
  if (want === 'pt') {
    await write('pt', 'Writing TorchScript of');
    return postMessage({ kind: 'done', heap: core.heapBytes, ms: since() });
  }
  postMessage({ kind: 'conversion', status: result.status, json, missing, source: result.source(), modules: result.modules(), ms: since() });
  if (result.status === 0) await write('py', 'Placing the weights of');
  result.free(); // its room is that of the simplification

  if (json.readable) {
    progress.stage('Simplifying');
    await keep('onnx');
    const simplified = core.simplify(path);
    const small = await core.take(simplified);
    postMessage({ kind: 'simplified', json: simplified.json() });
    postMessage({ kind: 'files', of: 'onnx', files: small, error: small.length ? '' : simplified.diagnostics() });
    simplified.free();
  }
  postMessage({ kind: 'done', heap: core.heapBytes, ms: since() });
}

addEventListener('message', ({ data }) => {
  run(data).catch((error) => {
    const stack = error instanceof RangeError;
    const memory = error instanceof WebAssembly.RuntimeError || /memory/i.test(String(error));
    postMessage({ kind: 'failed', reason: stack ? 'stack' : memory ? 'memory' : 'internal', text: String(error) });
  });
});
