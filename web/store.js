// Bytes on disk: files of the browser that belong to the page and that nobody else sees (its origin's private file
// system). Where there are none, as in some private windows, bytes stay in memory.
//
// Each page has a folder, under a lock that ends with it; whoever comes next removes what is left of pages that are gone.

const PREFIX = 'onnx2nn-';

/** A folder of a page, or null. */
async function folderOf(page, create) {
  const root = await navigator.storage.getDirectory();
  return root.getDirectoryHandle(PREFIX + page, { create });
}

/** Claims a folder for this page; returns its name. */
export async function claim() {
  const page = crypto.randomUUID?.() ?? String(Math.random()).slice(2);
  try {
    await new Promise((resolve, reject) => {
      navigator.locks.request(PREFIX + page, () => (resolve(), new Promise(() => {}))).catch(reject);
    });
    const root = await navigator.storage.getDirectory();
    for await (const name of root.keys()) {
      if (!name.startsWith(PREFIX)) continue;
      await navigator.locks.request(name, { ifAvailable: true }, (lock) => lock && root.removeEntry(name, { recursive: true }));
    }
  } catch {
    // Another page removes it, or there are no such files.
  }
  return page;
}

/** Removes a file; one that a worker which was just ended holds is left for the next page. */
export async function remove(page, name) {
  try {
    await (await folderOf(page, false)).removeEntry(name);
  } catch {
    // It is not there.
  }
}

/** A file to which bytes are appended, by a worker. */
export class Store {
  #folder;
  #file;
  #handle;
  #end = 0;
  #content = null;

  /** Null where the browser has no such files. */
  static async open(page, name) {
    try {
      const store = new Store();
      store.#folder = await folderOf(page, true);
      store.#file = await store.#folder.getFileHandle(name, { create: true });
      store.#handle = await store.#file.createSyncAccessHandle();
      return store;
    } catch {
      return null;
    }
  }

  /** Where the bytes lie, or null where there is no room for them. */
  append(bytes) {
    const from = this.#end;
    try {
      if (this.#handle.write(bytes, { at: from }) !== bytes.length) return null;
    } catch {
      return null;
    }
    this.#end += bytes.length;
    return from;
  }

  read(position, out) {
    this.#handle.read(out, { at: position });
  }

  /** No more bytes come: from now on `slice` answers, and `read` does not. */
  async finish() {
    this.#handle.close();
    if (this.#end > 0) this.#content = await this.#file.getFile();
    else await this.#folder.removeEntry(this.#file.name);
  }

  slice(position, size) {
    return this.#content.slice(position, position + size);
  }
}
