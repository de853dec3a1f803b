// The core: the C interface (include/onnx2nn/onnx2nn.h) as compiled to WebAssembly, in a worker.

import create from './onnx2nn.js';
import { copyBetween, Dropped, fileSystem, Written } from './files.js';
import { Store } from './store.js';

const MODEL = '/model', OUT = '/out';
const DONE = 0;
const decoder = new TextDecoder();

export class Core {
  #wasm;
  #files;
  #store = null;

  /** `module`: the compiled WebAssembly; `onBytes(read, written)` is told of what was moved. */
  static async start(module, onBytes) {
    const core = new Core();
    const wasm = await create({
      instantiateWasm(imports, receive) {
        WebAssembly.instantiate(module, imports).then((instance) => receive(instance));
        return {};
      },
      copyBetween: (...places) => copyBetween(core.#wasm.FS, ...places),
    });
    core.#wasm = wasm;
    core.onBytes = onBytes;
    core.#files = fileSystem(wasm.FS, () => new Written(core.#store, (n) => onBytes(0, n)));
    for (const folder of [MODEL, OUT]) {
      wasm.FS.mkdir(folder);
      wasm.FS.mount(core.#files, {}, folder);
    }
    return core;
  }

  /** Puts a dropped file beside the model. */
  add(path, file) {
    this.#files.put(MODEL, path, new Dropped(file, (n) => this.onBytes(n, 0)));
  }

  convert(path) {
    return new Result(this.#wasm, 'convert_file', `${MODEL}/${path}`, null);
  }

  /** Simplifies into a file of the same name. */
  simplify(path) {
    return new Result(this.#wasm, 'simplify_file', `${MODEL}/${path}`, `${OUT}/${path.split('/').at(-1)}`, null);
  }

  /** What is written from now on, until it is taken out, may be kept in this file of the page. */
  async keepIn(page, name) {
    this.#store = await Store.open(page, name);
  }

  /** Writes a conversion; the files that came of it are taken out, as {name, blob}. */
  write(result, name) {
    result.write(`${OUT}/${name}`);
    return this.take(result);
  }

  async take(result) {
    await this.#store?.finish();
    this.#store = null;
    if (result.status !== DONE) return [];
    return result.json().files.map((path) => {
      const { content } = this.#wasm.FS.lookupPath(path).node;
      const type = path.endsWith('.py') ? 'text/x-python' : undefined;
      return { name: path.split('/').at(-1), blob: content.blob(type) };
    });
  }

  get heapBytes() {
    return this.#wasm.HEAPU8.byteLength;
  }
}

/** A handle of the interface, which a call on texts (null is NULL) gave; `free` it. */
class Result {
  #wasm;
  #handle;

  constructor(wasm, call, ...texts) {
    this.#wasm = wasm;
    const place = wasm._malloc(4);
    const given = texts.map((t) => this.#text(t));
    this.status = wasm[`_onnx2nn_${call}`](...given, place);
    this.#handle = wasm.HEAPU32[place >>> 2];
    for (const pointer of [place, ...given]) wasm._free(pointer);
  }

  #text(text) {
    if (text === null) return 0;
    const size = this.#wasm.lengthBytesUTF8(text) + 1;
    const pointer = this.#wasm._malloc(size);
    this.#wasm.stringToUTF8(text, pointer, size);
    return pointer;
  }

  /** What a function that returns a onnx2nn_text gives: it has room for that as its first argument. */
  #get(name) {
    const place = this.#wasm._malloc(8);
    this.#wasm[`_onnx2nn_${name}`](place, this.#handle);
    const [data, size] = this.#wasm.HEAPU32.subarray(place >>> 2, (place >>> 2) + 2);
    const text = decoder.decode(this.#wasm.HEAPU8.subarray(data, data + size));
    this.#wasm._free(place);
    return text;
  }

  write(path) {
    const pointer = this.#text(path);
    this.status = this.#wasm._onnx2nn_write(this.#handle, pointer, 0);
    this.#wasm._free(pointer);
  }

  json() {
    return JSON.parse(this.#get('json'));
  }

  modules() {
    return JSON.parse(this.#get('modules') || '[]');
  }

  source() {
    return this.#get('source');
  }

  diagnostics() {
    return this.#get('diagnostics');
  }

  free() {
    this.#wasm._onnx2nn_free(this.#handle);
    this.#handle = 0;
  }
}
