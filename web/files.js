// The files that the core sees: those that were dropped, read where it looks, and those that it writes.
//
// What is written is kept as pieces, and a piece that the core copies from a dropped file is only a note of where it
// lies there. So weights go from the dropped file to the download without ever being in memory. Bytes that no dropped
// file has go to a private file of the page (store.js) once there are many.

const MERGE = 2 ** 20; // Small writes, one after the other, become runs of up to this size.
const SEAL = 2 ** 25; // More bytes than this leave the memory of the worker, for Blobs;
const SEAL_IN_STORE = 2 ** 22; // for a file, more than this.
const AHEAD = 2 ** 22; // What is read at once of a file that is read in order.
const BLOCK = 2 ** 16; // What is read at once elsewhere, at least: each time costs milliseconds.
const BLOCKS = 128; // How many are kept.

const ENOENT = 44, EEXIST = 20, EINVAL = 28, ENOTEMPTY = 55, EPERM = 63, EXDEV = 75, EIO = 29;
const FOLDER = 0o40755, FILE = 0o100644, KIND = 0o170000;

const nobody = new MessageChannel();
nobody.port2.close();
/** Gives back the memory of bytes that nothing uses any more, in a message to nobody: garbage would stay by the hundred megabytes. */
const release = ({ buffer }) => nobody.port1.postMessage(null, [buffer]);

/** A Blob, of which small parts are read in blocks, and what is read in order by a window that is read ahead. */
class Reader {
  #blob;
  #window = new Uint8Array(0);
  #start = 0;
  #next = 0;
  #blocks = new Map(); // by where they begin, that which was used last at the end
  static #reader = null;

  constructor(blob) {
    this.#blob = blob;
  }

