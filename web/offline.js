// Keeps the page's own files, so that it opens without a network; each time there is one, they are fetched anew.

const CACHE = 'onnx2nn';
const FILES = [
  './', 'style.css', 'icon.svg', 'prism.js', 'app.js', 'chosen.js', 'core.js', 'dom.js', 'files.js', 'operators.js', 'source.js',
  'store.js', 'tree.js', 'worker.js', 'onnx2nn.js', 'onnx2nn.wasm', 'digits.onnx', 'licences.txt',
];

addEventListener('install', (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)).then(() => skipWaiting()));
});

addEventListener('activate', (event) => event.waitUntil(clients.claim()));

async function answer(request) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request, response.clone());
    return response;
  } catch {
    return (await cache.match(request, { ignoreSearch: true })) ?? Response.error();
  }
}

addEventListener('fetch', (event) => {
  const { request } = event;
  if (request.method === 'GET' && new URL(request.url).origin === location.origin) event.respondWith(answer(request));
});
