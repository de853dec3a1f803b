// The files that somebody dropped or chose, as {name, file}; a name has the folders below what was chosen.

const MOST = 20000;
const isModel = ({ name }) => /\.onnx$/i.test(name);
const isHidden = (name) => name.split('/').some((part) => part.startsWith('.'));

/** Of an <input>. */
export const fromInput = (input) =>
  [...input.files].map((file) => ({ name: file.webkitRelativePath || file.name, file }));

/** Of a drop, folders opened. */
export async function fromDrop(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length === 0) return [...transfer.files].map((file) => ({ name: file.name, file }));
  const found = [];
  const open = async (entry, folder) => {
    if (found.length >= MOST) return;
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      found.push({ name: folder + file.name, file });
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (some.length === 0) return;
      for (const inner of some) await open(inner, `${folder}${entry.name}/`);
    }
  };
  for (const entry of entries) await open(entry, '');
  return found;
}

/** The models among the files: those that are called so, or the only file. */
export function modelsIn(files) {
  const models = files.filter((f) => isModel(f) && !isHidden(f.name));
  return models.length === 0 && files.length === 1 ? files : models;
}