  /** Fills `out` from `position`. */
  read(position, out) {
    const end = position + out.length;
    const isIn = (start, bytes) => position >= start && end <= start + bytes.length;
    if (!isIn(this.#start, this.#window)) {
      const goesOn = position === this.#next;
      if (!goesOn && out.length <= BLOCK) return this.#fromBlocks(position, out);
      const before = this.#window;
      this.#window = this.#bytes(position, goesOn ? Math.max(out.length, AHEAD) : out.length);
      this.#start = position;
      release(before);
    }
    this.#next = end;
    out.set(this.#window.subarray(position - this.#start, end - this.#start));
  }

  #fromBlocks(position, out) {
    const end = (this.#next = position + out.length);
    for (let start = position - (position % BLOCK); start < end; start += BLOCK) {
      const block = this.#blocks.get(start) ?? this.#bytes(start, BLOCK);
      this.#blocks.delete(start);
      this.#blocks.set(start, block);
      if (this.#blocks.size > BLOCKS) {
        const [oldest, itsBytes] = this.#blocks.entries().next().value;
        this.#blocks.delete(oldest);
        release(itsBytes);
      }
      const from = Math.max(start, position);
      out.set(block.subarray(from - start, end - start), from - position);
    }
  }

  #bytes(position, size) {
    Reader.#reader ??= new FileReaderSync();
    return new Uint8Array(Reader.#reader.readAsArrayBuffer(this.slice(position, size)));
  }

  slice(position, size) {
    return this.#blob.slice(position, position + size);
  }
}

/** A file that was dropped. */
export class Dropped {
  #reader;

  /** `onRead` is told how many bytes each look took. */
  constructor(file, onRead = () => {}) {
    this.size = file.size;
    this.time = file.lastModified ?? 0;
    this.onRead = onRead;
    this.#reader = new Reader(file);
  }

  read(position, out) {
    this.#reader.read(position, out);
    this.onRead(out.length);
  }

  /** Where a range lies, as pieces: {size, holder, from}; a holder can `read` and `slice`. */
  slices(position, length) {
    return [{ size: length, holder: this.#reader, from: position }];
  }
}

/** A file that is being written: runs in order, each bytes or a part of what holds it; what lies between is zeros. */
export class Written {
  size = 0;
  time = Date.now();
  #runs = []; // {at, size, bytes} or {at, size, holder, from}
  #loose = 0; // bytes that nothing else holds
  #store;

  /** `store` takes bytes where there are many; it may refuse. */
  constructor(store = null, onWrite = () => {}) {
    this.#store = store;
    this.onWrite = onWrite;
  }

  /** The first run that ends past `position`. */
  #find(position) {
    let low = 0, high = this.#runs.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const run = this.#runs[middle];
      if (run.at + run.size > position) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #part(run, from, to) {
    const skipped = from - run.at;
    if (run.bytes) return { at: from, size: to - from, bytes: run.bytes.slice(skipped, to - run.at) };
    return { at: from, size: to - from, holder: run.holder, from: run.from + skipped };
  }

  /** Takes a range out of what is there; says where a run for it goes in. */
  #clear(at, end) {
    const first = this.#find(at);
    let last = first;
    const kept = [];
    for (; last < this.#runs.length && this.#runs[last].at < end; ++last) {
      const run = this.#runs[last];
      if (run.at < at) kept.push(this.#part(run, run.at, at));
      if (run.at + run.size > end) kept.push(this.#part(run, end, run.at + run.size));
    }
    if (last > first) this.#runs.splice(first, last - first, ...kept);
    return kept.length > 0 && kept[0].at < at ? first + 1 : first;
  }

  write(position, bytes) {
    const size = bytes.length;
    if (size === 0) return;
    this.onWrite(size);
    const index = this.#clear(position, position + size);
    const before = this.#runs[index - 1];
    this.size = Math.max(this.size, position + size);
    this.#loose += size;
    if (before?.bytes && before.at + before.size === position && before.size + size <= MERGE) {
      if (before.bytes.length < before.size + size) {
        const larger = new Uint8Array(Math.min(MERGE, 2 * (before.size + size)));
        larger.set(before.bytes.subarray(0, before.size));
        release(before.bytes);
        before.bytes = larger;
      }
      before.bytes.set(bytes, before.size);
      before.size += size;
    } else {
      this.#runs.splice(index, 0, { at: position, size, bytes: bytes.slice() });
    }
    if (this.#loose > (this.#store ? SEAL_IN_STORE : SEAL)) this.#seal();
  }

  /** Bytes go to the store, or become Blobs, which the browser may put on disk. */
  #seal() {
    for (const run of this.#runs) {
      if (!run.bytes) continue;
      const bytes = run.bytes.subarray(0, run.size);
      run.from = this.#store?.append(bytes) ?? null;
      run.holder = run.from === null ? new Reader(new Blob([bytes])) : this.#store;
      run.from ??= 0;
      release(run.bytes);
      delete run.bytes;
    }
    this.#loose = 0;
  }

  /** Puts pieces of another file here. */
  place(position, pieces) {
    for (const piece of pieces) {
      if (piece.size === 0) continue;
      if (piece.bytes) {
        this.write(position, piece.bytes);
      } else {
        this.onWrite(piece.size);
        const index = this.#clear(position, position + piece.size);
        const before = this.#runs[index - 1];
        const goesOn = before?.holder === piece.holder && before.at + before.size === position &&
          before.from + before.size === piece.from;
        if (goesOn) before.size += piece.size;
        else this.#runs.splice(index, 0, { at: position, size: piece.size, holder: piece.holder, from: piece.from });
        this.size = Math.max(this.size, position + piece.size);
      }
      position += piece.size;
    }
  }

  resize(size) {
    if (size < this.size) this.#clear(size, this.size);
    this.size = size;
  }

  /** The parts of a range in order, each with what holds it. */
  *#parts(position, length) {
    const end = position + length;
    for (let i = this.#find(position); position < end; ++i) {
      const run = this.#runs[i];
      const start = Math.min(run ? run.at : end, end);
      if (start > position) yield { at: position, size: start - position, bytes: new Uint8Array(start - position) };
      if (!run || run.at >= end) return;
      const to = Math.min(run.at + run.size, end);
      yield { at: Math.max(run.at, position), size: to - Math.max(run.at, position), run };
      position = to;
    }
  }

  read(position, out) {
    for (const { at, size, run } of this.#parts(position, out.length)) {
      const target = out.subarray(at - position, at - position + size);
      if (!run) target.fill(0);
      else if (run.bytes) target.set(run.bytes.subarray(at - run.at, at - run.at + size));
      else run.holder.read(run.from + at - run.at, target);
    }
  }

  slices(position, length) {
    return [...this.#parts(position, length)].map(({ at, size, run, bytes }) =>
      run ? this.#part(run, at, at + size) : { size, bytes });
  }

  /** All of it, to be downloaded. */
  blob(type = 'application/octet-stream') {
    const parts = this.slices(0, this.size);
    return new Blob(parts.map((p) => p.bytes ?? p.holder.slice(p.from, p.size)), { type });
  }
}

/** A file system for Emscripten's FS, of folders with files that have `size`, `time`, `read` and perhaps `write`. */
export function fileSystem(FS, newFile) {
  const refuse = (code) => {
    throw new FS.ErrnoError(code);
  };

  const nodes = {
    getattr(node) {
      const size = node.content ? node.content.size : 4096;
      const time = new Date(node.content ? node.content.time : 0);
      return {
        dev: node.mount.number, ino: node.id, mode: node.mode, nlink: 1, uid: 0, gid: 0, rdev: 0, size,
        atime: time, mtime: time, ctime: time, blksize: 4096, blocks: Math.ceil(size / 4096),
      };
    },
    setattr(node, attributes) {
      if (attributes.mode !== undefined) node.mode = attributes.mode;
      if (attributes.size === undefined) return;
      if (!node.content?.resize) refuse(EPERM);
      node.content.resize(attributes.size);
    },
    lookup: () => refuse(ENOENT),
    mknod: (parent, name, mode) => add(parent, name, mode, (mode & KIND) === (FILE & KIND) ? newFile() : null),
    rename(node, folder, name) {
      if (node.mount !== folder.mount) refuse(EXDEV);
      const there = folder.entries.get(name);
      if (there?.entries) refuse(EEXIST);
      if (there) FS.hashRemoveNode(there);
      node.parent.entries.delete(node.name);
      node.name = name;
      node.parent = folder;
      folder.entries.set(name, node);
    },
    unlink: (parent, name) => parent.entries.delete(name),
    rmdir(parent, name) {
      if (parent.entries.get(name).entries.size > 0) refuse(ENOTEMPTY);
      parent.entries.delete(name);
    },
    readdir: (node) => ['.', '..', ...node.entries.keys()],
    symlink: () => refuse(EPERM),
    readlink: () => refuse(EINVAL),
  };

  const streams = {
    read({ node }, buffer, offset, length, position) {
      const size = Math.max(0, Math.min(length, node.content.size - position));
      try {
        if (size > 0) node.content.read(position, new Uint8Array(buffer.buffer, buffer.byteOffset + offset, size));
      } catch (error) {
        if (!(error instanceof DOMException)) throw error;
        refuse(EIO); // the file is gone, or was changed
      }
      return size;
    },
    write({ node }, buffer, offset, length, position) {
      if (!node.content.write) refuse(EPERM);
      node.content.write(position, new Uint8Array(buffer.buffer, buffer.byteOffset + offset, length));
      return length;
    },
    llseek(stream, offset, whence) {
      const from = whence === 0 ? 0 : whence === 1 ? stream.position : stream.node.content.size;
      if (from + offset < 0) refuse(EINVAL);
      return from + offset;
    },
  };

  function add(parent, name, mode, content) {
    const node = FS.createNode(parent, name, mode, 0);
    node.node_ops = nodes;
    node.stream_ops = content ? streams : {};
    node.content = content;
    if (!content) node.entries = new Map();
    parent?.entries.set(name, node);
    return node;
  }

  let mounts = 100;
  return {
    mount(mount) {
      mount.number = ++mounts;
      return add(null, '/', FOLDER, null);
    },
    /** Puts a file at a path below a folder that is there; makes the folders between. */
    put(folder, path, content) {
      const names = path.split('/');
      let at = FS.lookupPath(folder).node;
      for (const name of names.slice(0, -1)) {
        const there = at.entries.get(name);
        at = there?.entries ? there : add(at, name, FOLDER, null);
      }
      add(at, names.at(-1), FILE, content);
    },
  };
}

/** What the core calls to copy between two open files: see src/support/system.h. */
export function copyBetween(FS, from, fromOffset, to, toOffset, length) {
  const source = FS.getStream(from)?.node.content;
  const target = FS.getStream(to)?.node.content;
  if (!source?.slices || !target?.place) return -1;
  const size = Math.max(0, Math.min(length, source.size - fromOffset));
  target.place(toOffset, source.slices(fromOffset, size));
  return size;
}
