// Keeps the page in the browser, so that it works without a network. `make_page` writes the version and the names.
const NAME = 'colorgan-VERSION', SHELL = 'FILES'.split(' ');

addEventListener('install', e => e.waitUntil(caches.open(NAME).then(c => c.addAll(SHELL)).then(() => skipWaiting())));

addEventListener('activate', e => e.waitUntil((async () => {
  const old = (await caches.keys()).filter(k => k.startsWith('colorgan-') && k !== NAME);
  await Promise.all(old.map(k => caches.delete(k)));
  await clients.claim();
})()));

addEventListener('fetch', e => {
  if (e.request.method !== 'GET' || new URL(e.request.url).origin !== location.origin) return;
  e.respondWith(caches.open(NAME).then(c => c.match(e.request, {ignoreSearch: true})).then(kept => kept ?? fetch(e.request)));
});
